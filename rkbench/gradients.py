"""The loss of one batch as a function of the parameters, and its exact gradient in bounded memory.

    L(theta) = sum_i w_i l_i(theta) / sum_i w_i + penalty(theta)

One `Objective` is one vector field: the batch, the augmentation and dropout key and the incoming
batch-norm statistics are fixed in it, so that all stages of a Runge-Kutta step see the same ones.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Objective:
    """The training loss on the examples `indices` of the arrays `data`.

    Attributes:
      workload: gives `losses` and `penalty`.
      data: arrays of the training set, leading axis the examples, e.g. uint8 [N, 28, 28, 1].
      indices: the batch, int32 [B].
      model_state: batch-norm statistics and the like, as they are before the step.
      key: the step's key, for augmentation and dropout.
      chunk: examples whose activations are held at once; 0 for all of them. The gradient is the
        exact mean whatever the chunk; only the order of the sums differs.
    """

    workload: Any
    data: PyTree
    indices: jax.Array
    model_state: PyTree
    key: jax.Array
    chunk: int

    def value(self, params: PyTree) -> jax.Array:
        """The loss at `params`, a float32 scalar."""
        return self.value_and_state(params)[0]

    def value_and_state(self, params: PyTree) -> tuple[jax.Array, PyTree]:
        """The loss at `params` and the model state that its forward pass leaves."""
        total, state = self._sum_over_chunks(self._chunk_sum, params)
        return total / len(self.indices) + self.workload.penalty(params), state

    def gradient(self, params: PyTree) -> PyTree:
        """The gradient at `params`: a stage's evaluation of the field."""
        return self.value_and_gradient(params)[1]

    def value_and_gradient(self, params: PyTree) -> tuple[tuple[jax.Array, PyTree], PyTree]:
        """((loss, new model state), gradient) at `params`."""
        if not self._chunked:
            return jax.value_and_grad(self.value_and_state, has_aux=True)(params)
        chunk_gradient = jax.value_and_grad(self._chunk_sum, has_aux=True)
        penalty, penalty_gradient = jax.value_and_grad(self.workload.penalty)(params)

        def add(params, state, indices, weights):
            (total, state), gradient = chunk_gradient(params, state, indices, weights)
            return (total, gradient), state

        (total, gradient), state = self._sum_over_chunks(add, params)
        mean = jax.tree.map(lambda g, p: g / len(self.indices) + p, gradient, penalty_gradient)
        return (total / len(self.indices) + penalty, state), mean

    @property
    def _chunked(self) -> bool:
        return 0 < self.chunk < len(self.indices)

    def _chunk_sum(self, params, state, indices, weights):
        """sum_i w_i l_i over one chunk of examples, and the model state it leaves."""
        batch = jax.tree.map(lambda array: array[indices], self.data)
        losses, state = self.workload.losses(params, state, batch, self.key)
        return jnp.sum(losses * weights), state

    def _sum_over_chunks(self, function: Callable, params: PyTree) -> tuple[PyTree, PyTree]:
        """The sum over chunks of function(params, state, indices, weights), and the last state."""
        if not self._chunked:
            weights = jnp.ones(len(self.indices))
            return function(params, self.model_state, self.indices, weights)
        padding = -len(self.indices) % self.chunk
        shape = (-1, self.chunk)
        indices = jnp.pad(self.indices, (0, padding)).reshape(shape)
        weights = jnp.pad(jnp.ones(len(self.indices)), (0, padding)).reshape(shape)

        def body(carry, chunk):
            total, state = carry
            value, state = function(params, state, *chunk)
            return (jax.tree.map(jnp.add, total, value), state), None

        shapes = jax.eval_shape(function, params, self.model_state, indices[0], weights[0])[0]
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        (total, state), _ = jax.lax.scan(body, (zeros, self.model_state), (indices, weights))
        return total, state
