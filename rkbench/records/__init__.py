"""Finished runs as their folders hold them: the only thing that tables and figures read."""

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from rkbench import errors
from rkbench.records import logs, metrics, schemas
from rkbench.records.logs import Columns

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


@dataclasses.dataclass(frozen=True)
class Curve:
    """One metric of several seeds at the steps where it was measured.

    Attributes:
      x: what it is drawn against, float64 [points], the mean over the seeds.
      values: float64 [seeds, points]; NaN where a seed has no value any more (it diverged).
    """

    x: np.ndarray
    values: np.ndarray


def read_object(path: pathlib.Path, what: str, schema: Any = schemas.Object) -> dict[str, Any]:
    """The JSON object in a file, as data: nothing in it is executed.

    Args:
      path: the file.
      what: it should be, for messages.
      schema: its type, as msgspec checks it: see `schemas`.

    Raises:
      UserError: the file cannot be read, or does not hold such an object.
    """
    try:
        if os.path.lexists(path) and not path.is_file():
            raise errors.UserError(f"{path} cannot be read: it is not a file")
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise errors.UserError(f"{path} is not {what}: it is not a JSON object")
        _check_plain(found, schemas.MOST_LEVELS)
        msgspec.convert(found, schema)
    except OSError as error:
        raise errors.because(f"{path} cannot be read", error) from error
    except errors.UserError:
        raise
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise errors.UserError(f"{path} is not {what} ({error})") from error
    return found


def _check_plain(value: Any, levels: int) -> None:
    """Raises a ValueError where something is nested too deep, or is text beyond UTF-8."""
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, dict | list):
        if not levels:
            raise ValueError(f"nested deeper than {schemas.MOST_LEVELS}")
        for one in value if isinstance(value, list) else [*value, *value.values()]:
            _check_plain(one, levels - 1)


def read_record(path: pathlib.Path) -> dict[str, Any]:
    """What a run.json says, which is a `schemas.RunRecord`.

    Raises:
      UserError: there is no such file, or it is not a run record.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise errors.UserError(f"{path.parent} holds no run: there is no {path.name}") from error
    except (OSError, ValueError):
        pass  # read_object says what it is
    what = "a run record"
    record = read_object(path, what, schemas.RunRecord)
    if (record.get("data") or {}).get("subset"):
        read_object(path, what, schemas.RunOfSubset)
    seeds = [entry["seed"] for entry in record.setdefault("seeds", [])]
    if twice := [seed for seed in dict.fromkeys(seeds) if seeds.count(seed) > 1]:
        raise errors.UserError(f"{path} is not {what} (seed {twice[0]} is in it twice)")
    return record


def find(top: pathlib.Path, name: str = "run.json") -> list[pathlib.Path]:
    """The folders in and below `top` that have a file of this name, by their paths.

    Links to folders are followed, and a folder that can be reached in several ways is found once:
    by its own path, if it lies below `top`. A folder that cannot be entered may have the file and
    is found, so that reading it says what is wrong.

    Raises:
      UserError: `top` is not a folder.
    """
    if not top.is_dir():
        raise errors.UserError(f"{top} is not a folder")
    seen: set[tuple[int, int]] = set()
    found, waiting = [], [top]
    while waiting:
        for path, folders, files in os.walk(
            waiting.pop(0), onerror=lambda error: found.append(pathlib.Path(error.filename))
        ):
            status = os.stat(path)
            if (status.st_dev, status.st_ino) in seen:
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            if name in files:
                found.append(pathlib.Path(path))
            folder = pathlib.Path(path)
            waiting += [folder / one for one in sorted(folders) if (folder / one).is_symlink()]
    return sorted(found)


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

    @property
    def log(self) -> list[metrics.Line]:
        """All lines of its log; `logged` holds them in a tenth of the memory."""
        return list(metrics.read(self._log))

    def lines(self, seed: int) -> Iterator[metrics.Line]:
        """The lines of one seed, read one by one."""
        return (line for line in metrics.read(self._log) if line["seed"] == seed)

    @property
    def _log(self) -> pathlib.Path:
        """metrics.jsonl, or metrics.jsonl.gz where the run is archived."""
        plain = self.folder / "metrics.jsonl"
        return plain if os.path.lexists(plain) else plain.with_suffix(".jsonl.gz")

    @functools.cached_property
    def logged(self) -> dict[int, logs.Logged]:
        """{seed: what the log holds of it}."""
        return logs.read(self._log)

    @functools.cached_property
    def faults(self) -> dict[int, str]:
        """{seed: why its log is not the one recorded}, for those of which that is so.

        Whatever shows numbers of a run asks here, and leaves these seeds out; see `logs.fault`.
        """
        recorded, interval = self.record.get("logs", {}), _interval(self.record["config"])
        found = {
            entry["seed"]: logs.fault(
                entry,
                self.logged.get(entry["seed"]),
                recorded.get(str(entry["seed"])),
                interval,
            )
            for entry in self.record["seeds"]
        }
        return {seed: why for seed, why in found.items() if why}

    @property
    def entries(self) -> list[dict[str, Any]]:
        """The entries of run.json, without those of the seeds with `faults`."""
        return [entry for entry in self.record["seeds"] if entry["seed"] not in self.faults]

    def curve(self, metric: str, axis: str = "step") -> Curve:
        """The metric against `axis` (a key of `AXES`), over the steps that any seed reached.

        Raises:
          UserError: the log has no such metric.
        """
        seeds = sorted(entry["seed"] for entry in self.entries)
        curve = aligned([self.logged[seed].columns for seed in seeds], metric, axis)
        if not curve.x.size:
            known = {name for seed in seeds for name in self.logged[seed].columns if "/" in name}
            raise errors.unknown(f"metric in {self.folder}", metric, known)
        return curve

    @property
    def diverged(self) -> list[int]:
        """The steps at which seeds diverged."""
        return [entry["steps"] for entry in self.entries if entry["status"] == "diverged"]

    def outcomes(self, field: str) -> np.ndarray:
        """A field of the `entries`, float64, without those that are null."""
        values = [entry.get(field) for entry in self.entries]
        return np.array([value for value in values if value is not None], np.float64)


def _interval(config: Mapping[str, Any]) -> int:
    """The steps between two lines of a log: a seed that diverged may have none where it ended."""
    every = (config.get("eval_every_steps"), config.get("log_every_steps"))
    return min((steps for steps in every if steps), default=config.get("total_steps", 0))


def aligned(seeds: Sequence[Columns], metric: str, axis: str) -> Curve:
    """The metric of several seeds over the steps that any of them reached.

    Seeds without a value are left out; without any the curve is empty.
    """
    having = [(own, np.isfinite(own[metric])) for own in seeds if metric in own]
    having = [(own, mask) for own, mask in having if mask.any()]
    if not having:
        return Curve(np.empty(0), np.empty((0, 0)))
    steps = np.unique(np.concatenate([own["step"][mask] for own, mask in having]))
    x, values = np.full((2, len(having), len(steps)), np.nan)
    for row, (own, mask) in enumerate(having):
        places = np.searchsorted(steps, own["step"][mask])
        x[row, places], values[row, places] = own[axis][mask], own[metric][mask]
    return Curve(np.nanmean(x, axis=0), values)


def read_all(folders: Iterable[pathlib.Path]) -> list[Run]:
    """Every run in or below the folders, once each, in the order of their paths.

    Raises:
      UserError: a folder holds none.
    """
    found: dict[pathlib.Path, Run] = {}
    for folder in folders:
        own = find(folder)
        if not own:
            raise errors.UserError(f"{folder} holds no runs: no run.json in it or below")
        for one in own:
            found.setdefault(one.resolve(), Run(one))
    return list(found.values())
