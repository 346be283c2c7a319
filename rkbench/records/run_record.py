"""`run.json`: what ran, on what, how far it came and what came out; and who owns a workdir."""

import copy
import datetime
import fcntl
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

import rkbench
from rkbench import __version__, errors, files, plugins, records
from rkbench.configs import default
from rkbench.configs.common import number

Record = dict[str, Any]

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "ml-collections", "clu")

# Where the data lies and who prepares it, how a run is reported, in which pieces it is evaluated,
# over which devices it is spread (rounding of sums) and which other seeds there are: what a seed
# learns depends on none of these.
_NOT_IDENTITY = ("data_dir", "eval_batch_size", "input_workers", "mesh", "seeds", "tensorboard")

# Fields that are younger than the first published records: with these values they change nothing,
# and so no hash.
_NEWER = {"max_grad_evals": 0}


def plain_config(config) -> Record:
    """The config as JSON holds it."""
    return plain(config.to_dict())


def plain(content: Any) -> Any:
    """The content as JSON holds it: tuples and arrays become lists, NumPy's numbers Python's.

    Raises:
      UserError: it holds something else than numbers, texts and collections of them.
    """
    return json.loads(json.dumps(content, default=_plain))


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # of NumPy or JAX
        return value.tolist()
    raise errors.UserError(f"{value!r} cannot be recorded: JSON holds numbers, texts and lists")


def identity(config: Record) -> Record:
    """The fields that decide a seed's numbers: configs that agree in them can share a folder."""
    return {
        name: value
        for name, value in config.items()
        if name not in _NOT_IDENTITY and not (name in _NEWER and value == _NEWER[name])
    }


def config_hash(config: Record) -> str:
    """16 hexadecimal digits that name the identity of a plain config."""
    return hashlib.sha256(canonical(identity(config)).encode()).hexdigest()[:16]


def canonical(content: Any) -> str:
    """Plain content as the one text that stands for it, whatever the order of its fields."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def comparable(record: Record) -> Record:
    """The identity of a record's config, with the fields that are newer than the record.

    Real numbers of the optimizer are floats: `eps=1` and `eps=1.0` are one setting.
    """
    found = identity(completed(record["config"], plain_config(default.get_config())))
    optimizer = found.get("optimizer", {})
    return found | {"optimizer": {name: number(name, value) for name, value in optimizer.items()}}


def completed(config: Mapping, defaults: Mapping) -> Record:
    """A recorded config with the fields that have come since: they had their defaults then."""
    filled = dict(config)
    for name, value in defaults.items():
        if name not in config:
            filled[name] = value
        elif isinstance(value, Mapping) and isinstance(config[name], Mapping):
            filled[name] = completed(config[name], value)
    return filled


def differences(a: Mapping, b: Mapping, prefix: str = "") -> list[str]:
    """The fields in which two plain configs differ, as "name: one -> other"."""
    lines = []
    for name in sorted(a.keys() | b.keys()):
        one, other = a.get(name), b.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            lines += differences(one, other, f"{prefix}{name}.")
        elif one != other:
            lines.append(f"{prefix}{name}: {one!r} -> {other!r}")
    return lines


def data_differences(a: Mapping, b: Mapping) -> list[str]:
    """The `differences` of two records' data; what is newer than one of them says nothing."""
    newer = {"sha256"} - (a.keys() & b.keys())
    one, other = ({k: v for k, v in data.items() if k not in newer} for data in (a, b))
    return differences(one, other)


def write_json(path: pathlib.Path, content: Record) -> None:
    """Replaces the file in one step: a reader or a crash sees the old content or the new."""
    files.write_text(path, json.dumps(content, indent=2) + "\n")


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
        plain = plain_config(config)
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
        self.record = existing | {"config_hash": config_hash(plain), "config": plain}
        self._part: Record | None = None  # that of this process

    def _existing(self, config: Record) -> Record:
        path = self.folder / "run.json"
        if not os.path.exists(path):  # False also where the name is too long to exist
            for name in ("metrics.jsonl", "checkpoints"):
                if os.path.lexists(self.folder / name):
                    raise errors.UserError(f"{self.folder} has {name} but no run.json: not a run's")
            return {}
        record = records.read_record(path)
        if "config" not in record:
            raise errors.UserError(f"{path} is not a run record: it has no config")
        recorded = identity(completed(record["config"], plain_config(default.get_config())))
        if differing := differences(recorded, identity(config)):
            rates = self._learning_rates
            longer = rates is not None and _is_longer(recorded, identity(config))
            remedy = _why_not_extended(record, recorded, config, rates) if rates and longer else ""
            if longer and not remedy:
                return record
            raise errors.UserError(
                f"{self.folder} belongs to another config; it differs in "
                f"{'; '.join(differing)}{remedy}"
            )
        return record

    def check_data(self, data: Record) -> None:
        """Raises a UserError where the run has begun on other data than these."""
        self._check_same("data", data, "on other data; they differ in")

    def check_plugins(self, used: Record) -> None:
        """Raises a UserError where the run has begun with what another plug-in calls the same."""
        recorded = self.record.get("plugins", used)
        before, now = (
            {kind: origin["plugin"] for kind, origin in told.items()} for told in (recorded, used)
        )
        if differing := differences(before, now):
            raise errors.UserError(
                f"{self.folder} was begun with other plug-ins: {'; '.join(differing)}"
            )

    def check_numerics(self) -> None:
        """Raises a UserError where the run has begun under other `numerics`."""
        self._check_same(
            "numerics",
            numerics(),
            "under other settings of JAX (environment variables of the same names set them), which "
            "change its numbers; they differ in",
        )

    def _check_same(self, field: str, here: Record, how: str) -> None:
        recorded = self.record.get(field)
        if recorded and (differing := data_differences(recorded, plain(here))):
            raise errors.UserError(f"{self.folder} was begun {how} {'; '.join(differing)}")

    def begin(self, **fields: Any) -> None:
        """Writes that this process goes on with the run, and under what."""
        self.record["parts"] = parts(self.record)
        self.write(**environment(), status="running", numerics=numerics(), **fields)

    def begin_group(self, seeds: Sequence[int]) -> None:
        """Writes that this process trains these seeds, and that they train together."""
        if self._part is None:
            self._part = continued(self.record["parts"], self.record)
        self._part["seeds"] = sorted({*self._part.get("seeds", []), *seeds})
        groups = [group for group in self.record.get("groups", []) if group != list(seeds)]
        self.write(groups=[*groups, list(seeds)])

    def write(self, **changes: Any) -> None:
        """Changes fields of the record and writes it."""
        self.record |= changes
        if self._lock is not None:
            write_json(self.folder / "run.json", self.record)

    def compiled(self, programs: int) -> None:
        """Notes how many programs this process has compiled for the run."""
        for own in (self.record, self._part):
            if own is not None:
                own["compilations"] = programs

    def close(self) -> None:
        """Gives the folder free."""
        if self._lock is not None:
            self._lock.close()


def _is_longer(recorded: Record, config: Record) -> bool:
    """Whether nothing but the number of steps differs, and has grown."""
    steps = recorded.get("total_steps")
    same = not differences(recorded | {"total_steps": config["total_steps"]}, config)
    return same and isinstance(steps, int) and config["total_steps"] > steps


def _why_not_extended(
    record: Record, recorded: Record, config: Record, learning_rates: Callable[[Any], np.ndarray]
) -> str:
    """What stands against training a run to a later end, with the remedy; "" where nothing does."""
    steps = recorded["total_steps"]
    rates = [learning_rates(ml_collections.ConfigDict(one)) for one in (recorded, config)]
    if not np.array_equal(rates[0], rates[1][:steps]):
        return (
            f"; schedule.name={config['schedule']['name']!r} depends on the end, so that a longer "
            "run is another from its first step on: train it in another --workdir"
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
    """Raises a UserError where something of another kind has the place of a file or folder.

    A link is refused: what it leads to may be anybody's.

    And where one cannot be written: better now than at the first checkpoint.
    """
    checkpoints = folder / "checkpoints"
    groups = checkpoints.glob("seed-*") if os.path.isdir(checkpoints) else ()
    folders = [path for path in (*(folder / n for n in _FOLDERS), *groups) if os.path.lexists(path)]
    plain = [path for path in (folder / name for name in _FILES) if os.path.lexists(path)]
    for path in folders:
        if path.is_symlink() or not path.is_dir():
            raise errors.UserError(f"{path} is in the way: it must be a folder, and no link")
    for path in plain:
        if path.is_symlink() or not path.is_file():
            raise errors.UserError(f"{path} is in the way: it must be a file, and no link")
    for path in (folder, *folders, *plain):
        if os.path.exists(path) and not os.access(path, os.W_OK):
            raise errors.UserError(f"workdir {folder} cannot be written: {path} is read-only")


def _locked(folder: pathlib.Path):
    """The folder's lock file, held until it is closed; the kernel frees it when a process dies."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = files.appending(folder / ".lock")  # held until close()
    except (OSError, ValueError) as error:  # ValueError: a null byte
        reason = getattr(error, "strerror", error)
        raise errors.UserError(f"workdir {folder} cannot be written: {reason}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise errors.UserError(f"workdir {folder} is in use by another process") from error
    return lock


PART = ("command", "started", "host", "devices", "processes", "commit", "dirty", "versions")
"""What tells where a part of a run came from."""


def parts(record: Record) -> list[Record]:
    """How the record's `seeds` came about: one entry for each command that trained some of them.

    Each has its `seeds` and, as far as the record says, the fields of `PART`; `resumed` are the
    times at which the same command went on. A seed that several commands trained is in the parts of
    all of them. Records from before there were parts have one, from their own fields.
    """
    if "parts" in record:
        return copy.deepcopy(record["parts"])
    if "command" not in record and not record.get("seeds"):
        return []
    part = {name: record[name] for name in (*PART, "compilations") if name in record}
    return [copy.deepcopy(part) | {"seeds": [entry["seed"] for entry in record.get("seeds", [])]}]


def continued(parts: list[Record], origin: Record) -> Record:
    """The part among `parts` of a process that tells its `environment` in `origin`.

    Where the latest has the same command, machine, source and versions, the process continues it;
    else a new one is added.
    """
    own = {name: origin[name] for name in PART if name in origin}
    for part in parts[-1:]:
        if all(part.get(name) == own.get(name) for name in PART if name != "started"):
            if own["started"] not in (part["started"], *part.get("resumed", [])[-1:]):
                part.setdefault("resumed", []).append(own["started"])
            return part
    parts.append(own)
    return own


# Beside config, data and versions these decide a seed's numbers.
_NUMERICS = (
    "jax_enable_x64",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_random_seed_offset",
    "jax_default_matmul_precision",
)


def numerics() -> Record:
    """The settings of JAX that change numbers, by JAX's own names."""
    import jax  # here alone: records are read without it

    return {name: getattr(jax.config, name) for name in _NUMERICS}


def environment() -> Record:
    """Command line, versions, commit and devices of this process."""
    import jax  # here alone: records are read without it

    commit, dirty = source_commit()
    return {
        "command": [pathlib.Path(sys.argv[0]).name, *sys.argv[1:]],
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "host": {"platform": platform.platform(), "cpus": os.cpu_count()},
        "devices": [f"{device.platform}: {device.device_kind}" for device in jax.devices()],
        "processes": jax.process_count(),
        "commit": commit,
        "dirty": dirty,
        "versions": {"rkbench": __version__, "python": platform.python_version()}
        | {package: importlib.metadata.version(package) for package in _PACKAGES}
        | plugins.versions(),
    }


def source_commit() -> tuple[str | None, bool | None]:
    """The commit of the source tree and whether it has uncommitted changes outside results/.

    Where the source is not a git repository, RKBENCH_COMMIT tells both, as "1a2b3c" or
    "1a2b3c-dirty": whoever installed it on another machine knew. None where nobody does.
    """

    package = pathlib.Path(rkbench.__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=package, capture_output=True, text=True, check=True, timeout=20
        ).stdout.strip()

    try:
        if pathlib.Path(git("rev-parse", "--show-toplevel")) != package.parent:
            return _told_commit()  # installed inside somebody else's repository
        code = ("--", ":/", ":(top,exclude)results")
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", *code))
    except (OSError, subprocess.SubprocessError):
        return _told_commit()


def _told_commit() -> tuple[str | None, bool | None]:
    told = os.environ.get("RKBENCH_COMMIT")
    return (told.removesuffix("-dirty"), told.endswith("-dirty")) if told else (None, None)
