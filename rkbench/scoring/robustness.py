"""How sensitive a method is to its learning rate, from runs that differ in nothing else."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

from rkbench.scoring.collect import alike, distinct_names, flat
from rkbench.scoring.outcomes import lower_is_better
from rkbench.scoring.scores import Score

TOLERANCE = 0.01  # of the best value
STABLE_GAIN = 0.5  # of what the best rate gains over the start


@dataclasses.dataclass(frozen=True)
class Rate:
    """One learning rate that was tried.

    Attributes:
      value: the learning rate, or DALR's cap c.
      score: of the setting.
      stable: whether no seed diverged and, at a rate above the best, the value keeps half of what
        the best one gains over the value before training: a network that is dead has none of it.
    """

    value: float
    score: Score
    stable: bool


@dataclasses.dataclass(frozen=True)
class Robustness:
    """A method's range of good learning rates on one task.

    Attributes:
      task: see `Setting`.
      method: the optimizer, with the hyperparameters in which the task's families differ.
      field: what was varied, "optimizer.learning_rate" or "optimizer.c".
      metric: by which, and `quantity` ("final" or "best") of it, averaged over the seeds.
      rates: all that were tried, ascending, also the unstable ones.
      best: the rate with the best value among those of which no seed diverged; None: there is none.
      good: the lowest and highest rate around `best` between which every rate that was tried is
        within 1 % of the best value; None without a best.
      decades: log10 of highest over lowest of `good`; 0 where only one rate is good, NaN for none.
      at_edge: whether `good` reaches the lowest or highest rate tried, so that it may be wider.
      largest_stable: the largest rate up to which every rate that was tried is stable; None where
        not even the smallest is.
    """

    task: str
    method: str
    field: str
    metric: str
    quantity: str
    rates: tuple[Rate, ...]
    best: float | None
    good: tuple[float, float] | None
    decades: float
    at_edge: bool
    largest_stable: float | None

    @property
    def best_at(self) -> str:
        """ "smallest" or "largest" where the best is at an end of the rates tried; else ""."""
        if self.best == self.rates[0].value:
            return "smallest"
        return "largest" if self.best == self.rates[-1].value else ""


def rate_field(config: Mapping[str, Any]) -> str | None:
    """The field that scales the steps: the learning rate, or DALR's c; None where there is none."""
    optimizer = config["optimizer"]
    if optimizer.get("learning_rate") is not None:
        return "optimizer.learning_rate"
    return "optimizer.c" if optimizer.get("c") is not None else None


def robustness(
    scores: Iterable[Score], quantity: str = "final", at_least: int = 3
) -> list[Robustness]:
    """One for each family of settings that differ only in the learning rate.

    Families of fewer than `at_least` rates say nothing and are left out, and so is the number of
    steps: it belongs to what must be equal.
    """
    families: dict[str, list[Score]] = {}
    for one in scores:
        if rate_field(one.setting.config):
            families.setdefault(alike(_common(one)), []).append(one)
    wide = [family for family in families.values() if len(family) >= at_least]
    names = distinct_names(
        [f"{family[0].setting.task}\n{family[0].setting.optimizer}" for family in wide],
        [flat(_common(family[0])) for family in wide],
    )
    methods = (name.split("\n", 1)[1] for name in names)
    return [_of_family(*both, quantity) for both in zip(methods, wide, strict=True)]


def _common(score: Score) -> dict[str, Any]:
    """All but the learning rate, with the seeds: a mean over others would not be comparable."""
    setting = score.setting
    config = {**setting.config, "optimizer": dict(setting.config["optimizer"])}
    field = rate_field(config)
    assert field is not None, "the caller asked"
    config["optimizer"][field.removeprefix("optimizer.")] = "varied"
    return {**config, "data": setting.data, "seeds": [log.seed for log in setting.logs]}


def _of_family(method: str, family: list[Score], quantity: str) -> Robustness:
    setting, metric = family[0].setting, family[0].metric
    field = rate_field(setting.config)
    assert field is not None, "a family has one"
    name = field.removeprefix("optimizer.")
    scores = sorted(family, key=lambda one: one.setting.config["optimizer"][name])
    tried = [one.setting.config["optimizer"][name] for one in scores]
    values = [_value(one, quantity) for one in scores]
    place = max(range(len(values)), key=lambda i: values[i])
    stable = _stable(values, place, _start(scores[place]))
    unstable = [i for i, fine in enumerate(stable) if not fine]
    below = (unstable[0] if unstable else len(tried)) - 1
    best, good, decades, at_edge = None, None, math.nan, False
    if math.isfinite(values[place]):
        low, high = _around(values, place)
        best, good = tried[place], (tried[low], tried[high])
        decades = math.log10(good[1] / good[0]) if good[0] > 0 else math.inf
        at_edge = low == 0 or high == len(tried) - 1
    return Robustness(
        task=setting.task,
        method=method,
        field=field,
        metric=metric,
        quantity=quantity,
        rates=tuple(map(Rate, tried, scores, stable)),
        best=best,
        good=good,
        decades=decades,
        at_edge=at_edge,
        largest_stable=tried[below] if below >= 0 else None,
    )


def _value(score: Score, quantity: str) -> float:
    """Larger is better; minus infinity where a seed diverged."""
    if score.diverged or not score.values(quantity):
        return -math.inf
    mean = score.estimate(quantity).mean
    return -mean if lower_is_better(score.metric) else mean


def _start(score: Score) -> float:
    """The mean value before training, larger is better; minus infinity where it is not known."""
    points = [log.points(score.metric) for log in score.setting.logs]
    if not all(own["step"].size and own["step"][0] == 0 for own in points):
        return -math.inf
    mean = sum(float(own[score.metric][0]) for own in points) / len(points)
    return -mean if lower_is_better(score.metric) else mean


def _stable(values: list[float], place: int, start: float) -> list[bool]:
    """Of each rate, in ascending order, the best of which is at `place`; see `Rate`."""
    least = start + STABLE_GAIN * (values[place] - start) if math.isfinite(start) else -math.inf
    return [
        math.isfinite(value) and (i <= place or value >= least) for i, value in enumerate(values)
    ]


def _around(values: list[float], place: int) -> tuple[int, int]:
    """The first and last index of the unbroken stretch around `place` that is within 1 %."""
    worst = values[place] - TOLERANCE * abs(values[place])
    low = high = place
    while low > 0 and values[low - 1] >= worst:
        low -= 1
    while high < len(values) - 1 and values[high + 1] >= worst:
        high += 1
    return low, high
