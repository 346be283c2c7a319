"""Archived records: runs kept small, with the seeds of several workdirs joined."""

import gzip
import json
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any, BinaryIO

import tqdm

from rkbench import files, records
from rkbench.errors import UserError
from rkbench.records import Run, identity, provenance, read_object, schemas, summary

SWEEP = "sweep.json"


def archive(runs: Sequence[Run], folder: pathlib.Path) -> dict[str, Any]:
    """Writes the runs' seeds as one record into `folder`, and returns the record.

    A seed that several runs have is taken from the first. Paths of the machine are left out.

    Raises:
      UserError: the runs have different configs or data, or one is not finished.
    """
    record = merged(runs)
    folder.mkdir(parents=True, exist_ok=True)
    with files.replacing(folder / "run.json") as file:  # the two appear together
        file.write(json.dumps(record, indent=2).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
        with files.replacing(folder / "metrics.jsonl.gz") as log:
            _pack(runs, log)
    return record


def _pack(runs: Sequence[Run], log: BinaryIO) -> None:
    with gzip.GzipFile("", "wb", fileobj=log, mtime=0) as packed:
        for entry, run in _owners(runs):
            for line in run.lines(entry["seed"]):
                packed.write(json.dumps(line).encode() + b"\n")


def archive_all(folder: pathlib.Path, output: pathlib.Path) -> int:
    """Archives every run below the folder, each at its own path below `output`; their number.

    Raises:
      UserError: there is none, or one is not finished; nothing is written then.
    """

    def is_ours(path: pathlib.Path) -> bool:  # not of an earlier archive below the folder
        inside = output.resolve() != folder.resolve()
        return not (inside and path.resolve().is_relative_to(output.resolve()))

    runs = [run for run in records.read_all([folder]) if is_ours(run.folder)]
    if not runs:
        raise UserError(f"{folder} holds no runs but those in {output}")
    for run in runs:
        merged([run])
    for run in tqdm.tqdm(runs, "archiving", unit="run", delay=1, disable=None):
        archive([run], output / run.folder.relative_to(folder))
    for found in filter(is_ours, records.find(folder, SWEEP)):
        path = found / SWEEP
        record = read_object(path, "a sweep's record", schemas.SweepRecord)
        for part in (record, *record.get("parts", [])):
            part["command"] = _without_paths(part.get("command", []))
        files.write_json(output / path.relative_to(folder), record)
    return len(runs)


def merged(runs: Sequence[Run]) -> dict[str, Any]:
    """The record of all the runs' seeds; see `archive`."""
    first = runs[0].record
    config, data = identity.comparable(first), dict(first.get("data") or {})
    used = first.get("plugins", {})
    for run in runs:
        if run.record.get("status") not in summary.ENDS:
            raise UserError(f"{run.folder} is not finished: {run.record.get('status')!r}")
        differing = identity.differences(identity.comparable(run.record), config)
        differing += identity.data_differences(run.record.get("data") or {}, data)
        differing += identity.differences(run.record.get("plugins", {}), used)
        if differing:
            reason = "; ".join(differing)
            raise UserError(f"{run.folder} and {runs[0].folder} differ in {reason}")
        data |= run.record.get("data") or {}
    owners = _owners(runs)
    seeds = [_confirmed(entry, run) for entry, run in owners]
    return {
        "config_hash": identity.config_hash(config),
        "config": config | {"seeds": [entry["seed"] for entry in seeds]},
        "parts": _joined([part for run in runs for part in parts(run)]),
        "data": data or None,
        **_common_numerics(runs),
        **({"plugins": used} if used else {}),
        "parameters": first.get("parameters"),
        **summary.of_run(seeds),
        "seeds": seeds,
        "logs": {str(e["seed"]): run.logged[e["seed"]].fingerprint for e, run in owners},
    }


def _common_numerics(runs: Sequence[Run]) -> dict[str, Any]:
    """{"numerics": of the runs}; {} where one is from before it was recorded.

    Raises a UserError where those that tell it differ.
    """
    told = [(run, run.record["numerics"]) for run in runs if "numerics" in run.record]
    for run, numerics in told:
        if differing := identity.differences(numerics, told[0][1]):
            raise UserError(
                f"{run.folder} and {told[0][0].folder} were trained under other settings of JAX: "
                f"{'; '.join(differing)}"
            )
    return {"numerics": told[0][1]} if len(told) == len(runs) else {}


def _confirmed(entry: dict[str, Any], run: Run) -> dict[str, Any]:
    """The entry computed again from the log; UserError where it is not the one recorded."""
    if entry["seed"] in run.faults:
        raise UserError(f"{run.folder}: seed {entry['seed']}: {run.faults[entry['seed']]}")
    return run.logged[entry["seed"]].summary(entry)


def _owners(runs: Sequence[Run]) -> list[tuple[dict[str, Any], Run]]:
    """The seeds' entries in order, each with the run it is taken from."""
    owners: dict[int, tuple[dict[str, Any], Run]] = {}
    for run in runs:
        for entry in run.record["seeds"]:
            owners.setdefault(entry["seed"], (entry, run))
    return [owners[seed] for seed in sorted(owners)]


def parts(run: Run) -> list[dict[str, Any]]:
    """How the run's `seeds` came about, for each command that trained some of them.

    As `provenance.parts`, with commands that name no paths.
    """
    found = provenance.parts(run.record)
    for part in found:
        part["command"] = _without_paths(part.get("command", []))
    return found


def _joined(parts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The parts without those of which another tells all: a workdir that was archived before."""

    def tells_of(other: dict[str, Any], part: dict[str, Any]) -> bool:
        same = all(other.get(name) == part.get(name) for name in provenance.PART)
        return same and set(part["seeds"]) <= set(other["seeds"])

    return [
        part
        for number, part in enumerate(parts)
        if not any(tells_of(other, part) for other in parts[number + 1 :])
    ]


_PATH = re.compile(
    r"(--?(?:workdir|config\.data_dir|flagfile|space|results|runs))(=.*)?", re.DOTALL
)


def _without_paths(command: Sequence[str]) -> list[str]:
    """A command line without this machine's folders, whether behind = or arguments of their own."""
    kept: list[str] = []
    is_path = False
    for argument in command:
        match = _PATH.fullmatch(argument)
        if is_path or match is None:
            kept.append("DIR" if is_path else argument)
        else:
            kept.append(f"{match[1]}=DIR" if match[2] else argument)
        is_path = not is_path and match is not None and not match[2]
    return kept
