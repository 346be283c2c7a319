"""Step-size rules: how long the step from theta_n is (Section 3.2)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rkbench.rk import vector_space
from rkbench.rk.checks import NON_NEGATIVE, POSITIVE, check_number
from rkbench.rk.vector_space import Vector


class StepSizeRule(NamedTuple):
    """A rule and its price.

    Attributes:
      step_size: (count, params, gradient, grad_fn) -> h, a scalar. `count` is the number of steps
        before this one, `gradient` the loss gradient at `params`, before any preconditioning.
      grad_evals: the gradient evaluations (or their equal) that the rule spends a step.
    """

    step_size: Callable[[jax.Array, Vector, Vector, Callable[[Vector], Vector]], Any]
    grad_evals: int = 0


def check_learning_rate(learning_rate: Any) -> None:
    """Raises `UserError` for a number that is negative or not finite, or for no number at all."""
    if not callable(learning_rate):
        check_number("learning_rate", learning_rate, NON_NEGATIVE)


def fixed(learning_rate: Any) -> StepSizeRule:
    """h = learning_rate: a number, a scalar array (traced too) or an optax schedule of count."""
    check_learning_rate(learning_rate)

    def step_size(count, params, gradient, grad_fn) -> Any:
        del params, gradient, grad_fn
        return learning_rate(count) if callable(learning_rate) else learning_rate

    return StepSizeRule(step_size)


def dalr(c: Any = 1.0, p: Any = 0.8) -> StepSizeRule:
    """h = c / (1 + c/2 (||H g|| / ||g||)^p), Eq. (8): short where the gradient turns fast.

    g and H are the gradient and Hessian of the step's loss at theta_n, the norms run over all
    parameters; with a preconditioner they remain those of the loss itself. Where g = 0, h = c.
    The Hessian-vector product is a forward derivative of `grad_fn` along g and counts as two
    gradient evaluations.

    Args:
      c: the cap of the step size, > 0. The paper tunes it to 4 on MNIST, 1 on Fashion-MNIST.
      p: the power of the curvature, >= 0. The paper takes 0.8.
    """
    check_number("c", c, POSITIVE)
    check_number("p", p, NON_NEGATIVE)

    def step_size(count, params, gradient, grad_fn) -> jax.Array:
        del count
        tangent = jax.tree.map(lambda g, theta: g.astype(theta.dtype), gradient, params)
        _, product = jax.jvp(grad_fn, (params,), (tangent,))  # H g
        norm, product_norm = vector_space.norm(tangent), vector_space.norm(product)
        cap, power = jnp.asarray(c, dtype=float), jnp.asarray(p, dtype=float)
        critical = norm == 0
        # h = c / (1 + c/2 (||H g|| / ||g||)^p)
        curvature = (product_norm / jnp.where(critical, 1, norm)) ** power
        return jnp.where(critical, cap, cap / (1 + cap / 2 * curvature))

    return StepSizeRule(step_size, grad_evals=2)


STEP_SIZES: dict[str, Callable[..., StepSizeRule]] = {"fixed": fixed, "dalr": dalr}
