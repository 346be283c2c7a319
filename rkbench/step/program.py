"""The compiled program that repeats the training step, for one seed or for several at once.

The steps run in a loop on the device, or are dispatched one by one where that is faster (see
`compilation.compiled_loops`).
"""

import copy
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from rkbench import optimizers
from rkbench.step.feed import Feed
from rkbench.step.sharding import SEED
from rkbench.step.train_step import StepFunction, StepInputs, StepMetrics, TrainState

Scalars = dict[str, np.ndarray]

MAX_STEPS_PER_DISPATCH = 256
# Forward passes by which batch-norm statistics are estimated anew. At a momentum of 0.9 the old
# statistics keep a weight of 0.9^50 = 0.5 %.
STATISTICS_PASSES = 50


class Program:
    """A step function compiled for a group of seeds.

    One compilation serves every number of steps, seed, learning rate, schedule and other scalar.
    The number of steps is the trip count of a loop whose body is always the same code. So the
    result is the same, bit for bit, however the steps are grouped into calls.
    """

    def __init__(
        self,
        step: StepFunction,
        feed: Feed,
        scalars: Scalars,
        seeds_at_once: int,
        loop: bool,
    ):
        """Compiles nothing yet.

        Args:
          step: the step function.
          feed: gives the examples of each step.
          scalars: what the optimizer is given at every step, by keyword: float32 [total_steps], or
            [total_steps, seeds_at_once] where each seed has its own.
          seeds_at_once: seeds that train together; with 1 there is no axis for them.
          loop: whether steps run in a compiled loop; a streamed feed cannot.
        """
        self._layout = step.layout
        self._feed = feed
        self._scalars = scalars
        self._vector = seeds_at_once > 1
        self._seed_axis = (SEED,) if self._vector else ()
        self._own_scalars = scalars["learning_rate"].ndim == 2
        self._scalars_axis = self._seed_axis if self._own_scalars else ()
        self._max_steps = MAX_STEPS_PER_DISPATCH
        function, statistics = step.__call__, step.statistics
        if self._vector:
            own_scalars = 0 if self._own_scalars else None
            axes = StepInputs(data=None, indices=0, step=None, key=0)  # pyright: ignore[reportArgumentType]
            function = self._layout.vmap(function, in_axes=(0, axes, own_scalars))
            statistics = self._layout.vmap(statistics, in_axes=(0, axes))
        init = self._layout.vmap(step.init, in_axes=(0,)) if self._vector else step.init
        # A state is returned placed as the next call takes it; the metrics are on every device.
        shapes = jax.eval_shape(step.init, jax.random.key(0))
        placed = self._layout.state_shardings(shapes, *self._seed_axis)
        self._init = jax.jit(init, out_shardings=placed)
        self._statistics = jax.jit(statistics, out_shardings=placed)
        eval_params = (
            self._layout.vmap(step.eval_params, (0,)) if self._vector else step.eval_params
        )
        self._eval_params = jax.jit(eval_params, out_shardings=placed and placed.params)
        self._in_loop = loop
        self._jitted = jax.jit(
            _loop(function) if loop else function,
            donate_argnums=0,
            out_shardings=(placed, self._layout.sharding()),
        )
        key = jax.vmap(jax.random.key) if self._vector else jax.random.key
        self._key = jax.jit(key, out_shardings=self._layout.sharding(*self._seed_axis))
        self._keys = functools.lru_cache(maxsize=8)(self._new_keys)
        self._compiled: list[jax.stages.Compiled] = []  # one or none; shared with copies

    @property
    def compilations(self) -> int:
        """How often it has been compiled: 0 or 1."""
        return len(self._compiled)

    def with_scalars(self, scalars: Scalars) -> "Program":
        """The same compiled program with other scalars of the same names and axes, its data."""
        other = copy.copy(self)
        other._scalars = scalars
        return other

    def init(self, seeds: Sequence[int]) -> TrainState:
        """The state of these seeds before the first step."""
        return self._init(self._keys(seeds))

    def shapes(self, seeds: Sequence[int]) -> TrainState:
        """The shapes and dtypes of that state, which costs nothing."""
        return jax.eval_shape(self._init, self._keys(tuple(seeds)))

    def compile(self, state: TrainState, seeds: Sequence[int]) -> jax.stages.Compiled:
        """Compiles ahead, so that no timed step pays for it; a second call compiles nothing."""
        if not self._compiled:
            self._compiled.append(self.lower(state, seeds).compile())
        return self._compiled[0]

    def lower(self, state: TrainState, seeds: Sequence[int]) -> jax.stages.Lowered:
        """The program traced and lowered, but not compiled: for looking at it."""
        indices = np.zeros((1, self._feed.columns), np.int32)
        arguments = self._loop_arguments if self._in_loop else self._step_arguments
        return self._jitted.lower(
            state, *arguments(seeds, self._feed.abstract, [indices for _ in seeds], 0)
        )

    def advance(
        self, state: TrainState, seeds: Sequence[int], first_step: int, steps: int
    ) -> tuple[TrainState, StepMetrics]:
        """Runs `steps` steps from `first_step` without waiting for them.

        Args:
          state: the state before the first of them; its buffers are donated.
          seeds: the group's seeds.
          first_step: n of the first step.
          steps: how many, at most `MAX_STEPS_PER_DISPATCH`.

        Returns:
          The state after them and their metrics, leaves of shape [>= steps] or [>= steps, seeds].
        """
        advance = self._looped if self._in_loop else self._dispatched
        return advance(self.compile(state, seeds), state, seeds, first_step, steps)

    def evaluated(self, state: TrainState) -> TrainState:
        """The state with the parameters at which it is evaluated: for most optimizers, its own."""
        if not optimizers.evaluated_elsewhere(state.opt_state):
            return state
        return state._replace(params=self._eval_params(state))

    def with_new_statistics(
        self, state: TrainState, seeds: Sequence[int], first_step: int
    ) -> TrainState:
        """The state with its batch-norm statistics estimated anew at its own parameters.

        The batches are those of the next `STATISTICS_PASSES` steps, as training will see them.
        """
        for step in range(first_step, first_step + STATISTICS_PASSES):
            inputs = self._step_inputs(seeds, *self._feed(seeds, step, 1), step)
            state = self._statistics(state, inputs)
        return state

    def _looped(self, compiled, state, seeds, first_step, steps):
        batches = self._feed(seeds, first_step, steps)
        return compiled(state, *self._loop_arguments(seeds, *batches, first_step))

    def _dispatched(self, compiled, state, seeds, first_step, steps):
        history: list[StepMetrics] = []
        for step in range(first_step, first_step + steps):
            arguments = self._step_arguments(seeds, *self._feed(seeds, step, 1), step)
            state, metrics = compiled(state, *arguments)
            if self._feed.streamed and history:
                # The step before: the device never runs dry, and never holds more than two batches.
                jax.block_until_ready(history[-1])
            history.append(metrics)
        return state, jax.tree.map(lambda *leaves: jnp.stack(leaves), *history)

    def _loop_arguments(self, seeds, data, indices, first_step):
        """What the compiled loop takes after the state; the steps are those of `indices`."""
        indices = self._of_seeds(indices)
        steps, put = len(indices), self._layout.put
        missing = self._max_steps - steps  # the loop never reads the padding
        scalars = {k: table[first_step : first_step + steps] for k, table in self._scalars.items()}
        indices, scalars = jax.tree.map(
            lambda table: np.pad(table, [(0, missing)] + [(0, 0)] * (table.ndim - 1)),
            (indices, scalars),
        )
        indices = put(indices, None, *self._seed_axis)
        return (
            StepInputs(data, indices, put(np.int32(first_step)), self._keys(tuple(seeds))),
            put(scalars, None, *self._scalars_axis),
            put(np.int32(steps)),
        )

    def _step_arguments(self, seeds, data, indices, step):
        """What the compiled step takes after the state."""
        scalars = {name: table[step] for name, table in self._scalars.items()}
        scalars = self._layout.put(scalars, *self._scalars_axis)
        return self._step_inputs(seeds, data, indices, step), scalars

    def _step_inputs(self, seeds, data, indices, step) -> StepInputs:
        put = self._layout.put
        indices = put(self._of_seeds(indices)[0], *self._seed_axis)
        return StepInputs(data, indices, put(np.int32(step)), self._keys(tuple(seeds)))

    def _of_seeds(self, indices: list[np.ndarray]) -> np.ndarray:
        """int32 [steps, batch], with several seeds [steps, seeds, batch]."""
        return np.stack(indices, axis=1) if self._vector else indices[0]

    def _new_keys(self, seeds: tuple[int, ...]) -> jax.Array:
        return self._key(np.asarray(seeds if self._vector else seeds[0], np.uint32))


def _loop(function: Callable) -> Callable:
    """`function` repeated a number of times that is an argument, its metrics collected in order."""

    def loop(state, first: StepInputs, scalars, steps):
        """`first` is the first step's inputs, but that `indices` are those of all steps."""

        def arguments(i):
            inputs = first._replace(indices=first.indices[i], step=first.step + i)
            return inputs, jax.tree.map(lambda table: table[i], scalars)

        def body(i, carry):
            state, history = carry
            state, metrics = function(state, *arguments(i))
            history = jax.tree.map(lambda kept, new: kept.at[i].set(new), history, metrics)
            return state, history

        _, shapes = jax.eval_shape(function, state, *arguments(0))
        history = jax.tree.map(
            lambda leaf: jnp.zeros((len(first.indices), *leaf.shape), leaf.dtype), shapes
        )
        return jax.lax.fori_loop(0, steps, body, (state, history))

    return loop
