"""The registry: every optimizer of the benchmark by name.

    optimizer = optimizers.create("heun", 0.1, preconditioner="adagrad", eps=0.1, momentum=0.9)
    updates, state = optimizer.update(gradient, state, params, grad_fn=grad_fn)
    optimizers.grad_evals(state)  # 2

To add a Runge-Kutta method, add a tableau to `rkbench/rk/tableaus.py`; to add another baseline,
a row to `rkbench/configs/optimizers.py`; from outside, `register` adds either. Beside `create`
stand the helpers of `combine.py` for optax's wrappers and others' loops, and flax's `TrainState`
for optimizers that take a `grad_fn`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import optax

from rkbench import plugins
from rkbench.errors import UserError, unknown
from rkbench.optimizers import registered
from rkbench.optimizers.baselines import (
    BASELINES,
    EVAL_PARAMS,
    NOT_REGISTERED,
    Baseline,
    CountGradEvalsState,
    Evaluations,
    Spending,
    optax_optimizers,
)
from rkbench.optimizers.combine import (
    apply_if_all_finite,
    bind,
    check_first_stage,
    learning_rate_groups,
    masked_grad_fn,
)
from rkbench.optimizers.optimizer_states import find
from rkbench.optimizers.rk_methods import RK_METHODS, RungeKuttaMethod, check_called
from rkbench.rk import ImplicitState, RungeKuttaState, Tableau

if TYPE_CHECKING:
    from rkbench.optimizers.flax_train_state import TrainState

__all__ = [
    "TrainState",
    "apply_if_all_finite",
    "bind",
    "check_first_stage",
    "create",
    "diagnostics",
    "eval_params",
    "evaluated_elsewhere",
    "grad_evals",
    "hyperparameters",
    "learning_rate_groups",
    "masked_grad_fn",
    "names",
    "register",
    "spending",
    "step_size",
]


def names() -> tuple[str, ...]:
    """Every registered name: Runge-Kutta methods, baselines, optax's optimizers, then plug-ins'."""
    return *_own(), *plugins.OPTIMIZERS.names()


def register(
    name: str,
    method: registered.Factory | Tableau,
    *,
    learning_rate: float | None = None,
    evaluations: int | Evaluations = 1,
    extra_args: Sequence[str] = ("value",),
) -> None:
    """Adds an optimizer of one's own: to `create`, to all configs' variants and to `rkbench list`.

    Args:
      name: letters, digits, _ and -; none of rkbench's own.
      method: a tableau, which then composes with all parts of the Runge-Kutta methods; or a
        function as optax's, of `learning_rate` and keywords, that returns a gradient
        transformation. Keywords whose default is a whole number take whole numbers.
      learning_rate: what configs set where the variant sets none; None: 0.001, and for a tableau
        what the config has for Runge-Kutta methods.
      evaluations: the gradient evaluations that a step spends, its incoming gradient included: a
        number, or a function of the optimizer's state before and after the step.
      extra_args: which of `value`, `grad`, `value_fn` and `grad_fn` its `update` takes.

    The same plug-in may register a name again. See `rkbench.plugins`.

    Raises:
      UserError: the name is taken or no name, or the function has no `learning_rate`.
    """
    registered.add(
        _own(),
        name,
        method,
        learning_rate=learning_rate,
        evaluations=evaluations,
        extra_args=extra_args,
    )


def hyperparameters(name: str | Tableau, **given: Any) -> dict[str, Any]:
    """The keywords `create` accepts for this optimizer beside `learning_rate`, with defaults.

    Runge-Kutta methods take the keywords of the parts that are chosen, so parts in `given` count:
    `hyperparameters("rk4", preconditioner="adagrad")` has `eps`, `hyperparameters("rk4")` has not,
    and both can be given to `create` as they are. A keyword without a default has
    `inspect.Parameter.empty`.
    """
    return _entry(name).hyperparameters(**given)


def create(
    name: str | Tableau,
    learning_rate: Any = None,
    *,
    unroll_stages: bool | None = None,
    clip_norm: float | None = None,
    stage_clip_norm: float | None = None,
    **hyperparameters: Any,
) -> optax.GradientTransformationExtraArgs:
    """An optimizer whose state counts its gradient evaluations.

    Args:
      name: one of `names()`, or a tableau of one's own.
      learning_rate: a number, a scalar array (traced too), an optax schedule or, for Runge-Kutta
        methods, a step-size rule. Left out where the optimizer has one of its own (`rk4_dalr`).
      unroll_stages: see `rkbench.rk.runge_kutta`; no effect on optimizers without stages.
      clip_norm: the largest norm of the gradient, of a Runge-Kutta method that of g*; None for any.
      stage_clip_norm: the largest norm of the gradient at each stage; None for any. A step-size
        rule takes the loss's own gradient all the same.
      **hyperparameters: the optimizer's own keywords, see the function of that name. Numbers may
        be traced.

    Returns:
      An optimizer. Pass every `update` all of `grad_fn=` (Runge-Kutta methods), `value=`, `grad=`
      and `value_fn=` (some of optax's): each ignores what it does not need.

    Raises:
      UserError: an unknown name, an unknown keyword or one without effect, a number out of range,
        or no learning rate where one is needed.
    """
    # As `optax.inject_hyperparams` passes **hyperparameters on: as one keyword of that name.
    if isinstance(hyperparameters.get("hyperparameters"), Mapping):
        hyperparameters |= hyperparameters.pop("hyperparameters")
    check_called("learning_rate", learning_rate)
    return _entry(name).create(
        learning_rate, hyperparameters, unroll_stages, clip_norm, stage_clip_norm
    )


def grad_evals(state: Any) -> jax.Array:
    """The gradient evaluations spent so far: int32 scalar; a Hessian-vector product counts two.

    `state` may be that of an `optax.chain` or wrapper holding one optimizer of this registry.

    Raises:
      ValueError: it holds none, or several.
    """
    found = find(state, RungeKuttaState, CountGradEvalsState)
    if len(found) != 1:
        raise ValueError(f"the state holds {len(found)} optimizers of the registry, not one")
    return found[0].grad_evals


def step_size(state: Any, default: Any) -> jax.Array:
    """The step size h of the last step where the optimizer keeps it, as Runge-Kutta methods do."""
    found = find(state, RungeKuttaState)
    return found[0].step_size if len(found) == 1 else default


def eval_params(state: Any, params: Any) -> Any:
    """The parameters at which an optimizer in this state is to be evaluated, and deployed.

    For most these are `params` themselves, the very object. A schedule-free optimizer's parameters
    y are the points at which it wants gradients; what it recommends is x = (y - (1 - b1) z) / b1,
    an average of z. (Defazio et al., "The Road Less Scheduled", 2024.) Of `optax.lookahead` these
    are the slow parameters.
    """
    for part in find(state, *EVAL_PARAMS):
        return EVAL_PARAMS[type(part)](part, params)
    return params


def evaluated_elsewhere(state: Any) -> bool:
    """Whether an optimizer in this state is evaluated at others than its parameters."""
    return bool(find(state, *EVAL_PARAMS))


def spending(name: str | Tableau, tableau: Any = None) -> Spending:
    """What decides the gradient evaluations of a step; `tableau` is the keyword that `rk` takes."""
    entry = _entry(name)
    if isinstance(entry, RungeKuttaMethod) and isinstance(tableau, str):
        entry = _entry(tableau)
    return entry.spending


def diagnostics(state: Any) -> dict[str, jax.Array]:
    """What an optimizer's method tells of its solvers: scalars by the name they are logged under.

    Of an implicit method, the steps so far whose equations were not solved, and the last step's
    relative residual. Empty for all others.
    """
    found = find(state, ImplicitState)
    if len(found) != 1:
        return {}
    solver = found[0]
    return {"solver/unconverged": solver.unconverged, "solver/residual": solver.residual}


def _own() -> dict[str, RungeKuttaMethod | Baseline]:
    return {**RK_METHODS, **BASELINES, **optax_optimizers()}


def _entry(name: str | Tableau) -> RungeKuttaMethod | Baseline:
    if isinstance(name, Tableau):
        return RungeKuttaMethod(name.name, tableau=name)
    check_called("the optimizer", name)
    if not isinstance(name, str):
        raise UserError(f"an optimizer is a name or a Tableau, not {name!r}")
    if name in NOT_REGISTERED:
        raise UserError(f"optimizer {name!r} cannot be run: {NOT_REGISTERED[name]}")
    if (own := _own().get(name)) is not None:
        return own
    if (plugged := plugins.OPTIMIZERS.find(name)) is not None:
        return plugged.entry
    raise unknown("optimizer", name, names())


def __getattr__(name: str) -> Any:
    if name == "TrainState":  # flax is imported by who asks for it
        from rkbench.optimizers.flax_train_state import TrainState

        return TrainState
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
