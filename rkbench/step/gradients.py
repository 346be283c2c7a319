"""The loss of one batch as a function of the parameters, and its exact gradient in bounded memory.

    L(theta) = sum_i l_i(theta) / B + penalty(theta)

One `Objective` is one vector field: the batch, the augmentation and dropout key and the incoming
batch-norm statistics are fixed in it, so that all stages of a Runge-Kutta step see the same ones.

The batch lies in rows [chunks, chunk]. A device has its share of the columns, goes through the
chunks one after the other, and the sums of all devices are added up at the end.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rkbench.step.sharding import ONE_DEVICE, Layout

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Objective:
    """The training loss on one batch.

    Attributes:
      workload: gives `losses` and `penalty`.
      data: arrays of the training set, leading axis the examples, e.g. uint8 [N, 28, 28, 1]; or the
        batch itself in rows, [chunks, chunk, ...].
      indices: the examples of `data` that make up the batch, int32 [B]; None where `data` is it.
      model_state: batch-norm statistics and the like, as they are before the step.
      key: the step's key, for augmentation and dropout.
      chunk: examples whose activations are held at once; 0 for all of them. The gradient is the
        exact mean whatever the chunk; only the order of the sums differs.
      layout: how the examples of a chunk are spread over devices. Again only the order of the sums
        differs.
    """

    workload: Any
    data: PyTree
    indices: jax.Array | None
    model_state: PyTree
    key: jax.Array
    chunk: int
    layout: Layout = ONE_DEVICE

    def value(self, params: PyTree) -> jax.Array:
        """The loss at `params`, a float32 scalar."""
        return self.value_and_state(params)[0]

    def value_and_state(self, params: PyTree) -> tuple[jax.Array, PyTree]:
        """The loss at `params` and the model state that its forward pass leaves."""
        mean, state = self._sum(_Share.part, params)
        return mean + self.workload.penalty(params), state

    def gradient(self, params: PyTree) -> PyTree:
        """The gradient at `params`: a stage's evaluation of the field."""
        return self.value_and_gradient(params)[1]

    def value_and_gradient(self, params: PyTree) -> tuple[tuple[jax.Array, PyTree], PyTree]:
        """((loss, new model state), gradient) at `params`."""
        (mean, gradient), state = self._sum(_Share.part_and_gradient, params)
        penalty, penalty_gradient = jax.value_and_grad(self.workload.penalty)(params)
        gradient = self.layout.constrain(jax.tree.map(jnp.add, gradient, penalty_gradient))
        return (mean + penalty, state), gradient

    def _sum(self, function: Callable, params: PyTree) -> tuple[PyTree, PyTree]:
        """The sum of function(share, params, rows) over chunks and devices; of states the mean.

        Every chunk starts from the state before the step, so that the state moves once a step. For
        batch norm that means: each chunk, on all its devices together, is normalised by statistics
        of its own, and the running statistics move to the mean of the chunks'.
        """
        rows = self._rows()
        count, chunks = self._count, len(rows["position"])
        data = {} if self.indices is None else self.data

        def of_device(params, model_state, key, data, rows):
            if self.workload.pairs and self.indices is None:
                rows["partners"] = jax.tree.map(self.layout.predecessors, rows["examples"])
            share = _Share(self.workload, data, model_state, key, count)
            return _over_chunks(functools.partial(function, share, params), rows)

        summed = self.layout.over_examples(of_device)
        total, states = summed(params, self.model_state, self.key, data, rows)
        return total, jax.tree.map(lambda leaf: leaf / (chunks * self.layout.shards), states)

    @property
    def _count(self) -> int:
        """Examples in the batch."""
        if self.indices is not None:
            return len(self.indices)
        chunks, chunk = jax.tree.leaves(self.data)[0].shape[:2]
        return chunks * chunk

    def _rows(self) -> PyTree:
        """What is known of each example of the batch, leaves [chunks, chunk, ...].

        The last chunk is filled up with the first examples, which do not count there.
        """
        count = self._count
        chunk = self.chunk or count
        places = jnp.arange(-(-count // chunk) * chunk, dtype=jnp.int32).reshape(-1, chunk)
        position = places % count
        before = (position - 1) % count
        rows: PyTree = {"position": position, "before": before, "counts": places < count}
        if self.indices is None:
            return rows | {"examples": self.data}
        rows["index"] = self.indices[position]
        if self.workload.pairs:
            rows["partner_index"] = self.indices[before]
        return rows


@dataclasses.dataclass(frozen=True)
class _Share:
    """What one device needs to add its part of the mean over a batch of `count` examples."""

    workload: Any
    data: PyTree
    model_state: PyTree
    key: jax.Array
    count: int

    def part(self, params: PyTree, rows: PyTree) -> tuple[jax.Array, PyTree]:
        """sum_i l_i / count over the rows of one chunk, and the model state that they leave."""
        batch = self._batch(rows)
        losses, state = self.workload.losses(params, self.model_state, batch, self.key)
        return jnp.sum(jnp.where(rows["counts"], losses, 0)) / self.count, state

    def part_and_gradient(self, params: PyTree, rows: PyTree) -> tuple[tuple, PyTree]:
        """((part, its gradient), model state)."""
        (part, state), gradient = jax.value_and_grad(self.part, has_aux=True)(params, rows)
        return (part, gradient), state

    def _batch(self, rows: PyTree) -> PyTree:
        """The examples of one chunk, as `workloads.base.Batch`."""
        batch = rows["examples"] if "examples" in rows else self._examples(rows["index"])
        batch = batch | {"position": rows["position"]}
        if self.workload.pairs:
            given = rows.get("partners")
            partners = self._examples(rows["partner_index"]) if given is None else given
            batch["partner"] = partners | {"position": rows["before"]}
        return batch

    def _examples(self, indices: jax.Array) -> PyTree:
        return jax.tree.map(lambda array: array[indices], self.data)


def _over_chunks(function: Callable, rows: PyTree) -> PyTree:
    """The sum of function(rows of a chunk) over the chunks."""
    chunks = len(rows["position"])
    first = jax.tree.map(lambda leaf: leaf[0], rows)
    if chunks == 1:
        return function(first)

    def body(total, chunk):
        return jax.tree.map(jnp.add, total, function(chunk)), None

    shapes = jax.eval_shape(function, first)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return jax.lax.scan(body, zeros, rows)[0]


class Stages:
    """The gradients of one step as the optimizer asks for them.

    Attributes:
      last_state: the model state that the last gradient left; meaningful where the stages are
        written out, since a compiled loop has no "last" that could be seen from outside.
    """

    def __init__(self, objective: Objective):
        self._objective = objective
        self.last_state = objective.model_state

    def first(self, params: PyTree) -> tuple[tuple[jax.Array, PyTree], PyTree]:
        """((loss, new model state), gradient) where the step begins."""
        (loss, self.last_state), gradient = self._objective.value_and_gradient(params)
        return (loss, self.last_state), gradient

    def gradient(self, params: PyTree) -> PyTree:
        """The gradient at a further stage."""
        return self.first(params)[1]
