"""Loss and accuracy on whole splits: every example once, merged by sums."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

PyTree = Any


class Sums(NamedTuple):
    """Mergeable sums over examples; float32 scalars (or [seeds])."""

    loss: jax.Array
    correct: jax.Array
    count: jax.Array


class Split(NamedTuple):
    """A data split on the device, cut into batches: leaves [batches, batch, ...]."""

    batches: PyTree
    weights: jax.Array  # 1 for an example, 0 for the padding of the last batch

    def batch(self, i: int) -> tuple[PyTree, jax.Array]:
        """The i-th batch and its weights."""
        return jax.tree.map(lambda leaf: leaf[i], self.batches), self.weights[i]


def cut(arrays: dict[str, np.ndarray], batch_size: int) -> Split:
    """Cuts arrays (leading axis: examples) into batches; the first row pads the last one."""
    examples = len(next(iter(arrays.values())))
    batch_size = min(batch_size, examples)
    padding = -examples % batch_size

    def reshape(array: np.ndarray) -> jax.Array:
        padded = np.concatenate([array, np.repeat(array[:1], padding, axis=0)])
        return jnp.asarray(padded.reshape(-1, batch_size, *array.shape[1:]))

    weights = (np.arange(examples + padding) < examples).astype(np.float32)
    return Split(
        {name: reshape(array) for name, array in arrays.items()},
        jnp.asarray(weights.reshape(-1, batch_size)),
    )


class Evaluator:
    """Evaluates a workload's model on splits.

    Attributes:
      loop: whether the batches of a split run in a compiled loop or one by one.
    """

    def __init__(self, workload, loop: bool, seeds_at_once: int):
        self._loop = loop
        function: Callable = _whole_split(workload) if loop else _one_batch(workload)
        if seeds_at_once > 1:
            function = jax.vmap(function, in_axes=(0, 0, None, None))
        self._function = jax.jit(function)

    def __call__(self, params: PyTree, model_state: PyTree, split: Split) -> dict[str, np.ndarray]:
        """{"loss": mean, "accuracy": fraction} over the split; float64 scalars, or [seeds]."""
        if self._loop:
            sums = self._function(params, model_state, *split)
        else:
            parts = [
                self._function(params, model_state, batch, weights)
                for batch, weights in map(split.batch, range(len(split.weights)))
            ]
            sums = jax.tree.map(lambda *leaves: sum(leaves[1:], leaves[0]), *parts)
        loss, correct, count = (np.asarray(leaf, np.float64) for leaf in jax.device_get(sums))
        return {"loss": loss / count, "accuracy": correct / count}


def _one_batch(workload) -> Callable[..., Sums]:
    def sums(params, model_state, batch, weights):
        losses, correct = workload.evaluate(params, model_state, batch)
        # `where` rather than a product: a padded row must not turn an infinite loss into NaN.
        kept = weights > 0
        return Sums(
            jnp.sum(jnp.where(kept, losses, 0)),
            jnp.sum(jnp.where(kept, correct, 0)),
            jnp.sum(weights),
        )

    return sums


def _whole_split(workload) -> Callable[..., Sums]:
    one_batch = _one_batch(workload)

    def sums(params, model_state, batches, weights):
        def body(total, batch):
            return jax.tree.map(jnp.add, total, one_batch(params, model_state, *batch)), None

        zeros = Sums(*(jnp.zeros((), jnp.float32) for _ in Sums._fields))
        return jax.lax.scan(body, zeros, (batches, weights))[0]

    return sums


@jax.jit
def all_finite(params: PyTree) -> jax.Array:
    """Whether every entry of every leaf is finite: a boolean scalar."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(params)]))
