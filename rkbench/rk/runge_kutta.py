"""`runge_kutta`: tableau x preconditioner x step-size rule x momentum, as an optax optimizer."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rkbench.rk.checks import DECAY, POSITIVE, check_number, is_traced
from rkbench.rk.preconditioners import Preconditioner, identity
from rkbench.rk.rk_gradient import rk_gradient
from rkbench.rk.step_size import StepSizeRule, fixed
from rkbench.rk.tableaus import Tableau
from rkbench.rk.vector_space import scale


class RungeKuttaState(NamedTuple):
    """The state of `runge_kutta`."""

    count: jax.Array  # n, steps taken: int32 scalar
    grad_evals: jax.Array  # gradient evaluations spent, with the caller's first stage: int32 scalar
    step_size: jax.Array  # h of the last step: float scalar
    preconditioner: Any  # what A_n is made of, e.g. diag G_n
    momentum: Any  # optax's state of clipping and momentum, with m_n; empty without


def runge_kutta(
    tableau: Tableau,
    learning_rate: Any,
    *,
    preconditioner: Preconditioner | None = None,
    momentum: Any = 0.0,
    clip_norm: float | None = None,
    unroll_stages: bool | None = None,
    name: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    """An explicit Runge-Kutta method as an optimizer; see `rkbench.rk` for the equations.

    Args:
      tableau: the method.
      learning_rate: h: a number, a scalar array (traced too), an optax schedule or a step-size
        rule such as `dalr(c=4.0, p=0.8)`.
      preconditioner: A_n; none by default.
      momentum: beta in [0, 1) of Eq. (9), m <- beta m + g*; 0 or None keeps no m.
      clip_norm: the largest norm of g*, over all parameters: a longer g* is shortened to it before
        momentum. None does not clip. (To clip each stage, clip inside `grad_fn` and `gradient`.)
      unroll_stages: whether to write out the stages of a chain instead of compiling them as a
        loop. By default they are a loop. XLA's CPU backend runs convolutions about five times
        slower inside a loop: unroll there.
      name: what error messages call the optimizer; the tableau's name by default.

    Returns:
      An optimizer whose `update(gradient, state, params, *, grad_fn)` returns -h m. `gradient` is
      the gradient at `params` and serves as the first stage; `grad_fn(params)` is the gradient of
      the same loss on the same batch. Other keyword arguments are ignored. In `optax.chain`, what
      comes before changes the first stage only, while `grad_fn` gives the others: put clipping or
      decay after it, or inside `grad_fn` and `gradient` both.
    """
    rule = learning_rate if isinstance(learning_rate, StepSizeRule) else fixed(learning_rate)
    direction = _direction(clip_norm, momentum)
    preconditioner = preconditioner or identity()
    evaluations = tableau.evaluated_stages + rule.grad_evals
    name = name or tableau.name

    def init(params) -> RungeKuttaState:
        return RungeKuttaState(
            count=jnp.zeros((), jnp.int32),
            grad_evals=jnp.zeros((), jnp.int32),
            step_size=jnp.zeros((), float),
            preconditioner=preconditioner.init(params),
            momentum=direction.init(params),
        )

    def update(updates, state: Any, params=None, *, grad_fn: Any = None, **extra_args):
        del extra_args
        _require(name, params=params, grad_fn=grad_fn)
        h = jnp.asarray(rule.step_size(state.count, params, updates, grad_fn), dtype=float)
        precondition, preconditioner_state = preconditioner.update(updates, state.preconditioner)
        # g* = sum_i b_i k_i, k_i = A_n g(theta_i), Eq. (1)
        gradient = rk_gradient(
            tableau,
            field=lambda theta: precondition(grad_fn(theta)),
            params=params,
            first=precondition(updates),
            step_size=h,
            unroll=bool(unroll_stages),
        )
        # m_{n+1} = beta m_n + g*, Eq. (9)
        m, momentum_state = direction.update(gradient, state.momentum, params)
        state = RungeKuttaState(
            count=jnp.asarray(optax.safe_increment(state.count)),
            grad_evals=state.grad_evals + evaluations,
            step_size=h,
            preconditioner=preconditioner_state,
            momentum=momentum_state,
        )
        return scale(-h, m), state  # theta_{n+1} = theta_n - h m_{n+1}, Eq. (10)

    return optax.GradientTransformationExtraArgs(init, update)


def _direction(clip_norm: float | None, momentum: Any) -> optax.GradientTransformation:
    """What is done to g* before the step: clipping, then m <- beta m + g*; both optional."""
    parts: list[optax.GradientTransformation] = []
    if clip_norm is not None:
        check_number("clip_norm", clip_norm, POSITIVE)
        parts.append(optax.clip_by_global_norm(clip_norm))
    if is_traced(momentum) or momentum:
        check_number("momentum", momentum, DECAY)
        parts.append(optax.trace(decay=momentum))
    if not parts:
        return optax.identity()
    return parts[0] if len(parts) == 1 else optax.chain(*parts)


def _require(name: str, **arguments: Any) -> None:
    """Raises `TypeError` for an argument of `update` that was not given."""
    reasons = {
        "params": "params, the point at which its stages begin",
        "grad_fn": "the keyword grad_fn, a function from parameters to the gradient of the same "
        "loss on the same batch, because Runge-Kutta stages are gradients at further points",
    }
    for argument, value in arguments.items():
        if value is None:
            raise TypeError(f"optimizer {name!r}: update() needs {reasons[argument]}")
