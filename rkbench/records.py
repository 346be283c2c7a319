"""Finished runs as their folders hold them: the only thing that tables and figures read."""

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rkbench import errors, metrics

AXES = {
    "step": "steps",
    "grad_evals": "gradient evaluations",
    "wall_time": "seconds of training",
}
"""What a curve can be drawn against: the field of a log line, and its label."""

METRICS = {
    "test/accuracy": "test accuracy",
    "validation/accuracy": "validation accuracy",
    "train/accuracy": "training accuracy",
    "test/loss": "test loss",
    "validation/loss": "validation loss",
    "train/loss": "training loss",
    "batch/loss": "batch loss",
    "wall_time": "seconds of training",
}
"""What can be drawn, and its label."""

Columns = Mapping[str, np.ndarray]
"""The lines of one seed by field: float64 [lines], NaN where a line lacks the field."""


@dataclasses.dataclass(frozen=True)
class Curve:
    """One metric of several seeds at the steps where it was measured.

    Attributes:
      x: what it is drawn against, float64 [points], the mean over the seeds.
      values: float64 [seeds, points]; NaN where a seed has no value any more (it diverged).
    """

    x: np.ndarray
    values: np.ndarray


_ORIGIN = {
    "command": list,
    "started": str,
    "host": dict,
    "devices": list,
    "commit": str,
    "dirty": bool,
    "versions": dict,
}
_RECORD = _ORIGIN | {
    "config": dict,
    "data": dict,
    "groups": list,
    "logs": dict,
    "numerics": dict,
    "parts": list,
    "seeds": list,
    "status": str,
}
_PART = _ORIGIN | {"seeds": list}
_SEED = {
    "seed": int,
    "status": str,
    "steps": int,
    "seconds": float,
    "grad_evals": int,
    "best_test_accuracy": float,
    "best_test_step": int,
    "final_test_accuracy": float,
}
_SUBSET = {
    "name": str,
    "train_examples": int,
    "full_train_examples": int,
    "test_examples": int,
    "full_test_examples": int,
}
_CAN_BE_NULL = (
    *("data", "commit", "dirty"),
    *("best_test_accuracy", "best_test_step", "final_test_accuracy"),
)


def read_object(path: pathlib.Path, what: str) -> dict[str, Any]:
    """The JSON object in a file, as data: nothing in it is executed.

    Raises:
      UserError: the file cannot be read, or is no JSON object and so not `what` it should be.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise errors.UserError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise errors.UserError(f"{path} is not {what} ({error})") from error
    if not isinstance(found, dict):
        raise errors.UserError(f"{path} is not {what}: it is no JSON object")
    return found


def read_record(path: pathlib.Path) -> dict[str, Any]:
    """What a run.json says; the fields that are read again have their types.

    Raises:
      UserError: there is no such file, or it is none of ours.
    """
    if not os.path.isfile(path):
        raise errors.UserError(f"{path.parent} holds no run: there is no {path.name}")
    record = read_object(path, "a run record")
    mistakes = _mistakes_in_known(record, _RECORD)
    if not mistakes:
        mistakes += _config_mistakes(record.get("config", {}))
        data = record.get("data") or {}
        mistakes += _mistakes(data, _SUBSET) if data.get("subset") else []
        for entry in record.get("seeds", []):
            mistakes += _mistakes(entry, _SEED) if isinstance(entry, dict) else ["seeds"]
        for part in record.get("parts", []):
            mistakes += _mistakes_in_known(part, _PART) if isinstance(part, dict) else ["parts"]
    if mistakes:
        raise errors.UserError(f"{path} is not a run record: see its {', '.join(mistakes)}")
    return record


def _config_mistakes(config: Mapping[str, Any]) -> list[str]:
    """What is read of a config beside its comparison; a field may be missing."""
    optimizer = config.get("optimizer", {})
    if not isinstance(optimizer, dict) or not isinstance(optimizer.get("name", ""), str):
        return ["config.optimizer"]
    return [
        f"config.{name}"
        for name, kind in {"seeds": list, "workload": str}.items()
        if not isinstance(config.get(name, kind()), kind)
    ]


def _mistakes_in_known(fields: Mapping[str, Any], types: Mapping[str, type]) -> list[str]:
    """The same of fields that may also be missing."""
    return _mistakes(fields, {name: kind for name, kind in types.items() if name in fields})


def _mistakes(fields: Mapping[str, Any], types: Mapping[str, type]) -> list[str]:
    """The fields that are missing or not of the type they must have."""
    return [
        name
        for name, kind in types.items()
        if not (fields.get(name) is None and name in _CAN_BE_NULL)
        if not isinstance(fields.get(name), (int, float) if kind is float else kind)
    ]


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
        return read_record(self.folder / "run.json")

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
        seeds = sorted({line["seed"] for line in self.log})
        fields = ("step", axis, metric)
        curve = aligned([columns(self._of_seed(seed), fields) for seed in seeds], metric, axis)
        if not curve.x.size:
            known = {name for line in self.log for name in line if "/" in name}
            raise errors.unknown(f"metric in {self.folder}", metric, known)
        return curve

    def _of_seed(self, seed: int) -> list[metrics.Record]:
        return [line for line in self.log if line["seed"] == seed]

    @property
    def diverged(self) -> list[int]:
        """The steps at which seeds diverged."""
        return [entry["steps"] for entry in self.record["seeds"] if entry["status"] == "diverged"]

    def outcomes(self, field: str) -> np.ndarray:
        """A field of the seeds' entries in run.json, float64, without those that are null."""
        values = [entry[field] for entry in self.record["seeds"]]
        return np.array([value for value in values if value is not None], np.float64)


def columns(lines: Iterable[metrics.Record], fields: Iterable[str]) -> dict[str, np.ndarray]:
    """The lines as `Columns` of these fields."""
    lines = list(lines)
    return {field: np.array([line.get(field) for line in lines], np.float64) for field in fields}


def aligned(seeds: Sequence[Columns], metric: str, axis: str) -> Curve:
    """The metric of several seeds over the steps that any of them reached.

    Seeds without a value are left out; without any the curve is empty.
    """
    having = [(own, np.isfinite(own[metric])) for own in seeds]
    having = [(own, mask) for own, mask in having if mask.any()]
    if not having:
        return Curve(np.empty(0), np.empty((0, 0)))
    steps = np.unique(np.concatenate([own["step"][mask] for own, mask in having]))
    x, values = np.full((2, len(having), len(steps)), np.nan)
    for row, (own, mask) in enumerate(having):
        places = np.searchsorted(steps, own["step"][mask])
        x[row, places], values[row, places] = own[axis][mask], own[metric][mask]
    return Curve(np.nanmean(x, axis=0), values)
