"""What one seed of a run came to, computed from its log."""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Mapping

import numpy as np

from rkbench.records import AXES
from rkbench.records.logs import Columns


@dataclasses.dataclass(frozen=True)
class SeedLog:
    """One seed that came to an end, as the log of its run holds it.

    Attributes:
      folder: the run's.
      seed: which.
      diverged: whether its loss or parameters stopped being finite; else it went to its last step.
      columns: its lines of metrics.jsonl, in order.
    """

    folder: pathlib.Path
    seed: int
    diverged: bool
    columns: Columns

    @functools.cached_property
    def spent(self) -> dict[str, float]:
        """{axis: what the seed spent in all}, the axes being `records.AXES`."""
        if not self.columns:
            return dict.fromkeys(AXES, 0.0)
        return {axis: float(self.columns[axis].max()) for axis in AXES}

    def has(self, metric: str) -> bool:
        """Whether a line has a finite value of the metric."""
        return metric in self.columns and bool(np.isfinite(self.columns[metric]).any())

    def points(self, metric: str) -> dict[str, np.ndarray]:
        """{axis or metric: float64 [points]} of the lines with a finite value of the metric."""
        missing = np.empty(0)
        column = self.columns.get(metric, missing)
        finite = np.isfinite(column)
        return {name: self.columns.get(name, missing)[finite] for name in (*AXES, metric)}

    def last(self, metric: str) -> float:
        """The value in the last line that has one; NaN where it is not finite or there is none."""
        column = self.columns.get(metric, np.empty(0))
        values = column[~np.isnan(column)]
        return float(values[-1]) if values.size and math.isfinite(values[-1]) else math.nan


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
    values = (-1 if lower_is_better(metric) else 1) * points[metric]
    place = int(values.argmax()) if values.size else None
    to_target = {}
    if target is not None:
        reached = values >= (-target if lower_is_better(metric) else target)
        first = int(reached.argmax()) if reached.any() else None
        to_target = {
            axis: math.inf if first is None else float(points[axis][first]) for axis in AXES
        }
    return Outcome(
        log.folder,
        log.seed,
        log.diverged,
        math.nan if place is None else float(points[metric][place]),
        None if place is None else int(points["step"][place]),
        math.nan if log.diverged else log.last(metric),
        log.spent,
        to_target,
    )
