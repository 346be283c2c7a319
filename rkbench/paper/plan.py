"""What a table or figure needs at a scale, and which of its runs are still to be trained."""

import dataclasses
import pathlib
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from rkbench import errors
from rkbench.paper.runs import TIMING, PaperRun
from rkbench.paper.scales import SCALES, Size
from rkbench.records import Run


@dataclasses.dataclass(frozen=True)
class Job:
    """A run at a scale, with the seeds that its record does not have yet."""

    run: PaperRun
    size: Size
    seeds: tuple[int, ...]  # all that are wanted
    missing: tuple[int, ...]

    def config(self) -> Any:
        """Of the seeds that are missing."""
        return self.run.get_config(self.size.settings, self.missing)

    def arguments(self) -> list[str]:
        """The arguments of `rkbench train` that train the same by itself, without a workdir."""
        overrides = {**self.size.settings, "seeds": self.missing}
        return [
            f"--config=configs/{self.run.config}.py:{self.run.variant}",
            *(f"--config.{name}={value}" for name, value in overrides.items()),
        ]

    def command(self, workdir: pathlib.Path) -> str:
        """The same as a command line for a shell."""
        config, *overrides = self.arguments()
        return shlex.join(["rkbench", "train", config, f"--workdir={workdir}", *overrides])


@dataclasses.dataclass(frozen=True)
class Places:
    """Where runs are trained and where what they found is kept.

    Attributes:
      results: the folder with the table and the figures; records lie in `results/records`.
      runs: the folder for workdirs.
      scale: a key of `SCALES`.
    """

    results: pathlib.Path
    runs: pathlib.Path
    scale: str

    def record(self, run: PaperRun) -> pathlib.Path:
        """The folder of a run's record."""
        return self.results / "records" / self.scale / run.name

    def workdir(self, run: PaperRun) -> pathlib.Path:
        """The folder in which a run is trained."""
        return self.runs / self.scale / run.name

    def records(self, runs: Iterable[PaperRun]) -> dict[str, Run]:
        """The records that exist, by the runs' names."""
        return {
            run.name: Run(self.record(run))
            for run in runs
            if (self.record(run) / "run.json").is_file()
        }


def left_out(places: Places, runs: Iterable[PaperRun]) -> list[str]:
    """A line for each seed of the runs that no number contains, with the reason."""
    return [
        f"{run.folder}: seed {seed}: {why}"
        for run in places.records(runs).values()
        for seed, why in run.faults.items()
    ]


def jobs(
    runs: Iterable[PaperRun], places: Places, seeds: tuple[int, ...] | None = None
) -> list[Job]:
    """The runs as jobs, in order and once each; without those that the scale leaves out.

    Args:
      runs: what is wanted.
      places: where records lie.
      seeds: instead of the scale's.
    """
    planned = []
    for run in dict.fromkeys(runs):
        size = SCALES[places.scale][run.kind]
        if size.runs:
            wanted = seeds or size.seeds
            known = _seeds(places.records([run]).get(run.name))
            missing = tuple(seed for seed in wanted if seed not in known)
            planned.append(Job(run, size, wanted, missing))
    return planned


def timing_group(run: PaperRun) -> tuple[PaperRun, ...] | None:
    """The runs that are timed in turns with this one; None where it is trained by itself."""
    return next((group for group in TIMING.values() if run in group), None)


def select(jobs: list[Job], only: Sequence[str]) -> list[Job]:
    """The jobs whose name contains one of the words of `only`; () selects all.

    Raises UserError where a word is in no name.
    """
    for word in only:
        if not word or not any(job.run.is_one_of([word]) for job in jobs):
            raise errors.unknown("run", word, [job.run.name for job in jobs])
    return [job for job in jobs if not only or job.run.is_one_of(only)]


def _seeds(run: Run | None) -> set[int]:
    return {entry["seed"] for entry in run.record["seeds"]} if run else set()
