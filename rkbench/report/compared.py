"""Settings against each other: scores, learning-rate sensitivity, performance profiles.

Each number comes with the rows of the report that it was made of.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from rkbench.comparison.contenders import FIRST, contenders, profiles
from rkbench.records import AXES
from rkbench.scoring import Collection, Outcome, Score, SeedLog, Setting, outcome, robustness, score
from rkbench.scoring.profiles import MAX_RATIO
from rkbench.scoring.robustness import Rate
from rkbench.scoring.scores import QUANTITIES
from rkbench.scoring.tables import edges, unequal_budgets
from rkbench.statistics import Estimate, t_quantile

Content = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Comparisons:
    """A collection scored by every metric.

    Attributes:
      collection: what is compared.
      scores: {metric: scores of the settings that have it}.
      places: {(folder, seed): the row's place in the report}.
    """

    collection: Collection
    scores: Mapping[str, Sequence[Score]]
    places: Mapping[tuple, int]

    @classmethod
    def of(cls, collection: Collection, metrics: Sequence[str], rows: Sequence[SeedLog]):
        """Scores the collection, whose logs and maybe others are the `rows`."""
        logs = [log for setting in collection.settings for log in setting.logs]
        there = [metric for metric in metrics if any(log.has(metric) for log in logs)]
        return cls(
            collection,
            {metric: score(collection, metric) for metric in there},
            {_key(log): place for place, log in enumerate(rows)},
        )

    def outcome(self, log: SeedLog, metric: str) -> Outcome:
        """A row's outcome: that of its setting's score where it is part of one."""
        _, found = self._by_seed.get((metric, *_key(log)), (None, None))
        return found or outcome(log, metric)

    @functools.cached_property
    def _by_seed(self) -> dict[tuple, tuple[Score, Outcome]]:
        """{(metric, folder, seed): the score with this seed, and its outcome}."""
        return {
            (metric, *_key(found)): (one, found)
            for metric, scores in self.scores.items()
            for one in scores
            for found in one.outcomes
        }

    def rows(self, logs: Sequence[SeedLog]) -> list[int]:
        """The places of the logs' rows."""
        return [self.places[_key(log)] for log in logs]

    @property
    def first(self) -> str | None:
        """The metric of most interest."""
        return next((metric for metric in FIRST if metric in self.scores), None)

    def method(self, setting: Setting) -> str:
        """The setting's name among those with the first metric, else among all."""
        one, _ = self._by_seed.get((self.first, *_key(setting.logs[0])), (None, None))
        return one.setting.method if one else setting.method

    def settings(self) -> list[Content]:
        """Every setting with its scores, in the collection's order."""
        return [
            {
                "task": setting.task,
                "method": self.method(setting),
                "rows": self.rows(setting.logs),
                "scores": {
                    metric: _scored(self._by_seed[metric, *_key(setting.logs[0])][0])
                    for metric in self.scores
                    if (metric, *_key(setting.logs[0])) in self._by_seed
                },
            }
            for setting in self.collection.settings
        ]

    def told(self, targets: Mapping[str, float] | float | None) -> Content:
        """How they compare; `targets` are those of the profiles."""
        first = self.first
        own = self.scores[first] if first else []
        most = max((len(setting.logs) for setting in self.collection.settings), default=0)
        families = {metric: robustness(scores) for metric, scores in self.scores.items()}
        chosen_by = next((m for m in ("validation/accuracy", first) if families.get(m or "")), None)
        return {
            "first_metric": first,
            "warnings": [*unequal_budgets(own), *edges(families.get(chosen_by or "", []))],
            "contenders": [r for one in contenders(own) for r in self.rows(one.setting.logs)],
            "t_quantiles": {n: t_quantile(n - 1) for n in range(1, most + 1)},
            "sensitivities": [
                {
                    "task": family.task,
                    "method": family.method,
                    "metric": family.metric,
                    "field": family.field,
                    "best": family.best,
                    "good": family.good,
                    "decades": family.decades,
                    "at_edge": family.at_edge,
                    "largest_stable": family.largest_stable,
                    "rates": [self._rate(rate) for rate in family.rates],
                }
                for own in families.values()
                for family in own
            ],
            "profiles": self._profiles(first, targets) if first else None,
        }

    def _rate(self, rate: Rate) -> Content:
        rows = self.rows(rate.score.setting.logs)
        return {"value": rate.value, "stable": rate.stable, "rows": rows} | _scored(rate.score)

    def _profiles(self, metric: str, targets: Mapping[str, float] | float | None) -> Content | None:
        """The contenders, what they had to reach, and their profiles on each axis."""
        found = profiles(self.scores[metric], targets)
        if not found.contenders:
            return None
        return {
            "metric": metric,
            "given": targets is not None,
            "targets": found.targets,
            "max_ratio": MAX_RATIO,
            "contenders": [
                {
                    "task": one.setting.task,
                    "optimizer": one.setting.optimizer,
                    "rows": self.rows(one.setting.logs),
                    "to_target": {axis: one.to_target[axis].median for axis in AXES},
                    "reached": one.to_target["step"].reached,
                }
                for one in found.contenders
            ],
            "axes": {
                axis: [
                    {
                        "optimizer": name,
                        "tau": own.steps()[0].tolist(),
                        "share": own.steps()[1].tolist(),
                        "area": own.area(),
                        "tasks": own.tasks,
                    }
                    for name, own in by_method.items()
                ]
                for axis, by_method in found.by_axis.items()
            },
        }


def _key(seed: SeedLog | Outcome) -> tuple:
    return seed.folder, seed.seed


def _estimated(estimate: Estimate) -> Content:
    return {
        "mean": estimate.mean,
        "error": estimate.standard_error,
        "interval": estimate.interval,
        "n": estimate.n,
    }


def _scored(one: Score) -> Content:
    """The final and best values of a setting, over its seeds."""
    told: Content = {name: _estimated(one.estimate(name)) for name in QUANTITIES}
    return told | {"diverged": one.diverged}
