"""The tables of `rkbench score` as records: one mapping a row, numbers as they are.

In them a missed target is infinite, and what cannot be computed (an interval of one seed) is NaN.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from rkbench.records import AXES
from rkbench.records.names import Namer
from rkbench.records.schemas import Object
from rkbench.scoring.collect import Collection, without_paths
from rkbench.scoring.outcomes import lower_is_better
from rkbench.scoring.profiles import profile, speed_up
from rkbench.scoring.robustness import Robustness, robustness
from rkbench.scoring.scores import QUANTITIES, Score, compare, score, times


@dataclasses.dataclass(frozen=True)
class Scores:
    """All tables of a collection; each is a list of records.

    Attributes:
      metric: by which runs are scored.
      targets: and what they had to reach, as `score` takes them.
      reference: what they are compared with; None: in each task the best.
      runs: a row a setting: estimates, costs, times to the target.
      differences: a row a setting and quantity: minus the reference of its task.
      profiles: a row an axis and method; without targets none.
      robustness: a row a method and task whose learning rate was varied.
      warnings: lines about what the numbers cannot say.
      omissions: lines about what no number contains.
    """

    metric: str
    targets: Mapping[str, float] | float | None
    reference: str | None
    runs: list[Object]
    differences: list[Object]
    profiles: list[Object]
    robustness: list[Object]
    warnings: list[str]
    omissions: list[str]


def tabulate(
    collection: Collection,
    metric: str,
    targets: Mapping[str, float] | float | None = None,
    reference: str | None = None,
    name: Namer = str,
) -> Scores:
    """Scores everything.

    Args:
      collection: of runs.
      metric: as "test/accuracy".
      targets: as `score` takes them.
      reference: the method that others are compared with; None: in each task the best by its mean
        final value, in speed-ups none.
      name: of a run's folder.

    Raises:
      UserError: no run has the metric, or there is no such reference.
    """
    scores = score(collection, metric, targets)
    varied = ranges(collection, metric)
    return Scores(
        metric,
        targets,
        reference,
        [_run(one, name) for one in scores],
        _differences(scores, reference),
        _profiles(scores, reference),
        [_range(one) for one in varied],
        [*unequal_budgets(scores), *edges(varied)],
        [*_left_out(collection, name), *_without_metric(collection, metric)],
    )


def _left_out(collection: Collection, name: Namer) -> list[str]:
    return [f"{name(o.folder)}: {o.reason}" for o in without_paths(collection, name).omissions]


def _without_metric(collection: Collection, metric: str) -> list[str]:
    """What is in no table of runs, as trials of a sweep are not in that of test accuracies."""
    counts: dict[str, int] = {}
    for setting in collection.settings:
        if not any(log.has(metric) for log in setting.logs):
            counts[setting.task] = counts.get(setting.task, 0) + 1
    return [
        f"{task}: {count} settings whose logs have no {metric}" for task, count in counts.items()
    ]


def _run(one: Score, name: Namer) -> Object:
    row: Object = {
        "task": one.setting.task,
        "method": one.setting.method,
        "seeds": len(one.outcomes),
        "diverged": one.diverged,
    }
    for quantity in QUANTITIES:
        found = one.estimate(quantity)
        low, high = found.interval
        row |= {
            quantity: found.mean,
            f"{quantity}_n": found.n,
            f"{quantity}_standard_deviation": found.standard_deviation,
            f"{quantity}_standard_error": found.standard_error,
            f"{quantity}_low": low,
            f"{quantity}_high": high,
        }
    row |= {axis: one.spent(axis).mean for axis in AXES}
    if one.target is not None:
        row |= {"target": one.target, "reached": one.to_target["step"].reached}
        row |= {f"{axis}_to_target": spent.median for axis, spent in one.to_target.items()}
    folders = dict.fromkeys(name(outcome.folder) for outcome in one.outcomes)
    return row | {"runs": " ".join(folders)}


def _references(scores: Sequence[Score], name: str | None) -> dict[str, Score]:
    """{task: the score that others of it are compared with}."""
    found = {}
    for task in dict.fromkeys(one.setting.task for one in scores):
        own = [one for one in scores if one.setting.task == task]
        if name is not None:
            own = [one for one in own if one.setting.method == name]
        ended = [one for one in own if one.final.n]
        if ended:
            sign = -1 if lower_is_better(ended[0].metric) else 1
            found[task] = max(ended, key=lambda one: sign * one.final.mean)
    if name is not None and not found:
        from rkbench.errors import unknown

        raise unknown("reference", name, dict.fromkeys(one.setting.method for one in scores))
    return found


def _differences(scores: Sequence[Score], name: str | None) -> list[Object]:
    rows = []
    references = _references(scores, name)
    for one in scores:
        reference = references.get(one.setting.task)
        if reference is None or reference is one:
            continue
        for quantity in QUANTITIES:
            found = compare(one, reference, quantity)
            row = {
                "task": one.setting.task,
                "method": one.setting.method,
                "minus": reference.setting.method,
                "quantity": quantity,
            }
            for kind, difference in (("paired", found.paired), ("welch", found.welch)):
                row |= {
                    kind: difference.mean,
                    f"{kind}_low": difference.low,
                    f"{kind}_high": difference.high,
                    f"{kind}_n": min(difference.n),
                    f"{kind}_significant": difference.significant,
                }
            rows.append(row)
    return rows


def _profiles(scores: Sequence[Score], reference: str | None) -> list[Object]:
    rows = []
    for axis in AXES:
        by_task = times(scores, axis)
        speeds = speed_up(by_task, reference) if reference else {}
        for method, found in profile(by_task).items():
            row = {
                "axis": axis,
                "method": method,
                "tasks": found.tasks,
                "of": len(by_task),
                "area": found.area(),
                "fastest": float(found(1.0)),
            }
            if method in speeds:
                speed = speeds[method]
                row |= {
                    "over": reference,
                    "speed_up": speed.factor,
                    "speed_up_tasks": speed.tasks,
                    "missed": speed.missed,
                }
            rows.append(row)
    return rows


def ranges(collection: Collection, metric: str) -> list[Robustness]:
    """How sensitive methods are to their learning rates, by a metric of the metric's kind.

    It is that of the validation split where there is one: a sweep's trials see no test set.
    """
    found = []
    for name in (f"validation/{metric.split('/')[-1]}", metric):
        if any(log.has(name) for one in collection.settings for log in one.logs):
            known = {(one.task, one.method) for one in found}
            more = robustness(score(collection, name))
            found += [one for one in more if (one.task, one.method) not in known]
    return found


def _range(one: Robustness) -> Object:
    low, high = one.good or (float("nan"), float("nan"))
    return {
        "task": one.task,
        "method": one.method,
        "field": one.field,
        "metric": f"{one.quantity} {one.metric}",
        "rates": len(one.rates),
        "best": float("nan") if one.best is None else one.best,
        "best_at": one.best_at,
        "good_low": low,
        "good_high": high,
        "decades": one.decades,
        "at_edge": one.at_edge,
        "largest_stable": float("nan") if one.largest_stable is None else one.largest_stable,
    }


def unequal_budgets(scores: Sequence[Score]) -> list[str]:
    """A line for each task whose methods spent gradients that differ by more than 1 in 20."""
    lines = []
    for task in dict.fromkeys(one.setting.task for one in scores):
        spent = {
            one.setting.method: max(outcome.spent["grad_evals"] for outcome in one.outcomes)
            for one in scores
            if one.setting.task == task and one.diverged < len(one.outcomes)
        }
        if spent and min(spent.values()) < 0.95 * max(spent.values()):
            shown = ", ".join(f"{method} {count:,.0f}" for method, count in spent.items())
            lines.append(
                f"{task}: best and final are not at equal computation; gradient evaluations a "
                f"seed: {shown}"
            )
    return lines


def edges(varied: Sequence[Robustness]) -> list[str]:
    """The methods whose best learning rate has none beyond it, and how far to go on."""
    lines = []
    for one in varied:
        if one.best is not None and one.best_at:
            further = one.best * 10 if one.best_at == "largest" else one.best / 10
            lines.append(
                f"{one.task}, {one.method}: the best {one.field}, {one.best:g}, is the "
                f"{one.best_at} of the {len(one.rates)} tried: go on to {further:g}"
            )
    return lines
