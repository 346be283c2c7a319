"""What ran, on what, at which commit, and what it cost."""

from collections.abc import Iterable, Sequence
from typing import Any

from rkbench.records import archive, identity
from rkbench.report.rows import Row
from rkbench.scoring.collect import alike

_SOURCE = ("commit", "dirty", "devices", "host", "versions")


def sources(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Rows by where they came from: commit, versions and machine, with commands and cost."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        part = _part(row)
        where = {name: part.get(name) for name in _SOURCE}
        told = found.setdefault(
            repr(where), where | {"started": [], "commands": [], "runs": [], **_no_cost()}
        )
        _add_cost(told, row)
        for field, value in (
            ("started", part.get("started")),
            ("commands", " ".join(part.get("command") or [])),
            ("runs", str(row.run.folder)),
        ):
            if value and value not in told[field]:
                told[field].append(value)
    for told in found.values():
        times = sorted(told.pop("started"))
        told["first_started"], told["last_started"] = (times[0], times[-1]) if times else ("", "")
        told["runs"] = len(told["runs"])
    return list(found.values())


def _part(row: Row) -> dict[str, Any]:
    """The part of the record that the row's seed belongs to; {} where the record does not tell."""
    for part in archive.parts(row.run):
        if row.log.seed in part.get("seeds", ()):
            return part
    return archive.parts(row.run)[0] if archive.parts(row.run) else {}


def optimizers(rows: Sequence[Row], tasks: Sequence[str]) -> list[dict[str, Any]]:
    """Cost and outcomes by task and optimizer; `tasks` are those of the rows."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row, task in zip(rows, tasks, strict=True):
        name = row.run.record["config"]["optimizer"]["name"]
        told = found.setdefault(
            (task, name),
            {"task": task, "optimizer": name, "settings": set(), "statuses": {}, **_no_cost()},
        )
        told["settings"].add(alike(identity.of(row.run.record["config"])))
        told["statuses"][row.status] = told["statuses"].get(row.status, 0) + 1
        _add_cost(told, row)
    return [told | {"settings": len(told["settings"])} for told in found.values()]


def _no_cost() -> dict[str, float]:
    return {"seeds": 0, "grad_evals": 0, "seconds": 0.0}


def _add_cost(told: dict[str, Any], row: Row) -> None:
    told["seeds"] += 1
    for field, axis in (("grad_evals", "grad_evals"), ("seconds", "wall_time")):
        told[field] += row.log.spent[axis]
