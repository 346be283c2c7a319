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
import optax

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

        def add(params, positions, weights):
            (total, state), gradient = chunk_gradient(params, positions, weights)
            return (total, gradient), state

        (total, gradient), state = self._sum_over_chunks(add, params)
        mean = jax.tree.map(lambda g, p: g / len(self.indices) + p, gradient, penalty_gradient)
        return (total / len(self.indices) + penalty, state), mean

    @property
    def _chunked(self) -> bool:
        return 0 < self.chunk < len(self.indices)

    def _chunk_sum(self, params, positions, weights):
        """sum_i w_i l_i over the examples at `positions` of the batch, and the model state left."""
        batch = self._examples(positions)
        if self.workload.pairs:
            batch["partner"] = self._examples((positions - 1) % len(self.indices))
        losses, state = self.workload.losses(params, self.model_state, batch, self.key)
        return jnp.sum(losses * weights), state

    def _examples(self, positions: jax.Array) -> PyTree:
        batch = jax.tree.map(lambda array: array[self.indices[positions]], self.data)
        return batch | {"position": positions}

    def _sum_over_chunks(self, function: Callable, params: PyTree) -> tuple[PyTree, PyTree]:
        """The sum over chunks of function(params, positions, weights), and their mean state.

        Every chunk starts from the state before the step, so that the state moves once a step. For
        batch norm that means: each chunk is normalised by statistics of its own, and the running
        statistics move to the mean of the chunks'.
        """
        count = len(self.indices)
        positions, weights = jnp.arange(count, dtype=jnp.int32), jnp.ones(count)
        if not self._chunked:
            return function(params, positions, weights)
        padding = -count % self.chunk
        # The padding repeats the first examples with weight 0.
        positions = jnp.pad(positions, (0, padding), mode="wrap").reshape(-1, self.chunk)
        weights = jnp.pad(weights, (0, padding)).reshape(-1, self.chunk)

        def body(carry, chunk):
            return jax.tree.map(jnp.add, carry, function(params, *chunk)), None

        shapes = jax.eval_shape(function, params, positions[0], weights[0])
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        (total, states), _ = jax.lax.scan(body, zeros, (positions, weights))
        return total, jax.tree.map(lambda leaf: leaf / len(positions), states)


class Stages:
    """The gradients of one step as the optimizer asks for them.

    Attributes:
      last_state: the model state that the last gradient left; meaningful where the stages are
        written out, since a compiled loop has no "last" that could be seen from outside.
    """

    def __init__(self, objective: Objective, clip_norm: float | None):
        """`clip_norm` is the largest norm of each stage's gradient; None for any."""
        self._objective = objective
        self._clip = None if clip_norm is None else optax.clip_by_global_norm(clip_norm)
        self.last_state = objective.model_state

    def first(self, params: PyTree) -> tuple[tuple[jax.Array, PyTree], PyTree]:
        """((loss, new model state), gradient) where the step begins."""
        (loss, self.last_state), gradient = self._objective.value_and_gradient(params)
        return (loss, self.last_state), self._clipped(gradient)

    def gradient(self, params: PyTree) -> PyTree:
        """The gradient at a further stage."""
        return self.first(params)[1]

    def _clipped(self, gradient: PyTree) -> PyTree:
        if self._clip is None:
            return gradient
        return self._clip.update(gradient, self._clip.init(gradient))[0]
