"""Runge-Kutta optimizers by name: which parts a name stands for, and the keywords they take."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import optax

from rkbench.configs import optimizers as rows
from rkbench.errors import UserError, unknown
from rkbench.optimizers.baselines import Spending
from rkbench.rk import (
    FAMILIES,
    IMPLICIT,
    PRECONDITIONERS,
    STABILIZED,
    STEP_SIZES,
    TABLEAUS,
    Method,
    Preconditioner,
    StepSizeRule,
    Tableau,
    runge_kutta,
)
from rkbench.rk.clipped import clipped


def _tableaus() -> dict[str, Callable[..., Any]]:
    fixed = {name: lambda table=table: table for name, table in TABLEAUS.items()}
    # The last two follow a recurrence and an equation in place of a tableau.
    return fixed | FAMILIES | STABILIZED | IMPLICIT


# Each part's factories by name. The parts' names are keywords of every Runge-Kutta method.
PARTS: dict[str, Mapping[str, Callable[..., Any]]] = {
    "tableau": rows.Derived(_tableaus),
    "preconditioner": PRECONDITIONERS,
    "step_size": STEP_SIZES,
}
KINDS: dict[str, type | tuple[type, ...]] = {
    "tableau": (Tableau, Method),
    "preconditioner": Preconditioner,
    "step_size": StepSizeRule,
}
TERMS = {
    "weight_decay": 0.0,
    "l2": 0.0,
    "nesterov": False,
}  # keywords of every method beside its parts
NOT_KEYWORDS = ("table", "learning_rate")  # parameters of factories that users give otherwise


class Keyword(NamedTuple):
    """A hyperparameter of a part: which part's factory it goes to, and as which parameter."""

    part: str
    parameter: str
    default: Any


class RungeKuttaMethod:
    """A registered name: some parts chosen for good, the others left to keywords."""

    def __init__(self, name: str, momentum: float = 0.0, **chosen: str | Tableau) -> None:
        self.name = name
        # Newton's method and Krylov solvers take as many iterations as the loss demands.
        implicit = isinstance(chosen.get("tableau"), str) and chosen["tableau"] in IMPLICIT
        self.spending = Spending.BY_LOSS if implicit else Spending.FIXED
        self._chosen = chosen
        self._open = {
            part: default for part, default in rows.PARTS.items() if part not in chosen
        } | {"momentum": momentum}

    def hyperparameters(self, **given: Any) -> dict[str, Any]:
        """The keywords that have an effect with the parts in `given`: these, else the defaults."""
        open_parts = {key: given.get(key, default) for key, default in self._open.items()}
        parts = {**self._chosen, **open_parts}
        keywords = {key: keyword.default for key, keyword in part_keywords(parts).items()}
        return {**open_parts, **keywords, **TERMS}

    def create(
        self,
        learning_rate: Any,
        given: Mapping[str, Any],
        unroll_stages: bool | None = None,
        clip_norm: float | None = None,
        stage_clip_norm: float | None = None,
    ) -> optax.GradientTransformationExtraArgs:
        """The optimizer; raises `UserError` for a keyword that does not exist or has no effect."""
        self._check_keywords(given)
        parts: dict[str, Any] = {**self._chosen, **self._open, **given}
        keywords = part_keywords(parts)
        arguments: dict[str, dict[str, Any]] = {part: {} for part in PARTS}
        for key, keyword in keywords.items():
            arguments[keyword.part][keyword.parameter] = given.get(key, keyword.default)
        return runge_kutta(
            _build("tableau", parts, arguments),
            self._step_size(learning_rate, parts, arguments),
            preconditioner=clipped(_build("preconditioner", parts, arguments), stage_clip_norm),
            momentum=parts["momentum"],
            clip_norm=clip_norm,
            **{term: given.get(term, default) for term, default in TERMS.items()},
            unroll_stages=unroll_stages,
            name=self.name,
        )

    def _step_size(self, learning_rate: Any, parts: dict, arguments: dict) -> StepSizeRule:
        rule = parts["step_size"]
        if isinstance(rule, StepSizeRule) or rule != "fixed":
            if learning_rate is not None:
                takes = ", ".join(arguments["step_size"])
                raise UserError(
                    f"optimizer {self.name!r}: learning_rate has no effect with the step-size rule "
                    + (f"{rule!r}, which takes: {takes}" if takes else "given as step_size")
                )
        elif learning_rate is None:
            raise UserError(f"optimizer {self.name!r} needs a learning_rate")
        elif isinstance(learning_rate, StepSizeRule):
            return learning_rate
        else:
            arguments["step_size"]["learning_rate"] = learning_rate
        return _build("step_size", parts, arguments)

    def _check_keywords(self, given: Mapping[str, Any]) -> None:
        valid = self.hyperparameters(**given)
        for key in given:
            if key in valid:
                continue
            takers = sorted(
                f"{part}={name!r}"
                for part in PARTS
                if part in self._open
                for name, factory in PARTS[part].items()
                if key in _parameters(factory)
            )
            if not takers:
                raise unknown(f"{self.name} hyperparameter", key, valid)
            raise UserError(
                f"optimizer {self.name!r}: {key} has no effect without {' or '.join(takers)}; "
                f"what has: {', '.join(valid)}"
            )


def part_keywords(parts: Mapping[str, Any]) -> dict[str, Keyword]:
    """The keywords of the factories chosen in `parts`, by the name the user gives them.

    That is the parameter's own name, except where an earlier part has one of that name: rk2 and
    the natural field both have an alpha, and together the field's is `natural_alpha`.
    """
    keywords: dict[str, Keyword] = {}
    for part in PARTS:
        choice = parts[part]
        for parameter, default in _parameters(_factory(part, choice)).items():
            key = f"{choice}_{parameter}" if parameter in keywords else parameter
            keywords[key] = Keyword(part, parameter, default)
    return keywords


def _factory(part: str, choice: Any) -> Callable[..., Any]:
    """The factory called `choice`; or the part itself is given, a tableau also as a mapping."""
    if isinstance(choice, KINDS[part]):
        return lambda: choice
    if callable(choice):
        raise UserError(f"{part}: give a name, or call {choice.__name__}(...) and give the result")
    if part == "tableau" and isinstance(choice, Mapping):
        return lambda: Tableau.from_mapping(choice)
    if not isinstance(choice, str) or choice not in PARTS[part]:
        raise unknown(part.replace("_", "-"), choice, PARTS[part])
    return PARTS[part][choice]


def check_called(argument: str, value: Any) -> None:
    """Raises a UserError for a function that makes a part, where what it makes is needed."""
    factories = [factory for part in PARTS.values() for factory in part.values()]
    if any(value is factory for factory in factories):
        name = value.__name__
        raise UserError(f"{argument} is the function {name} itself: call it, as {name}()")


def _parameters(factory: Callable[..., Any]) -> dict[str, Any]:
    parameters = inspect.signature(factory).parameters.values()
    return {p.name: p.default for p in parameters if p.name not in NOT_KEYWORDS}


def _build(part: str, parts: Mapping[str, Any], arguments: Mapping[str, Any]) -> Any:
    return _factory(part, parts[part])(**arguments[part])


def _methods() -> dict[str, RungeKuttaMethod]:
    plain = {name: RungeKuttaMethod(name, tableau=name) for name in PARTS["tableau"]}
    return plain | {
        name: RungeKuttaMethod(name, row.keywords.get("momentum", 0.0), **row.parts)
        for name, row in rows.COMPOSED.items()
    }


RK_METHODS: Mapping[str, RungeKuttaMethod] = rows.Derived(_methods)
