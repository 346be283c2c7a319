"""One training step as a pure function of one seed's state; `program.Program` repeats it."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rkbench import optimizers
from rkbench.optimizers import budget
from rkbench.rk.vector_space import norm
from rkbench.step.gradients import Objective, Stages
from rkbench.step.sharding import ONE_DEVICE, Layout

PyTree = Any
Fetched = jax.Array | np.ndarray  # on the device, or fetched


class TrainState(NamedTuple):
    """All that a step reads and writes; with several seeds leaves have a leading axis for them."""

    params: PyTree
    model_state: PyTree  # batch-norm statistics and the like
    opt_state: PyTree


class StepInputs(NamedTuple):
    """What one step takes beside the state and the optimizer's numbers.

    With several seeds `indices` and `key` have a leading axis for them; all share the others.
    """

    data: PyTree  # arrays of the training set; where it is streamed, the step's batch in rows
    indices: jax.Array  # int32 [batch_size], the step's batch; empty where it is all of `data`
    step: jax.Array  # n, an int32 scalar
    key: jax.Array  # the seed's


class StepMetrics(NamedTuple):
    """What a step reports of the point theta_n where it began; scalars, stacked by the loop."""

    loss: Fetched  # of the step's batch, with the penalty, float32
    grad_norm: Fetched  # || grad L(theta_n) ||, float32
    learning_rate: Fetched  # h_n, float32
    grad_evals: Fetched  # spent up to and including this step, int32
    ended: Fetched  # whether the budget did not allow this step, nor any later one: bool
    diagnostics: Mapping[str, Fetched]  # see `optimizers.diagnostics`; empty for most


@dataclasses.dataclass(frozen=True)
class StepFunction:
    """theta_n -> theta_{n+1} for one seed.

    Attributes:
      workload: gives the losses.
      optimizer: (learning_rate=, and others of its keywords) -> optax transformation; called while
        tracing, so that these numbers are data and not part of the program.
      batch_size: examples a step.
      chunk: examples whose activations are held at once; 0 for all.
      last_stage_state: take the model state from the last stage instead of the first; needs an
        optimizer that writes its stages out.
      streamed: whether a step is handed its batch instead of the data and indices.
      layout: how batch, parameters and optimizer state are spread over devices.
    """

    workload: Any
    optimizer: Callable[..., optax.GradientTransformationExtraArgs]
    batch_size: int
    chunk: int
    last_stage_state: bool = False
    streamed: bool = False
    layout: Layout = ONE_DEVICE

    def init(self, key: jax.Array) -> TrainState:
        """The state before the first step, drawn from the seed's `key`."""
        params, model_state = self.workload.init(key)
        # Float zero as the learning rate: a state depends on its existence, never on its value.
        opt_state = self.optimizer(learning_rate=jnp.float32(0)).init(params)
        return TrainState(params, model_state, opt_state)

    def __call__(
        self,
        state: TrainState,
        inputs: StepInputs,
        scalars: dict[str, jax.Array],
    ) -> tuple[TrainState, StepMetrics]:
        """One step.

        The gradient at theta_n is the first stage; the optimizer evaluates the others through
        `grad_fn` on the same `Objective`. Batch-norm statistics move once a step: from the first
        stage, whose point the step has really been at, or from the last.

        Args:
          state: the state before the step.
          inputs: which step it is, with which examples and which key.
          scalars: what the optimizer is given, by keyword: "learning_rate", h_n, and maybe others;
            float32 scalars.
        """
        objective = self._objective(state, inputs)
        stages = Stages(objective)
        (loss, model_state), gradient = stages.first(state.params)
        updates, opt_state = self.optimizer(**scalars).update(
            gradient,
            state.opt_state,
            state.params,
            grad_fn=stages.gradient,
            value_fn=objective.value,
            value=loss,
            grad=gradient,
        )
        if self.last_stage_state:
            model_state = stages.last_state
        params = optax.apply_updates(state.params, updates)
        ended = budget.ended(opt_state)
        if ended is not None:
            model_state = budget.unless(ended, model_state, state.model_state)
        metrics = StepMetrics(
            loss,
            norm(gradient),
            optimizers.step_size(opt_state, default=scalars["learning_rate"]),
            optimizers.grad_evals(opt_state),
            jnp.zeros((), bool) if ended is None else ended,
            optimizers.diagnostics(opt_state),
        )
        return TrainState(params, model_state, opt_state), metrics

    def eval_params(self, state: TrainState) -> PyTree:
        """The parameters at which the state is evaluated; see `optimizers.eval_params`."""
        return optimizers.eval_params(state.opt_state, state.params)

    def statistics(self, state: TrainState, inputs: StepInputs) -> TrainState:
        """The state after one forward pass, which changes its model state alone."""
        objective = self._objective(state, inputs)
        return state._replace(model_state=objective.value_and_state(state.params)[1])

    def _objective(self, state: TrainState, inputs: StepInputs) -> Objective:
        indices = None if self.streamed else inputs.indices
        if indices is not None and not len(indices):  # all of `data`, in its own order
            indices = jnp.arange(self.batch_size, dtype=jnp.int32)
        return Objective(
            self.workload,
            inputs.data,
            indices,
            state.model_state,
            jax.random.fold_in(inputs.key, inputs.step),
            self.chunk,
            self.layout,
        )
