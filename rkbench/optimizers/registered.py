"""Optimizers of users' projects, by name."""

import inspect
from collections.abc import Callable, Collection, Sequence
from typing import Any

import optax

from rkbench import plugins
from rkbench.configs import common
from rkbench.errors import UserError
from rkbench.optimizers.baselines import (
    LEARNING_RATE_NAMES,
    Baseline,
    Evaluations,
    Spending,
)
from rkbench.optimizers.rk_methods import RungeKuttaMethod
from rkbench.rk import Tableau

Factory = Callable[..., optax.GradientTransformation]


def add(
    taken: Collection[str],
    name: str,
    method: Factory | Tableau,
    *,
    learning_rate: float | None = None,
    evaluations: int | Evaluations = 1,
    extra_args: Sequence[str] = ("value",),
) -> None:
    """Does what `rkbench.optimizers.register` says; `taken` are the names of rkbench's own."""
    if isinstance(method, Tableau):
        entry: Any = RungeKuttaMethod(name, tableau=method)
        made = plugins.Optimizer(entry, common.OPTIMIZERS["rk4"], learning_rate, frozenset())
    else:
        made = _of_factory(name, method, learning_rate, evaluations, extra_args)
    plugins.OPTIMIZERS.add(name, made, taken)


def _of_factory(
    name: str,
    factory: Factory,
    learning_rate: float | None,
    evaluations: int | Evaluations,
    extra_args: Sequence[str],
) -> plugins.Optimizer:
    if not callable(factory):
        raise UserError(f"optimizer {name!r}: a function or a Tableau is needed, not {factory!r}")
    parameters = inspect.signature(factory).parameters
    if not any(word in parameters for word in LEARNING_RATE_NAMES):
        raise UserError(f"optimizer {name!r}: its function has no argument learning_rate")
    count = (lambda before, after: evaluations) if isinstance(evaluations, int) else evaluations
    spending = Spending.FIXED if isinstance(evaluations, int) else Spending.BY_LOSS
    entry = Baseline(name, factory, count, spending, {word: word for word in extra_args})
    shown = {
        key: default
        for key, default in entry.hyperparameters().items()
        if type(default) in (bool, int, float, str)
    }
    whole = frozenset(key for key, default in shown.items() if type(default) is int)
    return plugins.Optimizer(entry, shown, 1e-3 if learning_rate is None else learning_rate, whole)
