"""A config made ready: workload, optimizer, schedule and sizes, checked before all else."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from rkbench import errors, workloads
from rkbench.configs.common import with_real_numbers
from rkbench.step import compilation, sharding
from rkbench.step.program import Program, Scalars
from rkbench.trainer import config_checks
from rkbench.trainer.evaluate import Evaluator, Split, StreamedSplit
from rkbench.trainer.optimizer import check_optimizer, learning_rates
from rkbench.trainer.programs import Programs
from rkbench.workloads import datasets


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What a config stands for.

    Attributes:
      config: the locked config.
      programs: workload, data and compiled programs, which several experiments can share.
      scalars: what the optimizer is given at every step as data, by keyword, as `Program` takes it:
        the learning rate, and other numbers in which trials of a sweep differ.
      seed_groups: seeds that train together.
    """

    config: Any
    programs: Programs
    scalars: Scalars
    seed_groups: tuple[tuple[int, ...], ...]

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
          like: an experiment whose programs are taken if they serve this one too, as they do where
            the two differ only in traced numbers, schedule, steps and seeds.
          traced: keywords of the optimizer that are data to the compiled program, beside the
            learning rate. A zero is not: it can mean that a part is not there.

        Raises:
          UserError: a value that cannot work, with the valid ones.
        """
        compilation.check_compiles()
        config_checks.check(config)
        config = with_real_numbers(config)
        layout = sharding.layout(config.mesh)
        # What the data decides is checked again when it is loaded, which can take a while.
        compilation.vectorized_seeds(config.vectorize_seeds, False, layout.seeds)
        compilation.compiled_loops(config.compiled_loops, convolves=False)
        rates = learning_rates(config)
        check_optimizer(config.optimizer, rates)
        scalars = {"learning_rate": rates} | {
            name: np.full(config.total_steps, config.optimizer[name], np.float32)
            for name in traced
            if config.optimizer[name]
        }
        if like is not None and dataset is None and like.programs.serve(config, scalars):
            programs = like.programs
        else:
            programs = Programs.of_config(config, scalars, dataset, layout)
        return cls(config, programs, scalars, _seed_groups(config, programs))

    @classmethod
    def with_synthetic_data(cls, config: Any, examples: int) -> "Experiment":
        """The experiment of a config on so many images of noise: for costs, not for results.

        RandAugment, which the host applies to a stream, is left out. `config` stays as it is.
        """
        config = config.copy_and_resolve_references()
        config.augment.rand_augment_layers = 0
        dataset = datasets.synthetic(workloads.dataset_name(config.workload), examples)
        return cls.from_config(config.lock(), dataset)

    @property
    def workload(self) -> Any:
        """Dataset, model and loss."""
        return self.programs.workload

    @functools.cached_property
    def program(self) -> Program:
        """The compiled training program; every group of seeds uses the same."""
        return self.programs.training(len(self.seed_groups[0]), self.scalars)

    @property
    def evaluator(self) -> Evaluator:
        """The compiled evaluation."""
        return self.programs.evaluation(len(self.seed_groups[0]))

    @property
    def splits(self) -> dict[str, Split | StreamedSplit]:
        """What is evaluated, by name."""
        return self.programs.splits(self.config.eval_test)

    def of_group(self, seeds: tuple[int, ...]) -> "Experiment":
        """The same experiment for a group of these seeds alone.

        Raises:
          UserError: they cannot be spread over the devices as `mesh.seed` says.
        """
        devices = self.programs.layout.seeds
        if len(seeds) % devices:
            raise errors.UserError(
                f"mesh.seed={devices} does not divide the {len(seeds)} seeds {seeds} "
                "that are left to train; valid with any number: 1"
            )
        return dataclasses.replace(self, seed_groups=(seeds,))


def side_by_side(experiments: Sequence[Experiment]) -> Experiment:
    """Two or more experiments as one: a single group of all their seeds, each with its scalars.

    Raises:
      ValueError: they do not have one program, number of steps and evaluation in common.
    """
    first = experiments[0]
    for other in experiments[1:]:
        events = [(e.config.total_steps, e.config.eval_every_steps) for e in (first, other)]
        if events[0] != events[1] or not first.programs.serve(other.config, other.scalars):
            raise ValueError("experiments of unlike programs cannot train side by side")
    lanes = [(one, seed) for one in experiments for seed in one.config.seeds]
    scalars = {
        name: np.stack([one.scalars[name] for one, _ in lanes], axis=1) for name in first.scalars
    }
    seeds = tuple(seed for _, seed in lanes)
    return dataclasses.replace(first, scalars=scalars, seed_groups=(seeds,))


def _seed_groups(config: Any, programs: Programs) -> tuple[tuple[int, ...], ...]:
    """All seeds together, or each alone."""
    seeds, devices = tuple(config.seeds), programs.layout.seeds
    together = compilation.vectorized_seeds(config.vectorize_seeds, programs.streamed, devices)
    if len(seeds) % devices:
        raise errors.UserError(
            f"mesh.seed={devices} does not divide the {len(seeds)} seeds {seeds}"
        )
    return (seeds,) if together else tuple((seed,) for seed in seeds)
