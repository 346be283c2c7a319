"""Loss and accuracy on whole splits: every example once, merged by sums."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rkbench.step.sharding import EXAMPLES, ONE_DEVICE, Layout
from rkbench.trainer import preemption
from rkbench.workloads.base import Stream

PyTree = Any


class Sums(NamedTuple):
    """Mergeable sums over examples; float32 scalars (or [seeds])."""

    loss: jax.Array
    correct: jax.Array
    count: jax.Array


class Split(NamedTuple):
    """A data split on the devices, cut into batches: leaves [batches, batch, ...]."""

    batches: PyTree
    weights: jax.Array  # 1 for an example, 0 for the padding of the last batch

    def each(self) -> Iterator[tuple[PyTree, jax.Array]]:
        """The batches one by one, with their weights."""
        for i in range(len(self.weights)):
            yield jax.tree.map(lambda leaf, i=i: leaf[i], self.batches), self.weights[i]


class StreamedSplit(NamedTuple):
    """The first `examples` of a stream, which every evaluation reads anew."""

    stream: Stream
    examples: int
    batch_size: int
    layout: Layout

    def each(self) -> Iterator[tuple[PyTree, jax.Array]]:
        """The batches one by one, all of one size, with their weights.

        Each process reads the places of its own devices.
        """
        places = np.asarray(self.layout.local_columns(self.batch_size))
        batches = self.stream.evaluation_batches(self.batch_size, places)
        with contextlib.closing(batches):
            for begin in range(0, self.examples, self.batch_size):
                batch = next(batches)
                weights = (begin + places < self.examples).astype(np.float32)
                yield (
                    {
                        name: self._placed(_padded(leaf, len(places)))
                        for name, leaf in batch.items()
                    },
                    self._placed(weights),
                )

    def _placed(self, leaf: np.ndarray) -> jax.Array:
        return self.layout.from_local(leaf, self.batch_size, axis=0)


def split(
    examples: dict[str, np.ndarray] | Stream,
    count: int,
    batch_size: int,
    layout: Layout = ONE_DEVICE,
) -> Split | StreamedSplit:
    """The first `count` of the examples as a split, in memory or streamed as they are."""
    if isinstance(examples, dict):
        return cut({name: array[:count] for name, array in examples.items()}, batch_size, layout)
    count = min(count, len(examples))
    return StreamedSplit(examples, count, _of_equal_shares(min(batch_size, count), layout), layout)


def cut(arrays: dict[str, np.ndarray], batch_size: int, layout: Layout = ONE_DEVICE) -> Split:
    """Cuts arrays (leading axis: examples) into batches; the last is padded."""
    examples = len(next(iter(arrays.values())))
    batch_size = _of_equal_shares(min(batch_size, examples), layout)
    rows = examples + -examples % batch_size

    def reshape(array: np.ndarray) -> jax.Array:
        batches = _padded(array, rows).reshape(-1, batch_size, *array.shape[1:])
        return jnp.asarray(layout.put(batches, None, EXAMPLES))

    weights = (np.arange(rows) < examples).astype(np.float32)
    return Split({name: reshape(array) for name, array in arrays.items()}, reshape(weights))


def _of_equal_shares(batch_size: int, layout: Layout) -> int:
    """The next batch size that the devices divide."""
    return batch_size + -batch_size % layout.shards


def _padded(array: np.ndarray, rows: int) -> np.ndarray:
    return np.pad(array, [(0, rows - len(array))] + [(0, 0)] * (array.ndim - 1))


class Evaluator:
    """Evaluates a workload's model on splits."""

    def __init__(self, workload, loop: bool, seeds_at_once: int, layout: Layout = ONE_DEVICE):
        """`loop` is whether the batches of a split on the device run in a compiled loop."""
        self._loop = loop
        functions = _one_batch(workload), _whole_split(workload)
        if seeds_at_once > 1:
            functions = [layout.vmap(f, in_axes=(0, 0, None, None)) for f in functions]
        everywhere = layout.sharding()  # every process reads the sums
        self._one_batch, self._whole_split = (
            jax.jit(function, out_shardings=everywhere) for function in functions
        )

    def __call__(
        self, params: PyTree, model_state: PyTree, split: Split | StreamedSplit
    ) -> dict[str, np.ndarray]:
        """{"loss": mean, "accuracy": fraction} over the split; float64 scalars, or [seeds]."""
        if self._loop and isinstance(split, Split):
            sums = self._whole_split(params, model_state, *split)
        else:
            sums = self._merged(params, model_state, split)
        loss, correct, count = (np.asarray(leaf, np.float64) for leaf in jax.device_get(sums))
        return {"loss": loss / count, "accuracy": correct / count}

    def _merged(self, params: PyTree, model_state: PyTree, split: Split | StreamedSplit) -> Sums:
        total = None
        for batch, weights in split.each():
            preemption.raise_if_requested()
            sums = self._one_batch(params, model_state, batch, weights)
            if total is not None:
                if isinstance(split, StreamedSplit):
                    jax.block_until_ready(total)  # or batches would pile up on the device
                sums = Sums(*map(jnp.add, total, sums))
            total = sums
        assert total is not None, "a split has an example"
        return total


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
