"""Preconditioners: the field that a step follows is A_n g instead of g (Section 3.1).

A_n is set once a step, from the gradient at theta_n, and held for all the stages of that step, so
that the stages still solve one differential equation. This is not the same as preconditioning the
Runge-Kutta gradient afterwards: the stages themselves stand elsewhere.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rkbench.rk.checks import FINITE, NON_NEGATIVE, check_number
from rkbench.rk.vector_space import (
    Vector,
    normalized,
    root,
    scale,
    squared_norm,
    squares,
    wide_dtype,
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
    """

    init: Callable[[Vector], Any]
    update: Callable[[Vector, Any], tuple[Precondition, Any]]
    self_adjoint: bool = False


class AdagradState(NamedTuple):
    """The state of `adagrad`."""

    sum_of_squares: Vector  # diag G_n = sum_{l=1}^n g(theta_l)^2, float32 at least


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
}
