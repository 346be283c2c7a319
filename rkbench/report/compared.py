"""Learning-rate sensitivity and performance profiles, each number with the rows it came from."""

from collections.abc import Mapping, Sequence
from typing import Any

from rkbench.comparison.contenders import Profiles
from rkbench.records import AXES
from rkbench.scoring import Score, robustness
from rkbench.scoring.profiles import MAX_RATIO
from rkbench.scoring.robustness import Rate
from rkbench.scoring.scores import QUANTITIES
from rkbench.statistics import Estimate

Places = Mapping[tuple, int]
"""{(folder, seed): place of its row}."""


def estimated(estimate: Estimate) -> dict[str, Any]:
    """An estimate with everything that is said of it."""
    return {
        "mean": estimate.mean,
        "error": estimate.standard_error,
        "interval": estimate.interval,
        "n": estimate.n,
    }


def scored(score: Score) -> dict[str, Any]:
    """The final and best values of a setting, over its seeds."""
    told: dict[str, Any] = {name: estimated(score.estimate(name)) for name in QUANTITIES}
    return told | {"diverged": score.diverged}


def sensitivities(scores: Sequence[Score], places: Places) -> list[dict[str, Any]]:
    """One for each family of settings that differ only in the learning rate."""
    return [
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
            "rates": [_rate(rate, places) for rate in family.rates],
        }
        for family in robustness(scores)
    ]


def _rate(rate: Rate, places: Places) -> dict[str, Any]:
    rows = [places[log.folder, log.seed] for log in rate.score.setting.logs]
    return {"value": rate.value, "stable": rate.stable, "rows": rows} | scored(rate.score)


def profiled(profiles: Profiles, places: Places) -> dict[str, Any]:
    """The contenders, what they had to reach, and their profiles on each axis."""
    return {
        "metric": profiles.metric,
        "targets": profiles.targets,
        "max_ratio": MAX_RATIO,
        "contenders": [
            {
                "task": one.setting.task,
                "optimizer": one.setting.optimizer,
                "rows": [places[log.folder, log.seed] for log in one.setting.logs],
                "to_target": {axis: one.to_target[axis].median for axis in AXES},
                "reached": one.to_target["step"].reached,
            }
            for one in profiles.contenders
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
            for axis, by_method in profiles.by_axis.items()
        },
    }
