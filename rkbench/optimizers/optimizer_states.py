"""What is looked for in the state of an optimizer, and how a state is kept.

A state is searched by the types of its parts and never by their names: parameters may have any.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

PyTree = Any


def find(state: PyTree, *kinds: type) -> list[Any]:
    """The parts of the state that are of one of these types, in order, outermost ones only."""

    def wanted(part: Any) -> bool:
        return isinstance(part, kinds)

    return [part for part in jax.tree.leaves(state, is_leaf=wanted) if wanted(part)]


@dataclasses.dataclass(frozen=True)
class Key:
    """A typed PRNG key as the array that it is made of."""

    data: jax.Array
    implementation: str


@dataclasses.dataclass(frozen=True)
class Empty:
    """An array without elements: there is nothing to keep but its shape and dtype."""

    shape: tuple[int, ...]
    dtype: str


jax.tree_util.register_dataclass(Key, ["data"], ["implementation"])
jax.tree_util.register_dataclass(Empty, [], ["shape", "dtype"])


def kept(state: PyTree) -> PyTree:
    """The state with nothing but arrays that can be saved, donated and compared by their bytes."""
    return jax.tree.map(_kept, state)


def restored(state: PyTree) -> PyTree:
    """The state that `kept` was given."""
    return jax.tree.map(_restored, state, is_leaf=lambda part: isinstance(part, Key | Empty))


def with_own_buffers(state: PyTree) -> PyTree:
    """A copy in which no two leaves share a buffer, nor with anything else: it can be donated."""
    return jax.tree.map(jnp.copy, state)


def _kept(leaf: Any) -> Any:
    leaf = jnp.asarray(leaf)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return Key(jax.random.key_data(leaf), str(jax.random.key_impl(leaf)))
    if not leaf.size:
        return Empty(leaf.shape, str(leaf.dtype))
    return jax.lax.convert_element_type(leaf, leaf.dtype)  # no dtype is weak, as a number's is


def _restored(part: Any) -> Any:
    if isinstance(part, Key):
        return jax.random.wrap_key_data(part.data, impl=part.implementation)
    if isinstance(part, Empty):
        return jnp.zeros(part.shape, np.dtype(part.dtype))
    return part
