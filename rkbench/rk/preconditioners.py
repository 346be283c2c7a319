"""Preconditioners: the field that a step follows is A_n g instead of g (Section 3.1).

A_n is set once a step, from the gradient at theta_n, and held for all the stages of that step, so
that the stages still solve one differential equation. This is not the same as preconditioning the
Runge-Kutta gradient afterwards: the stages themselves stand elsewhere.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rkbench.rk.checks import DECAY, FINITE, NON_NEGATIVE, check_number
from rkbench.rk.vector_space import (
    Vector,
    add_scaled,
    cast_like,
    normalized,
    root,
    scale,
    squared_norm,
    squares,
    wide_dtype,
    widen,
)

Precondition = Callable[[Vector], Vector]


class Preconditioner(NamedTuple):
    """Two pure functions, and what is known of A_n.

    Attributes:
      init: params -> state.
      update: (gradient at theta_n, state) -> (precondition, new state), where `precondition(g)`
        applies A_n to the gradient of any stage of the step.
      self_adjoint: whether every `precondition` is linear, symmetric and positive semi-definite:
        implicit methods then solve by conjugate gradients, else by GMRES.
      average: (g*, state) -> (direction, new state), what becomes of g* after clipping and before
        momentum and weight decay; g* itself by default. Adam's first moment is such an average.
    """

    init: Callable[[Vector], Any]
    update: Callable[[Vector, Any], tuple[Precondition, Any]]
    self_adjoint: bool = False
    average: Callable[[Vector, Any], tuple[Vector, Any]] = lambda gradient, state: (gradient, state)


class AdagradState(NamedTuple):
    """The state of `adagrad`."""

    sum_of_squares: Vector  # diag G_n = sum_{l=1}^n g(theta_l)^2, float32 at least


class RMSPropState(NamedTuple):
    """The state of `rmsprop`."""

    mean_of_squares: Vector  # v_n, float32 at least


class AdamState(NamedTuple):
    """The state of `adam`."""

    count: jax.Array  # t = n + 1 after the step: int32 scalar
    mean: Any  # m, of raw Runge-Kutta gradients, float32 at least; () with b1 = 0
    mean_of_squares: Vector  # v, float32 at least


def identity() -> Preconditioner:
    """No preconditioning: A_n = 1."""
    return Preconditioner(lambda params: (), lambda gradient, state: (lambda g: g, state), True)


def adagrad(eps: Any = 0.1) -> Preconditioner:
    """A_n = (eps + diag G_n)^(-1/2), Eq. (4), G_n including the gradient at theta_n.

    Args:
      eps: epsilon >= 0. The paper gives no value; with 1e-8 its full-batch settings diverge, while
        0.1, where optax's AdaGrad starts its accumulator, works. With 0, a coordinate that never
        had a gradient stays where it is.
    """
    check_number("eps", eps, NON_NEGATIVE)

    def init(params: Vector) -> AdagradState:
        return AdagradState(jax.tree.map(_zeros, params))

    def update(gradient: Vector, state: AdagradState) -> tuple[Precondition, AdagradState]:
        # diag G_n = diag G_{n-1} + g(theta_n)^2
        total = jax.tree.map(
            lambda s, g: s + squares(g.astype(wide_dtype(g.dtype))), state.sum_of_squares, gradient
        )
        # A_n = (eps + diag G_n)^(-1/2)
        factors = jax.tree.map(lambda s: _inverse_root(jnp.asarray(eps, s.dtype) + s), total)

        def precondition(g: Vector) -> Vector:
            return jax.tree.map(_scaled, factors, g)

        return precondition, AdagradState(total)

    return Preconditioner(init, update, self_adjoint=True)


def _zeros(p: jax.Array) -> jax.Array:
    """Real zeros, laid out over devices like `p`."""
    # Squares added up in bfloat16 would stop growing after some 256 steps.
    return jnp.zeros_like(p, dtype=jnp.finfo(wide_dtype(p.dtype)).dtype)


def _scaled(factor: jax.Array, x: jax.Array) -> jax.Array:
    wide = wide_dtype(x.dtype)
    return (factor.astype(wide) * x.astype(wide)).astype(x.dtype)


def _inverse_root(x: jax.Array) -> jax.Array:
    """x^(-1/2), and 0 where x = 0."""
    positive = x > 0
    return jnp.where(positive, 1 / jnp.sqrt(jnp.where(positive, x, 1)), 0)


def modified_adagrad() -> Preconditioner:
    """A'_n = (1 + diag G_n)^(-1/2), Eq. (6): the loss surface's own metric, diagonal and summed."""
    return adagrad(eps=1.0)


def rmsprop(decay: Any = 0.9, eps: Any = 1e-8) -> Preconditioner:
    """A_n = (eps + v_n)^(-1/2), v_n = decay v_{n-1} + (1 - decay) g(theta_n)^2, v_{-1} = 0.

    With Euler's method this is `optax.rmsprop`: T. Tieleman and G. Hinton, "Lecture 6.5: RMSProp",
    Coursera, 2012, with optax's eps inside the root.
    """
    check_number("decay", decay, DECAY)
    check_number("eps", eps, NON_NEGATIVE)

    def init(params: Vector) -> RMSPropState:
        return RMSPropState(jax.tree.map(_zeros, params))

    def update(gradient: Vector, state: RMSPropState) -> tuple[Precondition, RMSPropState]:
        v = _mean_of_squares(state.mean_of_squares, decay, gradient)
        factors = jax.tree.map(lambda s: _inverse_root(jnp.asarray(eps, s.dtype) + s), v)
        return lambda g: jax.tree.map(_scaled, factors, g), RMSPropState(v)

    return Preconditioner(init, update, self_adjoint=True)


def adam(b1: Any = 0.9, b2: Any = 0.999, eps: Any = 1e-8) -> Preconditioner:
    """Adam's second moment as the preconditioner and its first as the average of g*.

    With t = n + 1, before the stages and frozen for all of them,

        v_t = b2 v_{t-1} + (1 - b2) g(theta_n)^2
        A_n = 1 / (sqrt(v_t / (1 - b2^t)) + eps)

    and after them, with the raw Runge-Kutta gradient A_n^{-1} g* = sum_i b_i g(theta_i),

        m_t = b1 m_{t-1} + (1 - b1) A_n^{-1} g*
        theta_{n+1} = theta_n - h A_n m_t / (1 - b1^t).

    The first moment is of raw gradients, since older ones must be scaled by the newest A_n, and it
    is outside the stages: these follow the flow of A_n g, not of an average. With Euler's method
    this is `optax.adam`, with weight decay `optax.adamw` (D. P. Kingma and J. Ba, "Adam", 2015).
    How the moments enter a step of several stages is this package's choice.

    Args:
      b1: of the first moment, in [0, 1); a Python 0 leaves it out, state and all.
      b2: of the second moment, in [0, 1).
      eps: what is added to the root, >= 0.
    """
    check_number("b1", b1, DECAY)
    check_number("b2", b2, DECAY)
    check_number("eps", eps, NON_NEGATIVE)
    averages = not (isinstance(b1, (int, float)) and b1 == 0)

    def init(params: Vector) -> AdamState:
        wide = lambda p: jnp.zeros_like(p, dtype=wide_dtype(p.dtype))  # noqa: E731
        mean = jax.tree.map(wide, params) if averages else ()
        return AdamState(jnp.zeros((), jnp.int32), mean, jax.tree.map(_zeros, params))

    def roots(state: AdamState) -> Vector:
        """sqrt(v_t / (1 - b2^t)) + eps, the diagonal of A_n^{-1}."""
        correction = _bias(b2, state.count)
        return jax.tree.map(
            lambda v: jnp.sqrt(v / correction.astype(v.dtype)) + jnp.asarray(eps, v.dtype),
            state.mean_of_squares,
        )

    def update(gradient: Vector, state: AdamState) -> tuple[Precondition, AdamState]:
        v = _mean_of_squares(state.mean_of_squares, b2, gradient)
        new = AdamState(state.count + 1, state.mean, v)
        inverse = roots(new)
        return lambda g: jax.tree.map(_divided, inverse, g), new

    def average(gradient: Vector, state: AdamState) -> tuple[Vector, AdamState]:
        if not averages:
            return gradient, state
        inverse, correction = roots(state), _bias(b1, state.count)
        raw = jax.tree.map(_scaled, inverse, widen(gradient))
        mean = add_scaled(scale(b1, state.mean), 1 - jnp.asarray(b1, float), raw)
        direction = scale(1 / correction, jax.tree.map(_divided, inverse, mean))
        return cast_like(direction, gradient), state._replace(mean=mean)

    return Preconditioner(init, update, self_adjoint=True, average=average)


def _mean_of_squares(mean: Vector, decay: Any, gradient: Vector) -> Vector:
    """decay mean + (1 - decay) g^2."""

    def leaf(s: jax.Array, g: jax.Array) -> jax.Array:
        b = jnp.asarray(decay, s.dtype)
        return b * s + (1 - b) * squares(g.astype(wide_dtype(g.dtype)))

    return jax.tree.map(leaf, mean, gradient)


def _bias(decay: Any, count: jax.Array) -> jax.Array:
    """1 - decay^t."""
    return 1 - jnp.asarray(decay, float) ** count.astype(float)


def _divided(divisor: jax.Array, x: jax.Array) -> jax.Array:
    """x / divisor, and 0 where that is 0: a coordinate that never had a gradient, with eps = 0."""
    positive = divisor > 0
    inverse = jnp.where(positive, 1 / jnp.where(positive, divisor, 1), 0)
    return _scaled(inverse, x)


def natural(alpha: Any = -1.0) -> Preconditioner:
    """(1 + ||g||^2)^alpha g, Lemma 3: G^alpha g for the loss surface's metric G = 1 + g g^T.

    Every stage takes its own gradient, over all parameters together; there is no state. alpha = -1
    is the natural gradient of the loss surface.
    """
    check_number("alpha of the natural field", alpha, FINITE)

    def precondition(g: Vector) -> Vector:
        # G^alpha(theta) g(theta) = (1 + ||g(theta)||^2)^alpha g(theta)
        power, (s, unit) = jnp.asarray(alpha, dtype=float), normalized(g)
        scaled = squared_norm(unit)  # ||g||^2 / s^2
        # Where 1 is lost in the sum, ||g||^(1 + 2 alpha) (g / ||g||): the square may be infinite.
        long = s > 2 / jnp.finfo(s.dtype).eps
        squared = jnp.where(long, 0, s) ** 2 * scaled
        length = jnp.where(long, s * root(scaled), 1)
        factor = jnp.where(long, 1 / length, (1 + squared) ** power)
        return scale(length ** (1 + 2 * power), scale(factor, g))

    return Preconditioner(lambda params: (), lambda gradient, state: (precondition, state))


PRECONDITIONERS: dict[str, Callable[..., Preconditioner]] = {
    "identity": identity,
    "adagrad": adagrad,
    "modified_adagrad": modified_adagrad,
    "natural": natural,
    "rmsprop": rmsprop,
    "adam": adam,
}
