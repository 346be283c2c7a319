"""Krylov solvers of a linear system that is known by its products only.

`jax.scipy.sparse.linalg` has conjugate gradients and GMRES too. It reports neither how many
products were made, which a count of gradient evaluations needs, nor negative curvature, which a
loss has away from its minimum.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rkbench.rk.checks import is_any_traced
from rkbench.rk.vector_space import Vector, add_scaled, inner, root, scale, squared_norm

Product = Callable[[Vector], Vector]


class Enough(NamedTuple):
    """What residual is small enough: max(tolerance ||base + x||, floor)."""

    tolerance: Any
    floor: Any
    base: Vector  # what x corrects

    def target(self, x: Vector, norm: Callable[[Vector], jax.Array]) -> jax.Array:
        """The residual to reach, in the solver's norm."""
        return jnp.maximum(self.tolerance * norm(add_scaled(x, 1.0, self.base)), self.floor)


class Solution(NamedTuple):
    """What a solver found for B x = b."""

    x: Vector
    products: jax.Array  # with B: int32 scalar
    residual: jax.Array  # ||b - B x|| in the solver's norm: float scalar


def conjugate_gradients(
    product: Callable[[Vector, Vector], Vector],
    metric: Product,
    b: Vector,
    enough: Enough,
    iterations: Any,
) -> Solution:
    """Truncated conjugate gradients from x = 0, in the inner product <u, v>_A = u^T A v.

    B has to be self-adjoint in it, as 1 + c H A is for symmetric H and A; that is the method on
    the symmetric system 1 + c A^(1/2) H A^(1/2), without a root.

    It ends where ||b - B x||_A is small enough, after `iterations` products, or at a direction p of
    negative curvature, p^T A B p <= 0: then x is what was found before, or b where that is nothing
    (Dembo and Steihaug, "Truncated-Newton algorithms for large-scale unconstrained optimization",
    Math. Program. 26, 1983; Nocedal and Wright, "Numerical Optimization", Algorithm 7.1).

    Args:
      product: (p, A p) -> B p.
      metric: p -> A p, positive semi-definite.
      b: the right-hand side, a pytree in float32 at least.
      enough: what residual is small enough.
      iterations: the largest number of products.
    """

    class Carry(NamedTuple):
        x: Vector
        r: Vector
        p: Vector
        rho: jax.Array  # ||r||_A^2
        products: jax.Array
        ended: jax.Array

    def length(v: Vector) -> jax.Array:
        return root(inner(v, metric(v)))

    def unfinished(carry: Carry) -> jax.Array:
        small = root(carry.rho) <= enough.target(carry.x, length)
        return (carry.products < iterations) & ~small & ~carry.ended & jnp.isfinite(carry.rho)

    def iterate(carry: Carry) -> Carry:
        image = metric(carry.p)
        bp = product(carry.p, image)
        curvature = inner(image, bp)
        concave = ~(curvature > 0)
        along = jnp.where(concave, 0, carry.rho / jnp.where(concave, 1, curvature))
        r = add_scaled(carry.r, -along, bp)
        rho = inner(r, metric(r))
        # Where the first direction is one of negative curvature, it is b.
        moved = jnp.where(concave & (carry.products == 0), 1, along)
        p = add_scaled(r, rho / carry.rho, carry.p)
        x = add_scaled(carry.x, moved, carry.p)
        return Carry(x, r, p, rho, carry.products + 1, concave)

    zero = jnp.zeros((), jnp.int32)
    rho = inner(b, metric(b))
    first = Carry(scale(0.0, b), b, b, rho, zero, jnp.zeros((), bool))
    last = repeat(unfinished, iterate, first)
    return Solution(last.x, last.products, root(last.rho))


def gmres(product: Product, b: Vector, enough: Enough, iterations: int) -> Solution:
    """GMRES without restart from x = 0, for any B: `iterations` + 1 copies of b are kept.

    Y. Saad and M. H. Schultz, "GMRES: a generalized minimal residual algorithm for solving
    nonsymmetric linear systems", SIAM J. Sci. Stat. Comput. 7 (1986).

    Args:
      product: p -> B p.
      b: the right-hand side, a pytree in float32 at least.
      enough: what residual is small enough.
      iterations: the largest number of products.
    """

    class Carry(NamedTuple):
        basis: Vector  # orthonormal rows [iterations + 1, ...]; zero where there is none yet
        hessenberg: jax.Array  # [iterations + 1, iterations]: B basis_j = sum_i h_ij basis_i
        y: jax.Array  # [iterations], x in the basis
        products: jax.Array
        residual: jax.Array

    def length(v: Vector) -> jax.Array:
        return root(squared_norm(v))

    def x(carry: Carry) -> Vector:
        return combine(carry.y, jax.tree.map(lambda rows: rows[:-1], carry.basis))

    size = length(b)
    right = jnp.zeros(iterations + 1, float).at[0].set(size)

    def unfinished(carry: Carry) -> jax.Array:
        open_ = (carry.residual > enough.target(x(carry), length)) & jnp.isfinite(carry.residual)
        return (carry.products < iterations) & open_

    def iterate(carry: Carry) -> Carry:
        k = carry.products
        w = product(jax.tree.map(lambda rows: rows[k], carry.basis))
        column = jnp.zeros(iterations + 1, float)
        for _ in range(2):  # once more, for what rounding left
            shares = jax.vmap(lambda v, w=w: inner(v, w))(carry.basis)
            w = add_scaled(w, -1.0, combine(shares, carry.basis))
            column += shares
        rest = length(w)
        column = column.at[k + 1].set(rest)
        unit = scale(jnp.where(rest > 0, 1 / jnp.where(rest > 0, rest, 1), 0), w)
        basis = jax.tree.map(lambda rows, v: rows.at[k + 1].set(v), carry.basis, unit)
        hessenberg = carry.hessenberg.at[:, k].set(column)
        y = jnp.linalg.lstsq(hessenberg, right)[0]
        residual = jnp.linalg.norm(right - jnp.matmul(hessenberg, y, precision="highest"))
        return Carry(basis, hessenberg, y, k + 1, residual)

    unit = scale(jnp.where(size > 0, 1 / jnp.where(size > 0, size, 1), 0), b)
    basis = jax.tree.map(
        lambda v: jnp.zeros((iterations + 1, *v.shape), v.dtype).at[0].set(v), unit
    )
    zeros = jnp.zeros((iterations + 1, iterations), float)
    first = Carry(basis, zeros, zeros[0], jnp.zeros((), jnp.int32), size)
    last = repeat(unfinished, iterate, first)
    return Solution(x(last), last.products, last.residual)


def combine(weights: jax.Array, rows: Vector) -> Vector:
    """sum_i weights_i rows_i, where the rows are stacked along the first axis of each leaf."""
    return jax.tree.map(
        lambda leaf: jnp.tensordot(weights.astype(leaf.dtype), leaf, 1, precision="highest"), rows
    )


def repeat(unfinished: Callable[[Any], Any], iterate: Callable[[Any], Any], carry: Any) -> Any:
    """`jax.lax.while_loop`; outside a compiled function a plain loop, which compiles nothing."""
    if is_any_traced(carry):
        return jax.lax.while_loop(unfinished, iterate, carry)
    while unfinished(carry):
        carry = iterate(carry)
    return carry
