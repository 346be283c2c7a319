"""A config made ready: workload, optimizer, schedule and sizes, checked before all else."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import workloads
from rkbench import compilation, config_checks, errors, optimizers, schedules
from rkbench.batches import FULL, resolve_batch_size
from rkbench.evaluate import Evaluator, Split, StreamedSplit, split
from rkbench.feed import Feed, open_feed
from rkbench.train_step import Program, StepFunction


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What a config stands for.

    Attributes:
      config: the locked config.
      workload: dataset, model and loss.
      batch_size: examples a step, resolved.
      learning_rates: float32 [total_steps].
      loop: whether steps, stages and evaluation batches run in compiled loops.
      seed_groups: seeds that train together.
    """

    config: Any
    workload: Any
    batch_size: int
    learning_rates: np.ndarray
    loop: bool
    seed_groups: tuple[tuple[int, ...], ...]

    @classmethod
    def from_config(cls, config, dataset=None, like: "Experiment | None" = None) -> "Experiment":
        """Builds and checks everything.

        Args:
          config: see `configs/default.py`.
          dataset: takes the place of the workload's own.
          like: an experiment whose data and compiled programs serve this one too, where the two
            differ in nothing but learning rate, schedule, steps and seeds; without effect else.

        Raises:
          UserError: a value that cannot work, with the valid ones.
        """
        config_checks.check(config)
        compilation.vectorized_seeds(config.vectorize_seeds, streamed=False)
        compilation.compiled_loops(config.compiled_loops, convolves=False)
        rates = _learning_rates(config)
        check_optimizer(config.optimizer, rates)
        shared = like is not None and dataset is None and _same_program(config, like.config)
        workload = like.workload if like and shared else workloads.create(config, dataset)
        seeds, streamed = tuple(config.seeds), not isinstance(workload.train, dict)
        vectorize = compilation.vectorized_seeds(config.vectorize_seeds, streamed)
        experiment = cls(
            config,
            workload,
            _checked_batch_size(config.batch_size, workload.provenance["train_examples"], streamed),
            rates,
            compilation.compiled_loops(config.compiled_loops, workload.convolves),
            (seeds,) if vectorize else tuple((seed,) for seed in seeds),
        )
        if like and shared and len(experiment.seed_groups[0]) == len(like.seed_groups[0]):
            experiment._take_programs_of(like)
        return experiment

    def _take_programs_of(self, other: "Experiment") -> None:
        """Fills the cached properties with the other's."""
        program = other.program.with_learning_rates(self.learning_rates)
        self.__dict__.update(
            feed=other.feed, program=program, evaluator=other.evaluator, splits=other.splits
        )

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
        optimizer = self.step.optimizer(jnp.float32(0))
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
            ),
            self.batch_size,
            config.physical_batch_size,
            stage_clip_norm=clip_norm if config.grad_clip_stages else None,
            last_stage_state=last_stage,
        )

    @functools.cached_property
    def feed(self) -> Feed:
        """The training examples."""
        return open_feed(self.workload.train, self.batch_size)

    @functools.cached_property
    def program(self) -> Program:
        """The compiled training program; every group of seeds uses the same."""
        loop = self.loop and not self.feed.streamed
        return Program(self.step, self.feed, self.learning_rates, len(self.seed_groups[0]), loop)

    @functools.cached_property
    def evaluator(self) -> Evaluator:
        """The compiled evaluation."""
        return Evaluator(self.workload, self.loop, len(self.seed_groups[0]))

    @functools.cached_property
    def splits(self) -> dict[str, Split | StreamedSplit]:
        """What is evaluated: the first `train_eval_size` training examples and the test set."""
        workload, batch_size = self.workload, self.config.eval_batch_size
        return {
            "train": split(workload.train, self.config.train_eval_size, batch_size),
            "test": split(workload.test, workload.provenance["test_examples"], batch_size),
        }


# What compiled programs take as data, or do not see.
_NOT_COMPILED = (
    *("seeds", "schedule", "total_steps", "tensorboard"),
    *("eval_every_steps", "checkpoint_every_steps", "log_every_steps"),
)


def _same_program(config, other) -> bool:
    """Whether one compilation serves both configs."""
    one, two = (
        {name: value for name, value in c.to_dict().items() if name not in _NOT_COMPILED}
        for c in (config, other)
    )
    rates = [side["optimizer"].pop("learning_rate") is None for side in (one, two)]
    return rates[0] == rates[1] and one == two


def make_optimizer(
    config, learning_rate, unroll_stages: bool = False, clip_norm: float | None = None
):
    """The optimizer of the config's `optimizer` with the given learning rate (or none)."""
    keywords = config.to_dict()
    name, peak = keywords.pop("name"), keywords.pop("learning_rate")
    return optimizers.create(
        name,
        None if peak is None else learning_rate,
        unroll_stages=unroll_stages or None,  # None: the core's own choice
        clip_norm=clip_norm,
        **keywords,
    )


def check_optimizer(config, learning_rates: np.ndarray) -> None:
    """Raises a UserError for an unknown optimizer, keyword or value."""
    make_optimizer(config, float(learning_rates.max()))


def _learning_rates(config) -> np.ndarray:
    if config.optimizer.learning_rate is None:
        if config.schedule.name != "constant":
            raise errors.UserError(
                f"schedule.name={config.schedule.name!r} has no effect: optimizer "
                f"{config.optimizer.name!r} sets its own step size; valid here: 'constant'"
            )
        return np.zeros(config.total_steps, np.float32)
    return schedules.tabulate(config.schedule, config.optimizer.learning_rate, config.total_steps)


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
