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
    leaves = jax.tree.leaves(x)
    return sum((jnp.sum(jnp.square(leaf.astype(float))) for leaf in leaves), jnp.zeros((), float))
