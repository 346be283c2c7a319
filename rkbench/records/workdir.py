"""A run's folder and its `run.json`: who owns it, whose it is, how far the run has come."""

import fcntl
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import ml_collections
import numpy as np

from rkbench import errors, files, records
from rkbench.configs import default
from rkbench.records import identity, provenance
from rkbench.records.schemas import Object


class Workdir:
    """A run's folder, owned by this process until `close`."""

    def __init__(
        self,
        folder: pathlib.Path,
        config: Any,
        writes: bool = True,
        learning_rates: Callable[[Any], np.ndarray] | None = None,
    ):
        """Takes the folder, making it if need be, and reads its record.

        Args:
          folder: the run's.
          config: the run's, a ConfigDict.
          writes: false in all but one of the processes of a run: the record is kept in memory and
            nothing is written.
          learning_rates: config -> the rate of every step. By it a run can be extended whose rates
            do not depend on its end; without it none can.

        Raises:
          UserError: it cannot be written, another process owns it, or it belongs to another config.
        """
        self.folder = folder
        self._learning_rates = learning_rates
        plain = identity.plain_config(config)
        _check_entries(folder)
        if not os.path.lexists(folder / ".lock"):
            self._existing(plain)  # refused before anything is made in it
        self._lock = _locked(folder) if writes else None
        try:
            existing = self._existing(plain)
        except errors.UserError:
            self.close()
            raise
        # The seeds of the last command, which tell in older records what trained together.
        self.seeds_before = tuple(existing.get("config", {}).get("seeds", ()))
        before = existing.get("config", {}).get("total_steps", plain["total_steps"])
        self.earlier_end: int | None = before if before < plain["total_steps"] else None
        self.record = existing | {"config_hash": identity.config_hash(plain), "config": plain}
        self._part: Object | None = None  # that of this process

    def _existing(self, config: Object) -> Object:
        path = self.folder / "run.json"
        if not os.path.exists(path):  # False also where the name is too long to exist
            for name in ("metrics.jsonl", "checkpoints"):
                if os.path.lexists(self.folder / name):
                    raise errors.UserError(f"{self.folder} has {name} but no run.json: not a run's")
            return {}
        record = records.read_record(path)
        if "config" not in record:
            raise errors.UserError(f"{path} is not a run record: it has no config")
        defaults = identity.plain_config(default.get_config())
        recorded = identity.of(identity.completed(record["config"], defaults))
        if differing := identity.differences(recorded, identity.of(config)):
            rates = self._learning_rates
            longer = rates is not None and _is_longer(recorded, identity.of(config))
            remedy = _why_not_extended(record, recorded, config, rates) if rates and longer else ""
            if longer and not remedy:
                return record
            raise errors.UserError(
                f"{self.folder} belongs to another config; it differs in "
                f"{'; '.join(differing)}{remedy}"
            )
        return record

    def check_data(self, data: Object) -> None:
        """Raises a UserError where the run has begun on other data than these."""
        self._check_same("data", data, "on other data; they differ in")

    def check_plugins(self, used: Object) -> None:
        """Raises a UserError where the run has begun with what another plug-in calls the same."""
        recorded = self.record.get("plugins", used)
        before, now = (
            {kind: origin["plugin"] for kind, origin in told.items()} for told in (recorded, used)
        )
        if differing := identity.differences(before, now):
            raise errors.UserError(
                f"{self.folder} was begun with other plug-ins: {'; '.join(differing)}"
            )

    def check_numerics(self) -> None:
        """Raises a UserError where the run has begun under other `numerics`."""
        self._check_same(
            "numerics",
            provenance.numerics(),
            "under other settings of JAX (environment variables of the same names set them), which "
            "change its numbers; they differ in",
        )

    def _check_same(self, field: str, here: Object, how: str) -> None:
        recorded = self.record.get(field)
        if recorded and (differing := identity.data_differences(recorded, identity.plain(here))):
            raise errors.UserError(f"{self.folder} was begun {how} {'; '.join(differing)}")

    def begin(self, **fields: Any) -> None:
        """Writes that this process goes on with the run, and under what."""
        self.record["parts"] = provenance.parts(self.record)
        origin, numerics = provenance.environment(), provenance.numerics()
        self.write(**origin, status="running", numerics=numerics, **fields)

    def begin_group(self, seeds: Sequence[int]) -> None:
        """Writes that this process trains these seeds, and that they train together."""
        if self._part is None:
            self._part = provenance.continued(self.record["parts"], self.record)
        self._part["seeds"] = sorted({*self._part.get("seeds", []), *seeds})
        groups = [group for group in self.record.get("groups", []) if group != list(seeds)]
        self.write(groups=[*groups, list(seeds)])

    def write(self, **changes: Any) -> None:
        """Changes fields of the record and writes it."""
        self.record |= changes
        if self._lock is not None:
            files.write_json(self.folder / "run.json", self.record)

    def compiled(self, programs: int) -> None:
        """Notes how many programs this process has compiled for the run."""
        for own in (self.record, self._part):
            if own is not None:
                own["compilations"] = programs

    def close(self) -> None:
        """Lets other processes own the folder."""
        if self._lock is not None:
            self._lock.close()


def _is_longer(recorded: Object, config: Object) -> bool:
    """Whether nothing but the number of steps differs, and has grown."""
    steps = recorded.get("total_steps")
    same = not identity.differences(recorded | {"total_steps": config["total_steps"]}, config)
    return same and isinstance(steps, int) and config["total_steps"] > steps


def _why_not_extended(
    record: Object, recorded: Object, config: Object, learning_rates: Callable[[Any], np.ndarray]
) -> str:
    """Why a run cannot be trained to a later end, with the remedy; "" where it can."""
    steps = recorded["total_steps"]
    rates = [learning_rates(ml_collections.ConfigDict(one)) for one in (recorded, config)]
    if not np.array_equal(rates[0], rates[1][:steps]):
        return (
            f"; schedule.name={config['schedule']['name']!r} depends on the end, so that a longer "
            "run differs from its first step on: train it in another --workdir"
        )
    seeds = {entry["seed"] for entry in record.get("seeds", [])}
    if left := sorted(seeds - set(config["seeds"])):
        wanted = ",".join(map(str, sorted(seeds | set(config["seeds"]))))
        return (
            f"; seeds {left} of it would stay at step {steps}: extend all seeds together, "
            f"--config.seeds={wanted}"
        )
    return ""


# What a run makes in its folder: files, and folders.
_FILES = ("run.json", "metrics.jsonl", ".lock")
_FOLDERS = ("checkpoints", "tensorboard")


def _check_entries(folder: pathlib.Path) -> None:
    """Raises a UserError where something that is not a file or folder of a run has its name.

    A link is refused, because what it leads to may belong to anybody. So is what cannot be written:
    better now than at the first checkpoint.
    """
    checkpoints = folder / "checkpoints"
    groups = checkpoints.glob("seed-*") if os.path.isdir(checkpoints) else ()
    folders = [path for path in (*(folder / n for n in _FOLDERS), *groups) if os.path.lexists(path)]
    plain = [path for path in (folder / name for name in _FILES) if os.path.lexists(path)]
    for path in folders:
        if path.is_symlink() or not path.is_dir():
            raise errors.UserError(f"{path} is in the way: it must be a folder, not a link")
    for path in plain:
        if path.is_symlink() or not path.is_file():
            raise errors.UserError(f"{path} is in the way: it must be a file, not a link")
    for path in (folder, *folders, *plain):
        if os.path.exists(path) and not os.access(path, os.W_OK):
            raise errors.UserError(f"workdir {folder} cannot be written: {path} is read-only")


def _locked(folder: pathlib.Path):
    """The folder's lock file, held until it is closed; the kernel frees it when a process dies."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = files.appending(folder / ".lock")  # held until close()
    except (OSError, ValueError) as error:  # ValueError: a null byte
        raise errors.because(f"workdir {folder} cannot be written", error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise errors.UserError(f"workdir {folder} is in use by another process") from error
    return lock
