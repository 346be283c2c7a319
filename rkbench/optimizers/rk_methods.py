"""Runge-Kutta optimizers by name: which parts a name stands for, and the keywords they take."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import optax

from rkbench.errors import UserError, unknown
from rkbench.optimizers.baselines import Spending
from rkbench.rk import (
    FAMILIES,
    PRECONDITIONERS,
    STEP_SIZES,
    TABLEAUS,
    Preconditioner,
    StepSizeRule,
    Tableau,
    runge_kutta,
)
from rkbench.rk.checks import POSITIVE, check_number

# Each part's factories by name. The parts' names are keywords of every Runge-Kutta method, and take
# a name or the part itself.
PARTS: dict[str, dict[str, Callable[..., Any]]] = {
    "tableau": {name: lambda table=table: table for name, table in TABLEAUS.items()} | FAMILIES,
    "preconditioner": PRECONDITIONERS,
    "step_size": STEP_SIZES,
}
OBJECTS = {"tableau": Tableau, "preconditioner": Preconditioner, "step_size": StepSizeRule}
NOT_KEYWORDS = ("table", "learning_rate")  # parameters of factories that users give otherwise


class Keyword(NamedTuple):
    """A hyperparameter of a part: which part's factory it goes to, and as which parameter."""

    part: str
    parameter: str
    default: Any


class RungeKuttaMethod:
    """A registered name: some parts chosen for good, the others left to keywords."""

    spending = Spending.FIXED

    def __init__(self, name: str, momentum: float = 0.0, **chosen: str | Tableau) -> None:
        self.name = name
        self._chosen = chosen
        self._open = {
            part: default
            for part, default in (
                ("tableau", "rk4"),
                ("preconditioner", "identity"),
                ("step_size", "fixed"),
            )
            if part not in chosen
        } | {"momentum": momentum}

    def hyperparameters(self, **given: Any) -> dict[str, Any]:
        """The keywords that have an effect with the parts in `given`: these, else the defaults."""
        open_parts = {key: given.get(key, default) for key, default in self._open.items()}
        parts = {**self._chosen, **open_parts}
        keywords = {key: keyword.default for key, keyword in part_keywords(parts).items()}
        return {**open_parts, **keywords}

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
        preconditioner = _build("preconditioner", parts, arguments)
        if stage_clip_norm is not None:
            preconditioner = _clipped(preconditioner, stage_clip_norm)
        return runge_kutta(
            _build("tableau", parts, arguments),
            self._step_size(learning_rate, parts, arguments),
            preconditioner=preconditioner,
            momentum=parts["momentum"],
            clip_norm=clip_norm,
            unroll_stages=unroll_stages,
            name=self.name,
        )

    def _step_size(self, learning_rate: Any, parts: dict, arguments: dict) -> StepSizeRule:
        rule = parts["step_size"]
        if rule != "fixed":
            if learning_rate is not None:
                named, takes = isinstance(rule, str), ", ".join(arguments["step_size"])
                raise UserError(
                    f"optimizer {self.name!r}: learning_rate has no effect with "
                    + (f"the step-size rule {rule!r}, which takes: {takes}" if named else "a rule")
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


def _clipped(preconditioner: Preconditioner, max_norm: float) -> Preconditioner:
    """The preconditioner of a field whose gradient is clipped to `max_norm` at every stage.

    The clipping belongs to the field: a step-size rule still sees the loss's own gradient.
    """
    check_number("stage_clip_norm", max_norm, POSITIVE)
    clipping = optax.clip_by_global_norm(max_norm)

    def clip(gradient: Any) -> Any:
        return clipping.update(gradient, optax.EmptyState())[0]

    def update(gradient: Any, state: Any) -> tuple[Any, Any]:
        precondition, state = preconditioner.update(clip(gradient), state)
        return lambda g: precondition(clip(g)), state

    return Preconditioner(preconditioner.init, update)


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
    """The factory called `choice`; a part may also be given itself, a tableau as a mapping too."""
    if isinstance(choice, OBJECTS[part]):
        return lambda: choice
    check_called(part, choice)
    if part == "tableau" and isinstance(choice, Mapping):
        return lambda: Tableau.from_mapping(choice)
    if not isinstance(choice, str) or choice not in PARTS[part]:
        raise unknown(part.replace("_", "-"), str(choice), PARTS[part])
    return PARTS[part][choice]


def check_called(argument: str, value: Any) -> None:
    """Raises a UserError for a function that makes a part, where the part itself is needed."""
    for name, factory in [item for part in PARTS.values() for item in part.items()]:
        if value is factory:
            raise UserError(
                f"{argument} is the function {value.__name__} itself: call it, as "
                f"{value.__name__}(), or give the name {name!r}"
            )


def _parameters(factory: Callable[..., Any]) -> dict[str, Any]:
    parameters = inspect.signature(factory).parameters.values()
    return {p.name: p.default for p in parameters if p.name not in NOT_KEYWORDS}


def _build(part: str, parts: Mapping[str, Any], arguments: Mapping[str, Any]) -> Any:
    return _factory(part, parts[part])(**arguments[part])


RK_METHODS: dict[str, RungeKuttaMethod] = {
    method.name: method
    for method in (
        *(RungeKuttaMethod(name, tableau=name) for name in PARTS["tableau"]),
        RungeKuttaMethod("rk"),
        RungeKuttaMethod("rk4_adagrad", tableau="rk4", preconditioner="adagrad"),
        RungeKuttaMethod("rk4_modified_adagrad", tableau="rk4", preconditioner="modified_adagrad"),
        RungeKuttaMethod("rk4_natural", tableau="rk4", preconditioner="natural"),
        RungeKuttaMethod("rk4_dalr", tableau="rk4", step_size="dalr"),
        # beta = 0.95 is the paper's, tuned on MNIST and Fashion-MNIST (Appendix D.4).
        RungeKuttaMethod("rk4_momentum", tableau="rk4", momentum=0.95),
    )
}
