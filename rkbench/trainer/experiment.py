"""A config made ready: workload, optimizer, schedule and sizes, checked before all else."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rkbench import errors, optimizers, workloads
from rkbench.configs import default
from rkbench.configs.common import with_real_numbers
from rkbench.optimizers import budget
from rkbench.step import compilation, sharding
from rkbench.step.feed import Feed, open_feed
from rkbench.step.program import Program, Scalars
from rkbench.step.train_step import StepFunction
from rkbench.trainer import config_checks, schedules
from rkbench.trainer.evaluate import Evaluator, Split, StreamedSplit, split
from rkbench.workloads.batches import FULL, resolve_batch_size


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What a config stands for.

    Attributes:
      config: the locked config.
      workload: dataset, model and loss.
      batch_size: examples a step, resolved.
      scalars: of every step what the optimizer is given as data, by keyword, as `Program` takes it:
        the learning rate, and others that trials of a sweep differ in.
      loop: whether steps, stages and evaluation batches run in compiled loops.
      seed_groups: seeds that train together.
      layout: how they and the examples of a batch are spread over devices.
    """

    config: Any
    workload: Any
    batch_size: int
    scalars: Scalars
    loop: bool
    seed_groups: tuple[tuple[int, ...], ...]
    layout: sharding.Layout

    @classmethod
    def from_config(
        cls,
        config,
        dataset=None,
        like: "Experiment | None" = None,
        traced: Sequence[str] = (),
    ) -> "Experiment":
        """Builds and checks everything.

        Args:
          config: see `configs/default.py`.
          dataset: takes the place of the workload's own.
          like: an experiment whose data and compiled programs serve this one too, where the two
            differ in nothing but traced numbers, schedule, steps and seeds; without effect else.
          traced: keywords of the optimizer that are data to the compiled program, beside the
            learning rate. A zero is not: it can mean that a part is not there.

        Raises:
          UserError: a value that cannot work, with the valid ones.
        """
        compilation.check_compiles()
        config_checks.check(config)
        config = with_real_numbers(config)
        layout = sharding.layout(config.mesh)
        compilation.vectorized_seeds(config.vectorize_seeds, False, layout.seeds)
        compilation.compiled_loops(config.compiled_loops, convolves=False)
        rates = learning_rates(config)
        check_optimizer(config.optimizer, rates)
        scalars = {"learning_rate": rates} | {
            name: np.full(config.total_steps, config.optimizer[name], np.float32)
            for name in traced
            if config.optimizer[name]
        }
        shared = like is not None and dataset is None and _same_program(config, scalars, like)
        workload = (
            like.workload
            if like and shared
            else workloads.create(config, dataset, layout.batch_axes)
        )
        seeds, streamed = tuple(config.seeds), not isinstance(workload.train, dict)
        vectorize = compilation.vectorized_seeds(config.vectorize_seeds, streamed, layout.seeds)
        if len(seeds) % layout.seeds:
            raise errors.UserError(
                f"mesh.seed={layout.seeds} does not divide the {len(seeds)} seeds {seeds}"
            )
        batch_size = _checked_batch_size(
            config.batch_size, workload.provenance["train_examples"], streamed
        )
        _check_chunk(config.physical_batch_size, batch_size, streamed, layout)
        experiment = cls(
            config,
            workload,
            batch_size,
            scalars,
            compilation.compiled_loops(config.compiled_loops, workload.convolves),
            (seeds,) if vectorize else tuple((seed,) for seed in seeds),
            layout,
        )
        if like and shared and len(experiment.seed_groups[0]) == len(like.seed_groups[0]):
            experiment._take_programs_of(like)
        return experiment

    def _take_programs_of(self, other: "Experiment") -> None:
        """Fills the cached properties with the other's."""
        program = other.program.with_scalars(self.scalars)
        self.__dict__.update(feed=other.feed, program=program, evaluator=other.evaluator)
        if self.config.eval_test == other.config.eval_test:
            self.__dict__["splits"] = other.splits

    def of_group(self, seeds: tuple[int, ...]) -> "Experiment":
        """The same experiment for a group of these seeds: a program serves groups of one size.

        Raises:
          UserError: they cannot be spread over the devices as `mesh.seed` says.
        """
        if len(seeds) == len(self.seed_groups[0]):
            return self
        if len(seeds) % self.layout.seeds:
            raise errors.UserError(
                f"mesh.seed={self.layout.seeds} does not divide the {len(seeds)} seeds {seeds} "
                "that are left to train; valid with any number: 1"
            )
        other = dataclasses.replace(self, seed_groups=(seeds,))
        other.__dict__.update(step=self.step, feed=self.feed, splits=self.splits)
        return other

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
            streamed=not isinstance(self.workload.train, dict),
            layout=self.layout,
        )

    @property
    def chunk(self) -> int:
        """Examples whose activations are in memory at once; 0 for the whole batch."""
        chunk = self.config.physical_batch_size
        return chunk if chunk < self.batch_size else 0

    @functools.cached_property
    def feed(self) -> Feed:
        """The training examples."""
        return open_feed(self.workload.train, self.batch_size, self.chunk, self.layout)

    @functools.cached_property
    def program(self) -> Program:
        """The compiled training program; every group of seeds uses the same."""
        loop = self.loop and not self.feed.streamed
        return Program(self.step, self.feed, self.scalars, len(self.seed_groups[0]), loop)

    @functools.cached_property
    def evaluator(self) -> Evaluator:
        """The compiled evaluation."""
        return Evaluator(self.workload, self.loop, len(self.seed_groups[0]), self.layout)

    @functools.cached_property
    def splits(self) -> dict[str, Split | StreamedSplit]:
        """What is evaluated: the first `train_eval_size` training examples, all of the others."""
        workload, provenance = self.workload, self.workload.provenance
        evaluated = {"train": (workload.train, self.config.train_eval_size)}
        if workload.validation is not None:
            evaluated["validation"] = workload.validation, provenance["validation_examples"]
        if self.config.eval_test:
            evaluated["test"] = workload.test, provenance["test_examples"]
        how = self.config.eval_batch_size, self.layout
        return {name: split(*part, *how) for name, part in evaluated.items()}


def side_by_side(experiments: Sequence[Experiment]) -> Experiment:
    """Two or more experiments as one: a single group of all their seeds, each with its scalars.

    Raises:
      ValueError: they do not have one program, number of steps and evaluation in common.
    """
    first = experiments[0]
    for other in experiments[1:]:
        events = [(e.config.total_steps, e.config.eval_every_steps) for e in (first, other)]
        if events[0] != events[1] or not _same_program(other.config, other.scalars, first):
            raise ValueError("experiments of unlike programs cannot train side by side")
    lanes = [(one, seed) for one in experiments for seed in one.config.seeds]
    scalars = {
        name: np.stack([one.scalars[name] for one, _ in lanes], axis=1) for name in first.scalars
    }
    seeds = tuple(seed for _, seed in lanes)
    together = dataclasses.replace(first, scalars=scalars, seed_groups=(seeds,))
    together.__dict__.update(feed=first.feed, splits=first.splits)
    return together


def _same_program(config, scalars: Scalars, other: Experiment) -> bool:
    """Whether one compilation serves both."""
    unseen = default.names(compiled=False)
    one, two = (
        {name: value for name, value in c.to_dict().items() if name not in unseen}
        for c in (config, other.config)
    )
    for name in scalars:  # of a number only its existence is compiled
        for side in (one, two):
            side["optimizer"][name] = side["optimizer"].get(name) is None
    return scalars.keys() == other.scalars.keys() and one == two


def make_optimizer(
    config,
    learning_rate,
    unroll_stages: bool = False,
    clip_norm: float | None = None,
    stage_clip_norm: float | None = None,
    max_grad_evals: int = 0,
    **instead: Any,
):
    """The optimizer of the config's `optimizer` with the given learning rate (or none).

    It ends within `max_grad_evals` gradient evaluations; 0 for no such end.
    Keywords of the optimizer given here take the place of the config's.
    """
    keywords = config.to_dict() | instead
    name, peak = keywords.pop("name"), keywords.pop("learning_rate")
    optimizer = optimizers.create(
        name,
        None if peak is None else learning_rate,
        unroll_stages=unroll_stages or None,  # None: the core's own choice
        clip_norm=clip_norm,
        stage_clip_norm=stage_clip_norm,
        **keywords,
    )
    return budget.within_budget(optimizer, max_grad_evals) if max_grad_evals else optimizer


def check_optimizer(config, learning_rates: np.ndarray) -> None:
    """Raises a UserError for an unknown optimizer, keyword or value."""
    make_optimizer(config, float(learning_rates.max()))


def learning_rates(config) -> np.ndarray:
    """The learning rate of every step, float32 [total_steps]; 0 where the optimizer has none.

    Raises a UserError for a schedule that cannot work.
    """
    if config.optimizer.learning_rate is None:
        if config.schedule.name != "constant":
            raise errors.UserError(
                f"schedule.name={config.schedule.name!r} has no effect: optimizer "
                f"{config.optimizer.name!r} sets its own step size; valid here: 'constant'"
            )
        return np.zeros(config.total_steps, np.float32)
    return schedules.tabulate(config.schedule, config.optimizer.learning_rate, config.total_steps)


def _check_chunk(chunk: int, batch_size: int, streamed: bool, layout: sharding.Layout) -> None:
    """Every device gets an equal share of every chunk, and a streamed batch fills its chunks."""
    if not 0 < chunk < batch_size:
        sharding.check_divides("batch_size", batch_size, layout)
        return
    sharding.check_divides("physical_batch_size", chunk, layout)
    if streamed and batch_size % chunk:
        raise errors.UserError(
            f"physical_batch_size={chunk} does not divide batch_size={batch_size}, "
            "as it must where data is streamed"
        )


def _checked_batch_size(batch_size: int | str, examples: int, streamed: bool) -> int:
    if batch_size == FULL and streamed:
        raise errors.UserError("batch_size='full' needs a dataset in memory; this one is streamed")
    size = resolve_batch_size(batch_size, examples)
    if not 1 <= size <= examples:
        raise errors.UserError(
            f"batch_size={batch_size} must lie between 1 and the {examples} training examples "
            "(or be 'full')"
        )
    return size
