"""Where numbers come from: commands, machines, versions, the source's commit, settings of JAX."""

import copy
import datetime
import importlib.metadata
import os
import pathlib
import platform
import subprocess
import sys

import rkbench
from rkbench import plugins
from rkbench.records.schemas import Object

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "ml-collections", "clu")

PART = ("command", "started", "host", "devices", "processes", "commit", "dirty", "versions")
"""The fields that say where a part of a run came from."""


def parts(record: Object) -> list[Object]:
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


def continued(parts: list[Object], origin: Object) -> Object:
    """The part that a process with the `environment` `origin` contributes to, among `parts`.

    If the latest part has the same command, machine, source and versions, it is that one; otherwise
    a new part is added.
    """
    own = {name: origin[name] for name in PART if name in origin}
    for part in parts[-1:]:
        if all(part.get(name) == own.get(name) for name in PART if name != "started"):
            if own["started"] not in (part["started"], *part.get("resumed", [])[-1:]):
                part.setdefault("resumed", []).append(own["started"])
            return part
    parts.append(own)
    return own


# Besides config, data and versions, these settings decide a seed's numbers.
_NUMERICS = (
    "jax_enable_x64",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_random_seed_offset",
    "jax_default_matmul_precision",
)


def numerics() -> Object:
    """The settings of JAX that change numbers, by JAX's own names."""
    import jax  # here alone: records are read without it

    return {name: getattr(jax.config, name) for name in _NUMERICS}


def environment() -> Object:
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
        "versions": {"rkbench": rkbench.__version__, "python": platform.python_version()}
        | {package: importlib.metadata.version(package) for package in _PACKAGES}
        | plugins.versions(),
    }


def source_commit() -> tuple[str | None, bool | None]:
    """The commit of the source tree and whether it has uncommitted changes outside results/.

    Where the source is not a git repository, the environment variable RKBENCH_COMMIT gives both, as
    "1a2b3c" or "1a2b3c-dirty": it is set by whoever installs rkbench on another machine. None where
    it is not set.
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
