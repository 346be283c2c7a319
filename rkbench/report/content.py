"""What a report tells, as plain JSON: rows, settings, curves and how they compare."""

import datetime
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rkbench import __version__, run_record, summary
from rkbench.comparison.contenders import contenders, profiles
from rkbench.records import AXES, METRICS, Columns, columns
from rkbench.report import compared, curves, overview
from rkbench.report.rows import Row, namer, rows
from rkbench.scoring import (
    Collection,
    Score,
    SeedLog,
    Setting,
    collect,
    lower_is_better,
    outcome,
    rate_field,
    score,
)
from rkbench.statistics import t_quantile

Content = dict[str, Any]

# The metric that is shown first, and by which profiles are made: the first of these that is there.
_FIRST = ("test/accuracy", "validation/accuracy", "train/accuracy", "test/loss", "train/loss")


def content(folders: Sequence[pathlib.Path], max_points: int) -> Content:
    """All that the page of the runs in or below the folders shows.

    Raises:
      UserError: there is no such folder, or no run in one.
    """
    collection = collect(folders)
    name = namer(folders)
    all_rows = rows(folders, collection)
    logs = [row.log for row in all_rows]
    metrics = _metrics(logs)
    tables = [columns(log.lines, (*AXES, *metrics)) for log in logs]
    points = curves.points_each(max_points, len(logs) * len(metrics))
    configs = Distinct()
    told = [_row(row, collection, configs) | {"name": name(row.run.folder)} for row in all_rows]
    for one, row, table in zip(told, all_rows, tables, strict=True):
        one["results"] = {m: _outcome(row.log, m) for m in metrics if _is_scored(m)}
        one["curves"] = curves.of_seed(table, metrics, points)
    places = {(log.folder, log.seed): place for place, log in enumerate(logs)}
    told_of_all = {
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "rkbench": __version__,
        "points": points,
        "axes": AXES,
        "metrics": {metric: _described(metric) for metric in metrics},
        "sources": overview.sources(all_rows),
        "optimizers": overview.optimizers(all_rows, [one["task"] for one in told]),
        "omissions": [f"{name(o.folder)}: {o.reason}" for o in collection.omissions],
        "configs": configs.values,
        "rows": told,
    }
    return curves.plain(told_of_all | _compared(collection, tables, places, metrics, points))


def _compared(
    collection: Collection,
    tables: Sequence[Columns],
    places: compared.Places,
    metrics: Sequence[str],
    points: int,
) -> Content:
    """What is told of settings, and of settings against each other."""
    there = _metrics(log for setting in collection.settings for log in setting.logs)
    scores = {metric: score(collection, metric) for metric in there if _is_scored(metric)}
    first = next((metric for metric in _FIRST if metric in scores), None)
    settings = []
    for setting in collection.settings:
        own = [places[log.folder, log.seed] for log in setting.logs]
        means = len(own) > 1
        settings.append(
            {
                "task": setting.task,
                "method": setting.method,
                "rows": own,
                "scores": _scores(setting, scores),
                "means": curves.of_seeds([tables[i] for i in own], metrics, points) if means else {},
            }
        )
    most = max((len(one["rows"]) for one in settings), default=0)
    return {
        "first_metric": first,
        "contenders": [
            places[log.folder, log.seed]
            for one in contenders(scores.get(first or "", []))
            for log in one.setting.logs
        ],
        "t_quantiles": {n: t_quantile(n - 1) for n in range(1, most + 1)},
        "settings": settings,
        "sensitivities": [
            one for own in scores.values() for one in compared.sensitivities(own, places)
        ],
        "profiles": compared.profiled(profiles(collection, first), places) if first else None,
    }


def _scores(setting: Setting, scores: Mapping[str, Sequence[Score]]) -> Content:
    return {
        metric: compared.scored(one)
        for metric, all_of_it in scores.items()
        for one in all_of_it
        if one.setting is setting
    }


def _metrics(logs: Iterable[SeedLog]) -> list[str]:
    """The metrics that any log has, those with a label first."""
    names = dict.fromkeys(name for log in logs for line in log.lines for name in line)
    there = [name for name in names if "/" in name]
    return sorted(there, key=lambda name: [*METRICS, name].index(name))


def _is_scored(metric: str) -> bool:
    """Whether it is of a whole split: what one batch says is no result."""
    return metric.endswith(("/accuracy", "/loss")) and not metric.startswith("batch/")


def _described(metric: str) -> Content:
    return {
        "label": METRICS.get(metric, metric),
        "scored": _is_scored(metric),
        "fraction": metric.endswith("accuracy"),
        "lower_is_better": lower_is_better(metric),
    }


class Distinct:
    """Plain values by their place, each once."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._places: dict[str, int] = {}

    def place(self, value: Any) -> int:
        """The value's place in `values`."""
        place = self._places.setdefault(run_record.canonical(value), len(self.values))
        if place == len(self.values):
            self.values.append(value)
        return place


def _row(row: Row, collection: Collection, configs: Distinct) -> Content:
    """A row of the table, without curves."""
    record = row.run.record
    config = record["config"]
    setting = None if row.setting is None else collection.settings[row.setting]
    field = rate_field(config)
    return {
        "seed": row.log.seed,
        "setting": row.setting,
        "averaged": row.averaged,
        "task": setting.task if setting else config["workload"],
        "method": setting.method if setting else config["optimizer"]["name"],
        "optimizer": config["optimizer"]["name"],
        "learning_rate": config["optimizer"][field.partition(".")[2]] if field else None,
        "batch_size": config.get("batch_size"),
        "status": row.status,
        "notes": list(row.notes),
        "subset": summary.subset(record),
        "config": configs.place(run_record.identity(config)),
        "config_hash": record.get("config_hash"),
        "spent": {axis: max((line[axis] for line in row.log.lines), default=0) for axis in AXES},
    }


def _outcome(log: SeedLog, metric: str) -> Content:
    found = outcome(log, metric)
    return {"final": found.final, "best": found.best, "best_step": found.best_step}
