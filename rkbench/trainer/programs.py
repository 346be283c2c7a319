"""What experiments share: a workload, its data on the devices, and the programs compiled for it."""

import dataclasses
import functools
from collections.abc import Callable, Collection, Hashable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from rkbench import errors, workloads
from rkbench.configs import default
from rkbench.step import compilation, sharding
from rkbench.step.feed import Feed, open_feed
from rkbench.step.program import Program, Scalars
from rkbench.step.train_step import StepFunction
from rkbench.trainer import config_checks
from rkbench.trainer.evaluate import Evaluator, Split, StreamedSplit, split
from rkbench.trainer.optimizer import make_optimizer

Made = TypeVar("Made")


@dataclasses.dataclass(frozen=True, eq=False)
class Programs:
    """The programs of all experiments whose configs differ only in what a program takes as data.

    Each is made when it is first asked for, and once: one for each number of seeds that train
    together, and one more where each of those seeds has learning rates of its own.

    Attributes:
      config: that of the first experiment.
      traced: the keywords of the optimizer that are data to the programs, the learning rate among
        them.
      workload: dataset, model and loss.
      batch_size: examples a step, resolved.
      loop: whether steps, stages and evaluation batches run in compiled loops.
      layout: how seeds and the examples of a batch are spread over devices.
    """

    config: Any
    traced: frozenset[str]
    workload: Any
    batch_size: int
    loop: bool
    layout: sharding.Layout
    _made: dict[Hashable, Any] = dataclasses.field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of_config(
        cls, config: Any, traced: Collection[str], dataset: Any, layout: sharding.Layout
    ) -> "Programs":
        """Loads the data and compiles nothing yet; `dataset` takes the place of the workload's own.

        Raises:
          UserError: the batch or its chunks do not fit the data or the devices.
        """
        workload = workloads.create(config, dataset, layout.batch_axes)
        streamed = not isinstance(workload.train, dict)
        batch_size = config_checks.resolved_batch_size(
            config.batch_size, workload.provenance["train_examples"], streamed
        )
        config_checks.check_chunk(config.physical_batch_size, batch_size, streamed, layout)
        loop = compilation.compiled_loops(config.compiled_loops, workload.convolves)
        return cls(config, frozenset(traced), workload, batch_size, loop, layout)

    def serve(self, config: Any, traced: Collection[str]) -> bool:
        """Whether they serve a config too, of whose optimizer the keywords `traced` are data."""
        unseen = default.names(compiled=False)
        one, two = (
            {name: value for name, value in c.to_dict().items() if name not in unseen}
            for c in (config, self.config)
        )
        for name in traced:  # of a number only its existence is compiled
            for side in (one, two):
                side["optimizer"][name] = side["optimizer"].get(name) is None
        return self.traced == set(traced) and one == two

    def check(self) -> None:
        """Traces the model's and the optimizer's part of a step, by shapes alone.

        Raises:
          UserError: they cannot be built as the config says.
        """
        try:
            state = jax.eval_shape(self.step.init, jax.random.key(0))
            jax.eval_shape(self._update, state.params, state.opt_state)
        except errors.UserError:
            raise
        except Exception as error:  # Flax, optax and JAX raise what they like
            reason = (str(error).splitlines() or [""])[0]
            name = self.config.optimizer.name
            raise errors.UserError(
                f"{self.config.workload} with {name} cannot be built with these settings: "
                f"{type(error).__name__}: {reason}"
            ) from error

    def _update(self, params: Any, opt_state: Any) -> Any:
        """One step of the optimizer, where parameters stand for their gradient."""
        optimizer = self.step.optimizer(learning_rate=jnp.float32(0))
        return optimizer.update(
            params,
            opt_state,
            params,
            grad_fn=lambda params: params,
            value_fn=lambda params: jnp.float32(0),
            value=jnp.float32(0),
            grad=params,
        )

    @property
    def streamed(self) -> bool:
        """Whether the training examples come from the host, batch by batch."""
        return not isinstance(self.workload.train, dict)

    @property
    def chunk(self) -> int:
        """Examples whose activations are in memory at once; 0 for the whole batch."""
        chunk = self.config.physical_batch_size
        return chunk if chunk < self.batch_size else 0

    @functools.cached_property
    def step(self) -> StepFunction:
        """The step function."""
        config = self.config
        clip_norm = config.grad_clip_norm or None
        last_stage = config.batch_norm_update == "last_stage"
        return StepFunction(
            self.workload,
            functools.partial(
                make_optimizer,
                config.optimizer,
                unroll_stages=last_stage or not self.loop,
                clip_norm=None if config.grad_clip_stages else clip_norm,
                stage_clip_norm=clip_norm if config.grad_clip_stages else None,
                max_grad_evals=config.max_grad_evals,
            ),
            self.batch_size,
            self.chunk,
            last_stage_state=last_stage,
            streamed=self.streamed,
            layout=self.layout,
        )

    @functools.cached_property
    def feed(self) -> Feed:
        """The training examples."""
        return open_feed(self.workload.train, self.batch_size, self.chunk, self.layout)

    def training(self, seeds: int, scalars: Scalars) -> Program:
        """The program that trains `seeds` seeds at once, with these scalars as its data."""
        program = self._once(
            ("training", seeds, scalars["learning_rate"].ndim),
            lambda: Program(self.step, self.feed, scalars, seeds, self.loop and not self.streamed),
        )
        return program.with_scalars(scalars)

    def evaluation(self, seeds: int) -> Evaluator:
        """The program that evaluates `seeds` seeds at once."""
        return self._once(
            ("evaluation", seeds), lambda: Evaluator(self.workload, self.loop, seeds, self.layout)
        )

    def splits(self, test: bool) -> dict[str, Split | StreamedSplit]:
        """What is evaluated: the first `train_eval_size` training examples, all of the others.

        The test set is among them only if `test`.
        """
        workload, provenance = self.workload, self.workload.provenance
        evaluated = {"train": (workload.train, self.config.train_eval_size)}
        if workload.validation is not None:
            evaluated["validation"] = workload.validation, provenance["validation_examples"]
        if test:
            evaluated["test"] = workload.test, provenance["test_examples"]
        how = self.config.eval_batch_size, self.layout
        return {
            name: self._once(("split", name), functools.partial(split, *part, *how))
            for name, part in evaluated.items()
        }

    @property
    def compilations(self) -> int:
        """Training programs compiled so far."""
        return sum(one.compilations for one in self._made.values() if isinstance(one, Program))

    def _once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]
