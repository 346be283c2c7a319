"""Step sizes from the value of the loss: Polyak's, and the non-negative Gauss-Newton step.

Both see the gradient g through <g, A_n g>, the rate at which the flow that is followed lowers the
loss: ||g||^2 without a preconditioner.
"""

from typing import Any

import jax
import jax.numpy as jnp

from rkbench.rk.checks import FINITE, POSITIVE, check_number
from rkbench.rk.method import Start, StepSizeRule, stateless
from rkbench.rk.vector_space import inner


def polyak(max_step: Any = 1.0, scaling: Any = 1.0, f_min: Any = 0.0) -> StepSizeRule:
    """h = min(scaling (L - f_min) / <g, A_n g>, max_step): Polyak (1987), capped.

    The cap is that of SPS_max (Loizou and others 2021), for mini-batches, whose L is the batch's
    own. With "euler" and `scaling=1` these are the steps of `optax.polyak_sgd(variant="sps+")`,
    whose max_learning_rate is `max_step` here. `update` needs `value`, the loss.

    Args:
      max_step: the cap, > 0.
      scaling: 1 / c of SPS_max, > 0.
      f_min: the least value of L. Where L is below it, h = 0.
    """
    for name, number, valid in (
        ("max_step", max_step, POSITIVE),
        ("scaling", scaling, POSITIVE),
        ("f_min", f_min, FINITE),
    ):
        check_number(name, number, valid)

    def step_size(start: Start) -> jax.Array:
        longest, factor, least = (jnp.asarray(x, dtype=float) for x in (max_step, scaling, f_min))
        gap = jnp.maximum(_loss("polyak", start) - least, 0)
        rate = inner(start.gradient, start.first)
        flat = rate <= 0
        step = jnp.where(flat, longest, factor * gap / jnp.where(flat, 1, rate))
        return jnp.minimum(step, longest)

    return stateless(step_size)


def ngn(sigma: Any = 1.0) -> StepSizeRule:
    """h = sigma / (1 + sigma / (2 L) <g, A_n g>): the non-negative Gauss-Newton step.

    Orvieto and Xiao (2024), "An adaptive stochastic gradient method with non-negative Gauss-Newton
    stepsizes". The loss must not be negative; where L <= 0, h = 0. `update` needs `value`, the
    loss.

    Args:
      sigma: the cap of the step size, > 0.
    """
    check_number("sigma", sigma, POSITIVE)

    def step_size(start: Start) -> jax.Array:
        cap, twice = jnp.asarray(sigma, dtype=float), 2 * jnp.maximum(_loss("ngn", start), 0)
        # The same, multiplied by 2 L: defined where L = 0 too.
        denominator = twice + cap * inner(start.gradient, start.first)
        nothing = denominator <= 0  # neither a loss nor a gradient
        return cap * twice / jnp.where(nothing, 1, denominator)

    return stateless(step_size)


def _loss(rule: str, start: Start) -> jax.Array:
    if start.value is None:
        raise TypeError(f"step-size rule {rule!r} needs the loss: call update() with value=loss")
    return jnp.asarray(start.value, dtype=float)
