"""Settings scored by one metric: estimates over seeds, times to a target, and differences."""

import dataclasses
import math
from collections.abc import Iterable, Mapping

import numpy as np

from rkbench.errors import UserError, unknown
from rkbench.records import AXES
from rkbench.scoring.collect import Collection, Setting, with_methods
from rkbench.scoring.outcomes import Outcome, outcome
from rkbench.statistics import Difference, Estimate, estimate, paired, welch

QUANTITIES = ("final", "best")
MOST_NAMED = 5  # runs in a line


@dataclasses.dataclass(frozen=True)
class Times:
    """What the seeds spent up to the target on one axis; infinite for a seed that missed it."""

    values: tuple[float, ...]

    @property
    def reached(self) -> int:
        """Seeds that reached it."""
        return sum(map(math.isfinite, self.values))

    @property
    def median(self) -> float:
        """The median over all seeds: infinite where half of them or more missed the target."""
        return float(np.median(self.values)) if self.values else math.inf


@dataclasses.dataclass(frozen=True)
class Score:
    """One setting by one metric.

    Attributes:
      setting: whose.
      metric: the name in the log.
      target: in units of the metric, or None.
      outcomes: of each seed.
    """

    setting: Setting
    metric: str
    target: float | None
    outcomes: tuple[Outcome, ...]

    def values(self, quantity: str) -> dict[int, float]:
        """{seed: its "best" or "final" value}, without seeds that have none."""
        if quantity not in QUANTITIES:
            raise unknown("quantity", quantity, QUANTITIES)
        found = {one.seed: getattr(one, quantity) for one in self.outcomes}
        return {seed: value for seed, value in found.items() if math.isfinite(value)}

    def estimate(self, quantity: str) -> Estimate:
        """The mean of `values`; n says over how many seeds, `diverged` how many more there were."""
        return estimate(np.array(list(self.values(quantity).values()), np.float64))

    @property
    def best(self) -> Estimate:
        """Over the seeds, of the best value while training."""
        return self.estimate("best")

    @property
    def final(self) -> Estimate:
        """Over the seeds that did not diverge, of the value at the last step."""
        return self.estimate("final")

    @property
    def diverged(self) -> int:
        """Seeds that diverged."""
        return sum(one.diverged for one in self.outcomes)

    def spent(self, axis: str) -> Estimate:
        """What a seed spent in all on `axis`, a key of `records.AXES`."""
        return estimate(np.array([one.spent[axis] for one in self.outcomes], np.float64))

    @property
    def to_target(self) -> dict[str, Times]:
        """{axis: what the seeds spent up to the target}; {} without a target."""
        if self.target is None:
            return {}
        return {axis: Times(tuple(one.to_target[axis] for one in self.outcomes)) for axis in AXES}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """`one` minus `other` on the same task, by the mean of `quantity`.

    `paired` is over the seeds that both have; `welch` takes all seeds as independent.
    """

    one: Score
    other: Score
    quantity: str
    paired: Difference
    welch: Difference


def score(
    collection: Collection, metric: str, targets: Mapping[str, float] | float | None = None
) -> list[Score]:
    """The settings whose log has the metric, scored, in the collection's order.

    Their methods are named anew, so that what was left out (trials of a sweep, which do not see the
    test set) makes no name longer.

    Args:
      collection: what was found.
      metric: as "test/accuracy".
      targets: one for all tasks, or {task or workload: target}; None: no times to a target.

    Raises:
      UserError: no run is finished, no log has the metric, a target is for a task that is not there
        or is an accuracy outside 0 to 1.
    """
    if not collection.settings:
        reasons = "; ".join(map(str, collection.omissions[:3])) or "there is no run"
        raise UserError(f"there is nothing to score: {reasons}")
    with_metric = with_methods(
        [s for s in collection.settings if any(log.has(metric) for log in s.logs)]
    )
    if not with_metric:
        raise _without(collection, metric)
    if isinstance(targets, Mapping):
        known = {name for s in with_metric for name in (s.task, s.config["workload"])}
        for name in targets:
            if name not in known:
                raise unknown("task", name, known)
    scores = []
    for setting in with_metric:
        target = _target(setting, targets)
        if target is not None and metric.endswith("accuracy") and not 0 <= target <= 1:
            raise UserError(
                f"target {target:g}: an accuracy is a fraction, as 0.97, not in percent"
            )
        outcomes = tuple(outcome(log, metric, target) for log in setting.logs)
        scores.append(Score(setting, metric, target, outcomes))
    return scores


def _without(collection: Collection, metric: str) -> UserError:
    """The error where no log has the metric: it is misspelt, or no run has come that far."""
    logs = [log for setting in collection.settings for log in setting.logs]
    if logs:
        names = {name for log in logs for name in log.columns if "/" in name}
        return unknown("metric", metric, sorted(names))
    shown = [str(omission) for omission in collection.omissions[:MOST_NAMED]]
    if more := len(collection.omissions) - len(shown):
        shown.append(f"and {more} more")
    return UserError(f"there is nothing to score: {'; '.join(shown)}")


def _target(setting: Setting, targets: Mapping[str, float] | float | None) -> float | None:
    if isinstance(targets, Mapping):
        return targets.get(setting.task, targets.get(setting.config["workload"]))
    return targets


def compare(one: Score, other: Score, quantity: str = "final") -> Comparison:
    """The difference of two settings of the same task.

    Raises:
      ValueError: they are of different tasks or metrics.
    """
    ours, theirs = ((s.setting.task, s.metric) for s in (one, other))
    if ours != theirs:
        raise ValueError(f"{ours} and {theirs} cannot be compared")
    a, b = one.values(quantity), other.values(quantity)
    independent = welch(*(np.array(list(side.values()), np.float64) for side in (a, b)))
    return Comparison(one, other, quantity, paired(a, b), independent)


def times(scores: Iterable[Score], axis: str) -> dict[str, dict[str, float]]:
    """{task: {method: median over seeds of what was spent up to the target on `axis`}}.

    What `profile` and `speed_up` take. Settings without a target are not in it.
    """
    found: dict[str, dict[str, float]] = {}
    for one in scores:
        if one.target is not None:
            of_task = found.setdefault(one.setting.task, {})
            of_task[one.setting.method] = one.to_target[axis].median
    return found
