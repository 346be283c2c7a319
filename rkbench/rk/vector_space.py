"""Parameters as vectors: pytrees of arrays, added and scaled leaf by leaf.

Every result keeps the dtype of its leaf, so that bfloat16 parameters stay bfloat16 under strict
dtype promotion; what leads to it is computed in float32 at least and rounded once. Norms are
accumulated in JAX's default float dtype. Complex leaves are vectors over the reals: the inner
product is Re sum conj(x) y.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

Vector = Any  # a pytree of floating-point or complex arrays


def wide_dtype(dtype: Any) -> Any:
    """float32 for a narrower floating-point dtype, else the dtype itself."""
    return jnp.dtype(jnp.float32) if dtype.itemsize < 4 else dtype


def widen(x: Vector) -> Vector:
    """x in float32 at least."""
    return jax.tree.map(lambda leaf: leaf.astype(wide_dtype(leaf.dtype)), x)


def cast_like(x: Vector, like: Vector) -> Vector:
    """x in the dtypes of `like`."""
    return jax.tree.map(lambda leaf, other: leaf.astype(other.dtype), x, like)


def scale(scalar: Any, x: Vector) -> Vector:
    """scalar x."""

    def scaled(leaf: jax.Array) -> jax.Array:
        wide = wide_dtype(leaf.dtype)
        return (jnp.asarray(scalar, wide) * leaf.astype(wide)).astype(leaf.dtype)

    return jax.tree.map(scaled, x)


def add_scaled(x: Vector, scalar: Any, y: Vector) -> Vector:
    """x + scalar y, in the dtypes of x."""

    def leaf_sum(p: jax.Array, q: jax.Array) -> jax.Array:
        wide = wide_dtype(p.dtype)
        return (p.astype(wide) + jnp.asarray(scalar, wide) * q.astype(wide)).astype(p.dtype)

    return jax.tree.map(leaf_sum, x, y)


def squares(leaf: jax.Array) -> jax.Array:
    """|x|^2, element by element and real, in the leaf's own precision."""
    if jnp.iscomplexobj(leaf):
        return jnp.square(leaf.real) + jnp.square(leaf.imag)
    return jnp.square(leaf)


def squared_norm(x: Vector) -> jax.Array:
    """||x||^2 over all leaves together: a scalar."""
    return sum(map(_sum_of_squares, jax.tree.leaves(x)), jnp.zeros((), float))


def _sum_of_squares(leaf: jax.Array) -> jax.Array:
    """Rows are summed by a product with ones: XLA's CPU backend sums matrices much more slowly."""
    dtype = jnp.result_type(complex if jnp.iscomplexobj(leaf) else float)
    return _sum(squares(leaf.astype(dtype)))


def _sum(terms: jax.Array) -> jax.Array:
    if terms.ndim < 2:
        return jnp.sum(terms)
    return jnp.sum(jnp.matmul(terms, jnp.ones(terms.shape[-1:]), precision="highest"))


def inner(x: Vector, y: Vector) -> jax.Array:
    """Re sum conj(x) y over all leaves together: a scalar."""

    def product(p: jax.Array, q: jax.Array) -> jax.Array:
        dtype = jnp.result_type(complex if jnp.iscomplexobj(p) else float)
        return _sum((jnp.conj(p).astype(dtype) * q.astype(dtype)).real)

    return sum(jax.tree.leaves(jax.tree.map(product, x, y)), jnp.zeros((), float))


def norm(x: Vector) -> jax.Array:
    """||x|| over all leaves together: a scalar. `safe_norm` is for where ||x||^2 is no number."""
    return jnp.sqrt(squared_norm(x))


def safe_norm(x: Vector) -> jax.Array:
    """||x||, also where ||x||^2 over- or underflows; the derivative at x = 0 is taken to be 0."""
    s, unit = normalized(x)
    return s * root(squared_norm(unit))


def normalized(x: Vector) -> tuple[jax.Array, Vector]:
    """(s, x / s) with s the largest power of two that is at most max |x_i|, or 1 without any.

    x / s is in float32 at least, and exact: what is computed with it rounds as with x.
    """
    wide = widen(x)
    sizes = [jnp.max(jnp.abs(leaf)).astype(float) for leaf in jax.tree.leaves(wide) if leaf.size]
    s = power_of_two_below(functools.reduce(jnp.maximum, sizes, jnp.zeros((), float)))
    return s, jax.tree.map(lambda leaf: leaf / s.astype(leaf.dtype), wide)


def power_of_two_below(x: jax.Array) -> jax.Array:
    """The largest 2^k <= x for a scalar x; 1 where there is none."""
    x = jax.lax.stop_gradient(x)
    usable = jnp.isfinite(x) & (x >= jnp.finfo(x.dtype).tiny)
    _, exponent = jnp.frexp(jnp.where(usable, x, 1))
    return jnp.ldexp(jnp.ones((), x.dtype), exponent - 1)


def root(x: jax.Array) -> jax.Array:
    """sqrt(x) with the derivative 0 at 0."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), x)


def clip(x: Vector, longest: Any) -> Vector:
    """x, shortened to ||x|| = longest where it is longer: optax's rule, for any length and 0."""
    squared = jnp.asarray(optax.tree.norm(widen(x), squared=True), dtype=float)
    limits = jnp.finfo(squared.dtype)
    sound = jnp.isfinite(squared) & (squared > limits.tiny / limits.eps**2)
    # XLA turns a division by a bare root into a product: as in optax, to give the same last bit.
    plain = jnp.sqrt(jnp.where(sound, squared, 1))
    length = jnp.where(sound, plain, safe_norm(x))
    divisor = jnp.where(length > 0, length, 1)

    def clipped(leaf: jax.Array) -> jax.Array:
        wide = leaf.astype(wide_dtype(leaf.dtype))
        unit = jnp.where(sound, wide / plain.astype(wide.dtype), wide / divisor.astype(wide.dtype))
        shorter = unit * jnp.asarray(longest, wide.dtype)
        return jnp.where(length < longest, leaf, shorter.astype(leaf.dtype))

    return jax.tree.map(clipped, x)
