"""What `rkbench score` says: tables as text, CSV and JSON."""

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from rkbench.drawing import tables
from rkbench.files import write_text

MISSED = "missed"


def write(found: Any, folder: pathlib.Path) -> list[pathlib.Path]:
    """Writes `files` into the folder, each file whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, content in files(found).items():
        written.append(folder / name)
        write_text(written[-1], content)
    return written


def files(found: Any) -> dict[str, str]:
    """Every table that has rows as CSV, all of it as scores.json, and scores.txt as it is printed.

    An infinite number is "inf" in CSV and JSON, one that cannot be computed is empty or null.
    """
    content, contents = dataclasses.asdict(found), {}
    for name in ("runs", "differences", "profiles", "robustness"):
        rows = content[name]
        content[name] = [{key: _plain(value) for key, value in row.items()} for row in rows]
        if rows:
            header = list(dict.fromkeys(key for row in rows for key in row))
            cells = [[_cell(row.get(key)) for key in header] for row in rows]
            contents[f"{name}.csv"] = tables.comma_separated([header, *cells])
    contents["scores.json"] = json.dumps(content, indent=2) + "\n"
    contents["scores.txt"] = text(found) + "\n"
    return contents


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "inf"
    return value


def _cell(value: Any) -> str:
    plain = _plain(value)
    return "" if plain is None else str(plain)


def text(found: Any) -> str:
    """The tables as a terminal shows them; accuracies in percent."""
    percent = found.metric.endswith("accuracy")
    parts = [_runs(found.runs, found.metric, percent)]
    if found.differences:
        parts.append(_differences(found.differences, percent))
    if any("target" in row for row in found.runs):
        parts.append(_to_target(found.runs, percent))
        parts.append(_profiles(found.profiles))
    if found.robustness:
        parts.append(_robustness(found.robustness))
    for kind in ("warnings", "omissions"):
        word = {"warnings": "warning", "omissions": "left out"}[kind]
        if lines := getattr(found, kind):
            parts.append("\n".join(f"{word}: {line}" for line in lines))
    return "\n\n".join(parts)


def _runs(rows: Sequence[Mapping[str, Any]], metric: str, percent: bool) -> str:
    header = ("task", "method", "best", "final", "95 % interval", "seeds", "diverged")
    lines: list[tables.Row] = [(*header, "steps", "gradients", "seconds")]
    for row in rows:
        lines.append(
            (
                row["task"],
                row["method"],
                *(_mean(row, quantity, percent) for quantity in ("best", "final")),
                _interval(row["final_low"], row["final_high"], percent),
                str(row["seeds"]),
                str(row["diverged"] or ""),
                *(f"{row[axis]:,.0f}" for axis in ("step", "grad_evals")),
                f"{row['wall_time']:.1f}",
            )
        )
    note = (
        f"{metric}{' in %' if percent else ''}: mean ± standard error over seeds; the interval is "
        "Student's, of the final mean; final is over the seeds that did not diverge"
    )
    return f"{tables.aligned(lines)}\n{note}"


def _differences(rows: Sequence[Mapping[str, Any]], percent: bool) -> str:
    lines: list[tables.Row] = [
        ("task", "method", "minus", "of", "paired", "95 % interval", "seeds", "Welch's", "")
    ]
    for row in rows:
        mean = row["paired"] if row["paired_n"] else row["welch"]
        significant = row["paired_significant"] if row["paired_n"] > 1 else row["welch_significant"]
        lines.append(
            (
                *(row[name] for name in ("task", "method", "minus", "quantity")),
                _number(mean, percent, sign=True),
                _interval(row["paired_low"], row["paired_high"], percent),
                str(row["paired_n"]),
                _interval(row["welch_low"], row["welch_high"], percent),
                "" if significant else "not significant",
            )
        )
    note = (
        "paired over equal seeds, which share initial parameters and batches; not significant: the "
        "paired interval contains 0 (each by itself, not corrected for their number)"
    )
    return f"{tables.aligned(lines)}\n{note}"


def _to_target(rows: Sequence[Mapping[str, Any]], percent: bool) -> str:
    lines: list[tables.Row] = [
        ("task", "method", "target", "reached", "steps", "gradients", "seconds")
    ]
    for row in rows:
        if "target" in row:
            spent = [row[f"{axis}_to_target"] for axis in ("step", "grad_evals", "wall_time")]
            lines.append(
                (
                    row["task"],
                    row["method"],
                    _number(row["target"], percent),
                    f"{row['reached']}/{row['seeds']}",
                    *(MISSED if math.isinf(value) else f"{value:,.4g}" for value in spent),
                )
            )
    note = "median over seeds of what was spent up to the first evaluation that reached the target"
    return f"{tables.aligned(lines)}\n{note}"


def _profiles(rows: Sequence[Mapping[str, Any]]) -> str:
    lines: list[tables.Row] = [
        ("axis", "method", "profile's area", "fastest on", "tasks", "speed-up")
    ]
    for row in rows:
        speed = f"{row['speed_up']:.3g} over {row['over']}" if "speed_up" in row else "-"
        if row.get("missed"):
            speed += f", {row['missed']} missed"
        lines.append(
            (
                row["axis"],
                row["method"],
                f"{row['area']:.3f}",
                f"{100 * row['fastest']:.0f} %",
                f"{row['tasks']}/{row['of']}",
                speed,
            )
        )
    note = (
        "performance profiles over tasks (Dolan and More), area from 1 to 4 times the fastest; "
        "speed-up: geometric mean over tasks, with --reference"
    )
    return f"{tables.aligned(lines)}\n{note}"


def _robustness(rows: Sequence[Mapping[str, Any]]) -> str:
    lines: list[tables.Row] = [
        ("task", "method", "varied", "tried", "best", "within 1 %", "decades", "stable up to")
    ]
    for row in rows:
        lines.append(
            (
                *(row[name] for name in ("task", "method", "field")),
                str(row["rates"]),
                _number(row["best"]) + (f" ({row['best_at']})" if row["best_at"] else ""),
                _interval(row["good_low"], row["good_high"]),
                f"{'>= ' if row['at_edge'] else ''}{_number(row['decades'])}",
                _number(row["largest_stable"]),
            )
        )
    metrics = " or ".join(dict.fromkeys(row["metric"] for row in rows))
    note = (
        f"by the {metrics}; >=: the range may go on beyond what was tried; stable up to: up to "
        "this rate no seed diverged or lost half of what the best rate gains over the start"
    )
    return f"{tables.aligned(lines)}\n{note}"


def _mean(row: Mapping[str, Any], quantity: str, percent: bool) -> str:
    if not row[f"{quantity}_n"]:
        return "-"
    mean = _number(row[quantity], percent)
    error = row[f"{quantity}_standard_error"]
    return mean if math.isnan(error) else f"{mean} ± {_number(error, percent)}"


def _interval(low: float, high: float, percent: bool = False) -> str:
    if math.isnan(low):
        return "-"
    return f"[{_number(low, percent)}, {_number(high, percent)}]"


def _number(value: float, percent: bool = False, sign: bool = False) -> str:
    if math.isnan(value):
        return "-"
    plus = "+" if sign else ""
    return f"{100 * value:{plus}.2f}" if percent else f"{value:{plus}.4g}"
