"""Finished runs as their folders hold them: the only thing that tables and figures read."""

import dataclasses
import functools
import json
import pathlib
from typing import Any

import numpy as np

from rkbench import errors, metrics

AXES = {
    "step": "steps",
    "grad_evals": "gradient evaluations",
    "wall_time": "seconds of training",
}
"""What a curve can be drawn against: the field of a log line, and its label."""


@dataclasses.dataclass(frozen=True)
class Curve:
    """One metric of several seeds at the steps where it was measured.

    Attributes:
      x: what it is drawn against, float64 [points], the mean over the seeds.
      values: float64 [seeds, points]; NaN where a seed has no value any more (it diverged).
    """

    x: np.ndarray
    values: np.ndarray


@dataclasses.dataclass(frozen=True)
class Run:
    """One run's folder."""

    folder: pathlib.Path

    @functools.cached_property
    def record(self) -> dict[str, Any]:
        """What run.json says.

        Raises:
          UserError: there is no such file, or it is damaged.
        """
        path = self.folder / "run.json"
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise errors.UserError(f"{self.folder} holds no run: {error.strerror}") from error
        except ValueError as error:
            raise errors.UserError(f"{path} is damaged: {error}") from error

    @functools.cached_property
    def log(self) -> list[metrics.Record]:
        """The lines of metrics.jsonl, or of metrics.jsonl.gz where the run is archived."""
        plain = self.folder / "metrics.jsonl"
        return list(metrics.read(plain if plain.exists() else plain.with_suffix(".jsonl.gz")))

    def curve(self, metric: str, axis: str = "step") -> Curve:
        """The metric against `axis` (a key of `AXES`), over the steps that any seed reached.

        Raises:
          UserError: the log has no such metric.
        """
        lines = [line for line in self.log if line.get(metric) is not None]
        if not lines:
            known = {name for line in self.log for name in line if "/" in name}
            raise errors.unknown(f"metric in {self.folder}", metric, known)
        steps = sorted({line["step"] for line in lines})
        seeds = sorted({line["seed"] for line in lines})
        shape = len(seeds), len(steps)
        x, values = np.full(shape, np.nan), np.full(shape, np.nan)
        row, column = ({v: i for i, v in enumerate(keys)} for keys in (seeds, steps))
        for line in lines:
            cell = row[line["seed"]], column[line["step"]]
            x[cell], values[cell] = line[axis], line[metric]
        return Curve(np.nanmean(x, axis=0), values)

    def outcomes(self, field: str) -> np.ndarray:
        """A field of the seeds' entries in run.json, float64, without those that are null."""
        values = [entry[field] for entry in self.record["seeds"]]
        return np.array([value for value in values if value is not None], np.float64)
