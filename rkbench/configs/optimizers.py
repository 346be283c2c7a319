"""The optimizers by name: one row each, with what it stands for and which keywords a config shows.

Read without JAX, which `rkbench list` and `--help` do not wait for. The registry of
`rkbench.optimizers` is made from the same rows, so that each name stands in one place.

- A tableau or a family of them has its row in `rkbench/rk/tableaus.py` alone.
- `FACTORIES` are the methods with keywords of their own whose functions need JAX or NumPy.
- `COMPOSED` are names for a tableau with other parts.
- `BASELINES` are all others.

An optimizer may have more keywords than it shows, of the parts one chooses or seldom used ones of
optax's: `key=value` adds them. A test compares the defaults with those of the functions.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from rkbench.rk.tableaus import FAMILIES, TABLEAUS

# The parts of a Runge-Kutta method that its name may leave open, with their defaults.
PARTS = {"tableau": "rk4", "preconditioner": "identity", "step_size": "fixed"}


class Composed(NamedTuple):
    """A name for some parts chosen for good."""

    parts: Mapping[str, str]
    keywords: Mapping[str, Any] = {}  # those of the parts that are shown, and the momentum


class Factory(NamedTuple):
    """An optimizer that is no Runge-Kutta method."""

    function: str  # "module:function", a factory with optax's keywords
    keywords: Mapping[str, Any] = {}  # those that are shown


_ADAM = {"b1": 0.9, "b2": 0.999, "eps": 1e-8}
_KRYLOV = {"krylov_iterations": 10, "tolerance": 1e-3}
_NEWTON = {"newton_iterations": 3, **_KRYLOV}

FACTORIES: dict[str, Mapping[str, Any]] = {
    "rkc1": {"stages": 4, "damping": 0.05, "monotone": False},
    "rkc2": {"stages": 4, "damping": 2 / 13},
    "rkl2": {"stages": 4},
    "implicit_euler": _NEWTON,
    "implicit_midpoint": _NEWTON,
    "crank_nicolson": _NEWTON,
    "sdirk2": _NEWTON,
    "rosenbrock_euler": _KRYLOV,
}

COMPOSED: dict[str, Composed] = {
    "rk": Composed({}),  # and tableau: a name, or {"a": (...), "b": (...), "order": ...}
    "rk4_adagrad": Composed({"tableau": "rk4", "preconditioner": "adagrad"}, {"eps": 0.1}),
    "rk4_modified_adagrad": Composed({"tableau": "rk4", "preconditioner": "modified_adagrad"}),
    "rk4_natural": Composed({"tableau": "rk4", "preconditioner": "natural"}, {"alpha": -1.0}),
    "rk4_adam": Composed({"tableau": "rk4", "preconditioner": "adam"}, _ADAM),
    "rk4_dalr": Composed({"tableau": "rk4", "step_size": "dalr"}, {"c": 1.0, "p": 0.8}),
    # beta = 0.95 is the paper's, tuned on MNIST and Fashion-MNIST (Appendix D.4).
    "rk4_momentum": Composed({"tableau": "rk4"}, {"momentum": 0.95}),
}

BASELINES: dict[str, Factory] = {
    "sgd": Factory("rkbench.optimizers.baselines:sgd"),
    "momentum": Factory("rkbench.optimizers.baselines:momentum", {"momentum": 0.9}),
    "adam": Factory("optax:adam", _ADAM),
    "adamw": Factory("optax:adamw", {**_ADAM, "weight_decay": 1e-4}),
    "nadamw": Factory("rkbench.optimizers.baselines:nadamw", {**_ADAM, "weight_decay": 1e-4}),
    "sgd_g2": Factory("rkbench.optimizers.related:sgd_g2", {"beta": 0.9}),
    "rgd": Factory("rkbench.optimizers.related:rgd", {"momentum": 0.9, "delta": 1.0, "alpha": 1.0}),
    "aggmo": Factory("rkbench.optimizers.related:aggmo", {"betas": (0.0, 0.9, 0.99)}),
}

# Of optax's optimizers and of parts, whose keywords stand in no row above.
_WHOLE_ELSEWHERE = frozenset(
    (
        *("decay_offset", "memory_size", "min_dim_size_to_factor", "ns_steps", "rank", "seed"),
        *("print_win_rate_every_n_steps", "update_interval", "update_proj_gap", "warmup_steps"),
    )
)


class Derived(Mapping[str, Any]):
    """A mapping made from other tables each time it is read: a row added to one is in it too."""

    def __init__(self, make: Callable[[], Mapping[str, Any]]) -> None:
        self._make = make

    def __getitem__(self, name: str) -> Any:
        return self._make()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._make())

    def __len__(self) -> int:
        return len(self._make())


def step_size_rule(name: str) -> str:
    """The step-size rule that a name has chosen for good, else "fixed"."""
    return COMPOSED[name].parts.get("step_size", "fixed") if name in COMPOSED else "fixed"


def is_method(name: str) -> bool:
    """Whether the name is that of a Runge-Kutta method, composed or not."""
    return is_plain_method(name) or name in COMPOSED


def is_plain_method(name: str) -> bool:
    """Whether all parts beside the tableau are left open."""
    return name in TABLEAUS or name in FAMILIES or name in FACTORIES or name == "rk"


def is_whole(keyword: str) -> bool:
    """Whether a keyword of an optimizer is a whole number; all others that are numbers are real."""
    shown = (keywords.get(keyword) for keywords in OPTIMIZERS.values())
    return keyword in _WHOLE_ELSEWHERE or any(type(value) is int for value in shown)


def _shown() -> dict[str, dict[str, Any]]:
    baselines = {name: dict(row.keywords) for name, row in BASELINES.items()}
    tableaus = {name: _keywords({}) for name in TABLEAUS}
    families = {
        name: _keywords({}) | {p.name: p.default for p in _parameters(family)}
        for name, family in FAMILIES.items()
    }
    factories = {name: {**_keywords({}), **keywords} for name, keywords in FACTORIES.items()}
    composed = {name: {**_keywords(row.parts), **row.keywords} for name, row in COMPOSED.items()}
    return baselines | tableaus | families | factories | composed


def _keywords(chosen: Mapping[str, str]) -> dict[str, Any]:
    """The keywords of every Runge-Kutta method that are left open: parts and the momentum."""
    parts = {part: default for part, default in PARTS.items() if part not in chosen}
    parts.pop("tableau", None)  # that of the name, or the user's to give
    return {**parts, "momentum": 0.0}


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    return list(inspect.signature(function).parameters.values())


OPTIMIZERS: Mapping[str, Mapping[str, Any]] = Derived(_shown)
"""The keywords of each optimizer that its config shows, with their defaults."""
