"""Which setting stands for an optimizer, and what it has to reach: for profiles and speed-ups."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

from rkbench.records import AXES
from rkbench.scoring import Profile, Score, lower_is_better, profile, score, times
from rkbench.scoring.collect import Collection

# What is shown where no metric is named: the first of these that is there.
FIRST = ("test/accuracy", "validation/accuracy", "train/accuracy", "test/loss", "train/loss")
TOLERANCE = 0.01  # of the best value: how far from it the target lies


def first_metric(collection: Collection) -> str:
    """The metric of `FIRST` that is shown; the first of all where none is there."""
    logs = [log for setting in collection.settings for log in setting.logs]
    return next((m for m in FIRST if any(log.has(m) for log in logs)), FIRST[0])


def contenders(scores: Iterable[Score]) -> list[Score]:
    """One score for each task and optimizer, named by the optimizer alone.

    It is that of the setting with the most seeds, which are those of a rerun where there was one,
    and of these the one with the best final mean.
    """
    best: dict[tuple[str, str], Score] = {}
    for one in scores:
        key = one.setting.task, one.setting.optimizer
        if key not in best or _rank(one) > _rank(best[key]):
            best[key] = one
    return [
        dataclasses.replace(one, setting=dataclasses.replace(one.setting, method=optimizer))
        for (_, optimizer), one in best.items()
    ]


def _rank(one: Score) -> tuple[int, float]:
    mean = one.final.mean
    sign = -1 if lower_is_better(one.metric) else 1
    return len(one.setting.logs), sign * mean if math.isfinite(mean) else -math.inf


def targets(scores: Sequence[Score]) -> dict[str, float]:
    """{task: what is within 1 % of the best final mean}, without tasks that nobody finished."""
    found = {}
    for task in dict.fromkeys(one.setting.task for one in scores):
        own = [one for one in _on_task(task, scores) if one.final.n]
        if own:
            lower = lower_is_better(own[0].metric)
            best = (min if lower else max)(one.final.mean for one in own)
            found[task] = best + TOLERANCE * abs(best) * (1 if lower else -1)
    return found


def _on_task(task: str, scores: Iterable[Score]) -> list[Score]:
    return [one for one in scores if one.setting.task == task]


@dataclasses.dataclass(frozen=True)
class Profiles:
    """Performance profiles of the contenders.

    Attributes:
      metric: by which.
      targets: {task: what had to be reached}.
      contenders: those that took part.
      by_axis: {axis: {optimizer: profile}}, the axes being `records.AXES`.
    """

    metric: str
    targets: Mapping[str, float]
    contenders: tuple[Score, ...]
    by_axis: Mapping[str, Mapping[str, Profile]]


def profiles(scores: Sequence[Score], goals: Mapping[str, float] | float | None = None) -> Profiles:
    """The profiles of the contenders among the scores, which are of one metric.

    By the times to `goals`, or to `targets` where none are given. A task on which only one
    optimizer was run says nothing and is left out.

    Raises:
      UserError: a goal is for a task that is not there.
    """
    own = contenders(scores)
    metric = own[0].metric
    narrowed = Collection(tuple(one.setting for one in own), ())
    goals = targets(own) if goals is None else goals
    found = [s for s in contenders(score(narrowed, metric, goals)) if s.target is not None]
    taking_part = [one for one in found if len(_on_task(one.setting.task, found)) > 1]
    by_axis = {axis: profile(times(taking_part, axis)) for axis in AXES}
    reached = {one.setting.task: one.target for one in taking_part if one.target is not None}
    return Profiles(metric, reached, tuple(taking_part), by_axis)
