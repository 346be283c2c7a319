"""A run's log as columns of numbers, and the one check that it is the log that was recorded."""

import array
import dataclasses
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from rkbench import errors
from rkbench.records import metrics, schemas, summary

Columns = Mapping[str, np.ndarray]
"""The lines of one seed by field: float64 [lines], NaN where a line lacks the field, infinite where
its number was not finite (null in the log) or so large that sums of it would not be."""

MOST_FIELDS = 1_000  # of a log
_CHECKED = ("grad_evals", "best_test_accuracy", "best_test_step", "final_test_accuracy")


@dataclasses.dataclass(frozen=True)
class Logged:
    """What a log holds of one seed.

    Attributes:
      columns: its lines.
      fingerprint: of them; see `metrics.Fingerprint`.
    """

    columns: Columns
    fingerprint: Mapping[str, Any]

    @property
    def steps(self) -> int:
        """How far it goes."""
        return int(self.columns["step"].max())

    def summary(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """The seed's entry of run.json computed again; only its status is taken from the old."""
        diverged = self.steps if entry["status"] == "diverged" else None
        seconds = float(self.columns["wall_time"].max())
        lines = self._lines(entry["seed"])
        return summary.of_seed(lines, entry["seed"], diverged, seconds, self.steps)

    def _lines(self, seed: int) -> Iterator[metrics.Line]:
        """The lines as far as a summary needs them."""
        fields = ("step", "grad_evals", "test/accuracy")
        missing = np.full(len(self.columns["step"]), np.nan)
        columns = (self.columns.get(name, missing).tolist() for name in fields)
        for step, grad_evals, accuracy in zip(*columns, strict=True):
            yield {
                "seed": seed,
                "step": int(step),
                "grad_evals": int(grad_evals),
                "test/accuracy": accuracy if math.isfinite(accuracy) else None,
            }


def read(path: pathlib.Path) -> dict[int, Logged]:
    """{seed: what the log holds of it}, read line by line; {} where there is no log.

    Raises:
      UserError: a line is damaged, and sound ones follow; or the file cannot be read.
    """
    seeds: dict[int, _Lines] = {}
    for record, text in metrics.read_with_text(path):
        lines = seeds.setdefault(record["seed"], _Lines())
        lines.add(record, text)
        if len(lines.columns) > MOST_FIELDS:
            raise errors.UserError(
                f"{path} is not a log of rkbench: it has over {MOST_FIELDS} fields"
            )
    return {seed: lines.logged() for seed, lines in seeds.items()}


class _Lines:
    """The lines of a seed while they are read: of each field the places and the numbers."""

    def __init__(self) -> None:
        self.columns: dict[str, tuple[array.array, array.array]] = {}
        self._fingerprint = metrics.Fingerprint()

    def add(self, record: metrics.Line, text: bytes) -> None:
        for name, value in record.items():
            if name not in self.columns:
                self.columns[name] = array.array("q"), array.array("d")
            places, values = self.columns[name]
            places.append(self._fingerprint.lines)
            too_large = value is None or abs(value) > schemas.LARGEST
            values.append(math.inf if too_large else value)
        self._fingerprint.add_text(text)

    def logged(self) -> Logged:
        columns = {}
        for name, (places, values) in self.columns.items():
            columns[name] = np.full(self._fingerprint.lines, np.nan)
            columns[name][places] = values
        return Logged(columns, self._fingerprint.to_json())


def is_result(metric: str) -> bool:
    """Whether it is a number of a whole split, made by an evaluation: not that of one batch."""
    return metric.endswith(("/accuracy", "/loss")) and not metric.startswith("batch/")


def fault(
    entry: Mapping[str, Any],
    logged: Logged | None,
    fingerprint: Mapping[str, Any] | None,
    interval: int,
) -> str:
    """Why the log is not that from which a seed's entry of run.json was made; "" where it is.

    Where run.json has a fingerprint, no line can have been lost or changed. In older records,
    which have none, a change is found only if it reaches what the entry says (steps,
    gradient evaluations, best and final test accuracy) or takes away the last evaluation: an edited
    training loss is not.

    Args:
      entry: the seed's.
      logged: what the log holds of it; None: nothing.
      fingerprint: that run.json has of the seed's lines; None: none.
      interval: steps between two lines of the log; a seed that diverged may have none at its end.
    """
    if logged is None:
        return "the log has none of it"
    diverged, steps = entry["status"] == "diverged", entry["steps"]
    if logged.steps < steps - (interval if diverged else 0):
        return f"the log ends at step {logged.steps} of {steps}"
    if logged.steps > steps:
        return f"the log goes on to step {logged.steps}, and {steps} were recorded"
    again = logged.summary(entry)
    for field in _CHECKED:
        if field in entry and entry[field] != again[field]:
            return f"{field} is {entry[field]!r}, the log says {again[field]!r}"
    if fingerprint is not None and fingerprint != logged.fingerprint:
        has, had = logged.fingerprint["lines"], fingerprint["lines"]
        if has != had:
            return f"the log has {has} lines, and {had} were recorded"
        return "the log is not the one that was recorded: a line was changed"
    for metric, column in logged.columns.items():
        if is_result(metric) and not diverged:
            last = logged.columns["step"][~np.isnan(column)].max()
            if last < steps:
                return f"the log has no {metric} of the last step, the last is of step {last:.0f}"
    return ""
