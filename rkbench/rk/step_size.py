"""Step-size rules: how long the step from theta_n is (Section 3.2)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rkbench.errors import UserError, unknown
from rkbench.rk.checks import LARGEST, NON_NEGATIVE, POSITIVE, check_number
from rkbench.rk.method import Advance, GradFn, Start
from rkbench.rk.vector_space import Vector, cast_like, normalized, root, safe_norm, squared_norm


class Choice(NamedTuple):
    """The step size that a rule has chosen."""

    step_size: Any  # h, a scalar
    state: Any = ()  # the rule's own state
    grad_evals: Any = 0  # gradient evaluations (or their equal) spent in choosing


def accept(start: Start, step_size: jax.Array, advance: Advance, state: Any) -> tuple[Any, Any]:
    """The review of rules that take every step and learn nothing from it."""
    del start, step_size, advance
    return True, state


class StepSizeRule(NamedTuple):
    """A rule chooses h before the stages and may look at what they gave; `stateless` is simpler.

    Attributes:
      choose: (start, state) -> `Choice`. `start` has the step's count, parameters, gradient,
        preconditioned field, loss value and extra arguments: see `rkbench.rk.method.Start`.
      init: params -> the rule's state, a pytree of arrays; () by default.
      review: (start, h, advance, state) -> (accepted, state), with `advance` what the method made
        of the step: g*, an error estimate, the stages. `accepted` is a boolean scalar. A step that
        is rejected moves nothing (parameters, momentum, preconditioner), but its gradients count.
        What the next step needs to know of this one goes into the state.
      keeps_stages: whether `review` needs `advance.stages`, which tableaus keep where it is True.
    """

    choose: Callable[[Start, Any], Choice]
    init: Callable[[Vector], Any] = lambda params: ()
    review: Callable[[Start, jax.Array, Advance, Any], tuple[Any, Any]] = accept
    keeps_stages: bool = False


def stateless(step_size: Callable[[Start], Any], grad_evals: int = 0) -> StepSizeRule:
    """The rule h = step_size(start), which spends `grad_evals` gradient evaluations a step."""
    return StepSizeRule(lambda start, state: Choice(step_size(start), state, grad_evals))


def check_learning_rate(learning_rate: Any) -> None:
    """Raises `UserError` for a number that is negative or not finite, or for no number at all."""
    if callable(learning_rate):
        return
    if isinstance(learning_rate, (int, float)) and -LARGEST <= learning_rate < 0:
        raise UserError(
            f"learning_rate must be a finite number >= 0, not {learning_rate!r}; to ascend, negate "
            "the loss and its gradients"
        )
    check_number("learning_rate", learning_rate, NON_NEGATIVE)


def fixed(learning_rate: Any) -> StepSizeRule:
    """h = learning_rate: a number, a scalar array (traced too) or an optax schedule of count."""
    check_learning_rate(learning_rate)
    if callable(learning_rate):
        return stateless(lambda start: learning_rate(start.count))
    return stateless(lambda start: learning_rate)


def dalr(c: Any = 1.0, p: Any = 0.8, hvp: str = "forward") -> StepSizeRule:
    """h = c / (1 + c/2 (||H g|| / ||g||)^p), Eq. (8): short where the gradient turns fast.

    g and H are the gradient and Hessian of the step's loss at theta_n, the norms run over all
    parameters; with a preconditioner they remain those of the loss itself. Where g = 0, h = c.
    The Hessian-vector product counts as two gradient evaluations.

    Args:
      c: the cap of the step size, > 0. The paper tunes it to 4 on MNIST, 1 on Fashion-MNIST.
      p: the power of the curvature, >= 0. The paper takes 0.8.
      hvp: how H g is computed: "forward", a forward derivative of `grad_fn` along g, or "reverse",
        its reverse derivative, the same because H is symmetric: for a loss that has no forward
        derivative (`jax.custom_vjp`).
    """
    check_number("c", c, POSITIVE)
    check_number("p", p, NON_NEGATIVE)
    if hvp not in HESSIAN_PRODUCTS:
        raise unknown("hvp", hvp, HESSIAN_PRODUCTS)

    def step_size(start: Start) -> jax.Array:
        g = cast_like(start.gradient, start.params)
        _, unit = normalized(g)  # keeps H g in range; only the ratio of the norms counts
        product = HESSIAN_PRODUCTS[hvp](start.grad_fn, start.params, cast_like(unit, g))
        length = root(squared_norm(unit))
        cap, power = jnp.asarray(c, dtype=float), jnp.asarray(p, dtype=float)
        critical = length == 0
        # h = c / (1 + c/2 (||H g|| / ||g||)^p)
        curvature = _power(safe_norm(product) / jnp.where(critical, 1, length), power)
        return jnp.where(critical, cap, cap / (1 + cap / 2 * curvature))

    return stateless(step_size, grad_evals=2)


def _power(x: jax.Array, p: jax.Array) -> jax.Array:
    """x^p for x >= 0, with derivatives that are finite at x = 0."""
    positive = x > 0
    at_zero = jnp.where(p == 0, 1, 0).astype(x.dtype)
    return jnp.where(positive, jnp.where(positive, x, 1) ** p, at_zero)


def _forward_product(grad_fn: GradFn, params: Vector, v: Vector) -> Vector:
    """H v as the derivative of the gradient along v."""
    return jax.jvp(grad_fn, (params,), (v,))[1]


def _reverse_product(grad_fn: GradFn, params: Vector, v: Vector) -> Vector:
    """H^T v; the conjugates turn JAX's transpose into that of the real inner product."""
    conjugate = lambda x: jax.tree.map(jnp.conj, x)  # noqa: E731
    gradient, pullback = jax.vjp(grad_fn, params)
    return conjugate(pullback(conjugate(cast_like(v, gradient)))[0])


HESSIAN_PRODUCTS = {"forward": _forward_product, "reverse": _reverse_product}

STEP_SIZES: dict[str, Callable[..., StepSizeRule]] = {"fixed": fixed, "dalr": dalr}
