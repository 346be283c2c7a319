"""Parameters as vectors: pytrees of arrays, added and scaled leaf by leaf.

Every result keeps the dtype of its leaf (a scalar is cast to it), so that bfloat16 parameters stay
bfloat16 under strict dtype promotion; norms are accumulated in JAX's default float dtype.
"""

from typing import Any

import jax
import jax.numpy as jnp

Vector = Any  # a pytree of floating-point arrays


def scale(scalar: Any, x: Vector) -> Vector:
    """scalar x."""
    return jax.tree.map(lambda leaf: jnp.asarray(scalar, leaf.dtype) * leaf, x)


def add_scaled(x: Vector, scalar: Any, y: Vector) -> Vector:
    """x + scalar y, in the dtypes of x."""

    def leaf_sum(p: jax.Array, q: jax.Array) -> jax.Array:
        return p + jnp.asarray(scalar, p.dtype) * q.astype(p.dtype)

    return jax.tree.map(leaf_sum, x, y)


def squared_norm(x: Vector) -> jax.Array:
    """||x||^2 over all leaves together: a scalar."""
    return sum(map(_sum_of_squares, jax.tree.leaves(x)), jnp.zeros((), float))


def _sum_of_squares(leaf: jax.Array) -> jax.Array:
    """Rows are summed by a product with ones: XLA's CPU backend sums matrices much more slowly."""
    squares = jnp.square(leaf.astype(float))
    if leaf.ndim < 2:
        return jnp.sum(squares)
    rows = squares.reshape(-1, leaf.shape[-1])
    return jnp.sum(jnp.matmul(rows, jnp.ones(rows.shape[-1:]), precision="highest"))


def norm(x: Vector) -> jax.Array:
    """||x|| over all leaves together: a scalar."""
    return jnp.sqrt(squared_norm(x))
