"""Optimizers of the paper's related work: SGD-G2, relativistic gradient descent, AggMo."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rkbench.errors import UserError
from rkbench.rk.arguments import at, checked_grad_fn
from rkbench.rk.checks import DECAY, NON_NEGATIVE, check_number
from rkbench.rk.vector_space import Vector, add_scaled, inner, scale, squared_norm

UNIT = ("a number in [0, 1]", lambda x: 0 <= x <= 1)


class SGDG2State(NamedTuple):
    """The state of `sgd_g2`."""

    count: jax.Array  # steps: int32 scalar
    factor: jax.Array  # h_n over the learning rate: float scalar


def sgd_g2(learning_rate: Any, beta: Any = 0.9) -> optax.GradientTransformationExtraArgs:
    """SGD-G2: the step size of gradient descent from the second stage of (stochastic) Heun.

    With g = g(theta_n) and g~ = g(theta_n - h_n g) on the same mini-batch,

        h_opt   = 2 h_n <g - g~, g> / ||g - g~||^2      where <g - g~, g> > 0, else h_n
        h_{n+1} = beta h_n + (1 - beta) h_opt           where h_opt >= h_n
        h_{n+1} = (1 - beta) h_opt                      otherwise
        theta_{n+1} = theta_n - h_{n+1} g

    On a quadratic with one eigenvalue lambda, h_opt is 2 / lambda, the end of the interval of
    stability. The paper's stochastic Heun method itself is `heun`.

    Source: I. Ayadi and G. Turinici, "Stochastic Runge-Kutta methods and adaptive SGD-G2 stochastic
    gradient descent", ICPR 2020, arXiv:2002.09304. The paper's own text was not at hand: the rule
    is that of two public descriptions, which agree in the factor 2, in both branches of h_{n+1} and
    in the step with the new h. Not settled: whether the paper bounds h otherwise, and its value of
    beta; 0.9 is that of public code. `learning_rate` is h_0, and a schedule scales every h_n.

    A step spends two gradients, and `update` needs `grad_fn`.
    """
    check_number("beta", beta, DECAY)

    def init(params: Vector) -> SGDG2State:
        del params
        return SGDG2State(jnp.zeros((), jnp.int32), jnp.ones((), float))

    def update(updates, state: Any, params=None, *, grad_fn: Any = None, **extra_args):
        del extra_args
        if params is None:
            raise TypeError("optimizer 'sgd_g2': update() needs params")
        g, rate = updates, jnp.asarray(at(learning_rate, state.count), float)
        probe = checked_grad_fn("sgd_g2", grad_fn, params)(
            add_scaled(params, -rate * state.factor, g)
        )
        change = add_scaled(g, -1.0, probe)
        along, squared = inner(change, g), squared_norm(change)
        usable = (along > 0) & (squared > 0)
        ratio = jnp.where(usable, 2 * along / jnp.where(usable, squared, 1), 1)  # h_opt / h_n
        b = jnp.asarray(beta, float)
        factor = state.factor * jnp.where(ratio >= 1, b + (1 - b) * ratio, (1 - b) * ratio)
        count = jnp.asarray(optax.safe_increment(state.count))
        return scale(-rate * factor, g), SGDG2State(count, factor)

    return optax.GradientTransformationExtraArgs(init, update)


class RGDState(NamedTuple):
    """The state of `rgd`."""

    count: jax.Array  # steps: int32 scalar
    momentum: Vector  # sqrt(mu) v_k
    delta: jax.Array  # of the last step: float scalar


def rgd(
    learning_rate: Any, momentum: Any = 0.9, delta: Any = 1.0, alpha: Any = 1.0
) -> optax.GradientTransformationExtraArgs:
    """Relativistic gradient descent: momentum with a speed that is bounded, as that of light is.

    With d(v) = v / sqrt(delta ||v||^2 + 1), the norm over all parameters, and mu = momentum,

        x_{k+1/2} = x_k + d(sqrt(mu) v_k)
        v_{k+1/2} = sqrt(mu) v_k - learning_rate g(x_{k+1/2})
        x_{k+1}   = alpha x_{k+1/2} + (1 - alpha) x_k + d(v_{k+1/2})
        v_{k+1}   = sqrt(mu) v_{k+1/2}

    With alpha = 1 this is a conformal symplectic leapfrog step of second order for a relativistic
    particle of mass m with friction gamma: learning_rate = h^2 / (2 m), mu = exp(-gamma h),
    delta = 4 / (c h)^2 for the speed of light c. With alpha = 0 and delta = 0 it is Nesterov's
    method, with alpha = 1 and delta = 0 a second-order form of classical momentum.

    The parameters are x_{k+1/2}, where gradients are wanted, so that a step spends one gradient;
    `eval_params` gives x_k.

    Source: G. Franca, J. Sulam, D. Robinson and R. Vidal, "Conformal symplectic and relativistic
    optimization", NeurIPS 2020, Algorithm 1. The paper tunes delta and does not train networks: the
    default 1 is this package's.
    """
    check_number("momentum", momentum, DECAY)
    check_number("delta", delta, NON_NEGATIVE)
    check_number("alpha", alpha, UNIT)

    def init(params: Vector) -> RGDState:
        zero = jnp.zeros((), jnp.int32)
        return RGDState(zero, jax.tree.map(jnp.zeros_like, params), jnp.zeros((), float))

    def update(updates, state: Any, params=None):
        del params
        limit, mu = jnp.asarray(delta, float), jnp.asarray(momentum, float)
        rate = at(learning_rate, state.count)
        before = _bounded(state.momentum, state.delta)
        v = add_scaled(state.momentum, -jnp.asarray(rate, float), updates)
        new = scale(mu, v)
        step = add_scaled(_bounded(v, limit), 1.0, _bounded(new, limit))
        step = add_scaled(step, jnp.asarray(alpha, float) - 1, before)
        count = jnp.asarray(optax.safe_increment(state.count))
        return step, RGDState(count, new, limit)

    return optax.with_extra_args_support(optax.GradientTransformation(init, update))


def _bounded(v: Vector, delta: jax.Array) -> Vector:
    """d(v) = v / sqrt(delta ||v||^2 + 1)."""
    return scale(1 / jnp.sqrt(delta * squared_norm(v) + 1), v)


def rgd_eval_params(state: RGDState, params: Vector) -> Vector:
    """x_k = x_{k+1/2} - d(sqrt(mu) v_k)."""
    return add_scaled(params, -1.0, _bounded(state.momentum, state.delta))


class AggMoState(NamedTuple):
    """The state of `aggmo`."""

    velocities: tuple[Vector, ...]  # -v_i for each beta_i, like the parameters


def aggmo(
    learning_rate: Any, betas: Sequence[Any] = (0.0, 0.9, 0.99)
) -> optax.GradientTransformation:
    """Aggregated momentum: v_i <- beta_i v_i - g, theta <- theta + h / K sum_i v_i.

    With one beta it is classical momentum. K copies of the parameters are kept.

    Source: J. Lucas, S. Sun, R. Zemel and R. Grosse, "Aggregated momentum: stability through
    passive damping", ICLR 2019. Its betas are 1 - a^i for i = 0, ..., K - 1, with a = 0.1 and K = 3
    as defaults: (0, 0.9, 0.99).
    """
    if isinstance(betas, str) or not isinstance(betas, Sequence) or not betas:
        raise UserError(f"betas must be a sequence of numbers in [0, 1), not {betas!r}")
    for beta in betas:
        check_number("each of betas", beta, DECAY)

    def init(params: Vector) -> AggMoState:
        return AggMoState(tuple(jax.tree.map(jnp.zeros_like, params) for _ in betas))

    def update(updates, state: Any, params=None):
        del params
        ms = tuple(
            add_scaled(updates, beta, m) for beta, m in zip(betas, state.velocities, strict=True)
        )
        total = ms[0]
        for m in ms[1:]:
            total = add_scaled(total, 1.0, m)
        return scale(1 / len(ms), total), AggMoState(ms)

    return optax.chain(
        optax.GradientTransformation(init, update), optax.scale_by_learning_rate(learning_rate)
    )
