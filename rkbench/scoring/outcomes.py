"""What one seed of a run came to, computed from its log."""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Mapping

from rkbench.metrics import Record
from rkbench.records import AXES


@dataclasses.dataclass(frozen=True)
class SeedLog:
    """One seed that came to an end, as the log of its run holds it.

    Attributes:
      folder: the run's.
      seed: which.
      diverged: whether its loss or parameters stopped being finite; else it went to its last step.
      lines: its lines of metrics.jsonl, in order.
    """

    folder: pathlib.Path
    seed: int
    diverged: bool
    lines: tuple[Record, ...]

    @functools.cached_property
    def spent(self) -> dict[str, float]:
        """{axis: what the seed spent in all}, the axes being `records.AXES`."""
        return {axis: max((line[axis] for line in self.lines), default=0) for axis in AXES}

    def points(self, metric: str) -> tuple[Record, ...]:
        """The lines that have a finite value of the metric."""
        return tuple(line for line in self.lines if line.get(metric) is not None)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a seed came to, by one metric.

    Attributes:
      folder: its run's.
      seed: which.
      diverged: whether it did.
      best: the best value over all evaluations; NaN where there is none.
      best_step: the first step that has it; None where there is none.
      final: the value at the last step; NaN where it diverged or there is none.
      spent: {axis: what the seed spent in all}, the axes being `records.AXES`.
      to_target: {axis: what it had spent at the first evaluation that reached the target}, infinite
        where none did; {} without a target.
    """

    folder: pathlib.Path
    seed: int
    diverged: bool
    best: float
    best_step: int | None
    final: float
    spent: Mapping[str, float]
    to_target: Mapping[str, float]


def lower_is_better(metric: str) -> bool:
    """Whether a smaller value of the metric is better, as for losses; else a larger one is."""
    return not metric.endswith("accuracy")


def outcome(log: SeedLog, metric: str, target: float | None = None) -> Outcome:
    """Computes a seed's outcome; `target` is in units of the metric."""
    points = log.points(metric)
    sign = -1 if lower_is_better(metric) else 1
    best = max(points, key=lambda line: (sign * line[metric], -line["step"]), default=None)
    last = points[-1] if points and not log.diverged else None
    to_target = {}
    if target is not None:
        reached = [line for line in points if sign * line[metric] >= sign * target]
        to_target = {axis: float(reached[0][axis]) if reached else math.inf for axis in AXES}
    return Outcome(
        log.folder,
        log.seed,
        log.diverged,
        best[metric] if best else math.nan,
        best["step"] if best else None,
        last[metric] if last else math.nan,
        log.spent,
        to_target,
    )
