"""What a report tells, as plain JSON: rows, settings, curves and how they compare."""

import datetime
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rkbench import __version__
from rkbench.errors import UserError
from rkbench.records import AXES, METRICS, identity, summary
from rkbench.records.logs import is_result
from rkbench.records.names import namer
from rkbench.report import curves, overview
from rkbench.report.compared import Comparisons
from rkbench.report.rows import Row, rows
from rkbench.scoring import Outcome, SeedLog, collect, lower_is_better, rate_field
from rkbench.scoring.collect import without_paths

Content = dict[str, Any]


def content(
    folders: Sequence[pathlib.Path],
    max_points: int,
    targets: Mapping[str, float] | float | None = None,
) -> Content:
    """All that the page of the runs in or below the folders shows.

    Args:
      folders: with runs.
      max_points: of each curve.
      targets: of the profiles, as `scoring.score` takes them; None: near the best of each task.

    Raises:
      UserError: there is no such folder, or no run in one; no run has a metric yet; a target is for
        a task that is not there.
    """
    name = namer(folders)
    collection = without_paths(collect(folders), name)
    all_rows = rows(folders, collection)
    logs = [row.log for row in all_rows]
    metrics = _metrics(logs)
    if not metrics:
        raise UserError(f"nothing to show: no run of {folders[0]} has logged a metric")
    scored = [metric for metric in metrics if is_result(metric)]
    compared = Comparisons.of(collection, scored, logs)
    tables = [log.columns for log in logs]
    points = curves.points_each(max_points, len(logs) * len(metrics))
    told, configs = [], _Distinct()
    for row, table in zip(all_rows, tables, strict=True):
        one = _row(row, compared, configs) | {"name": name(row.run.folder)}
        one["results"] = {m: _outcome(compared.outcome(row.log, m), row.ended) for m in scored}
        told.append(one | {"curves": curves.of_seed(table, metrics, points)})
    settings = compared.settings()
    for one in settings:
        own = [tables[place] for place in one["rows"]]
        one["means"] = curves.of_seeds(own, metrics, points) if len(own) > 1 else {}
    return curves.plain(
        {
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
            "settings": settings,
            **compared.told(targets),
        }
    )


def _metrics(logs: Iterable[SeedLog]) -> list[str]:
    """The metrics that any log has, those with a label first."""
    names = {name for log in logs for name in log.columns if "/" in name}
    labelled = [name for name in METRICS if name in names]
    return [*labelled, *sorted(names.difference(labelled))]


def _described(metric: str) -> Content:
    return {
        "label": METRICS.get(metric, metric),
        "scored": is_result(metric),
        "fraction": metric.endswith("accuracy"),
        "lower_is_better": lower_is_better(metric),
    }


class _Distinct:
    """Plain values by their place, each once."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._places: dict[str, int] = {}

    def place(self, value: Any) -> int:
        """The value's place in `values`."""
        place = self._places.setdefault(identity.canonical(value), len(self.values))
        if place == len(self.values):
            self.values.append(value)
        return place


def _row(row: Row, compared: Comparisons, configs: _Distinct) -> Content:
    """A row of the table, without results and curves."""
    record = row.run.record
    config = record["config"]
    setting = None if row.setting is None else compared.collection.settings[row.setting]
    field = rate_field(config)
    return {
        "seed": row.log.seed,
        "setting": row.setting,
        "averaged": row.averaged,
        "task": setting.task if setting else config["workload"],
        "method": compared.method(setting) if setting else config["optimizer"]["name"],
        "optimizer": config["optimizer"]["name"],
        "learning_rate": config["optimizer"][field.partition(".")[2]] if field else None,
        "status": row.status,
        "notes": list(row.notes),
        "subset": summary.subset(record),
        "config": configs.place(identity.of(config)),
        "config_hash": record.get("config_hash"),
        "spent": row.log.spent,
    }


def _outcome(found: Outcome, ended: bool) -> Content:
    final = found.final if ended else None
    return {"final": final, "best": found.best, "best_step": found.best_step}
