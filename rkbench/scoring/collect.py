"""From folders to settings: runs that differ in nothing but seeds, and why others were left out.

Numbers are averaged over the seeds of one setting and never over anything else. Settings with the
same task (data, model, batch) can be compared.
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tqdm

from rkbench import records
from rkbench.configs import default
from rkbench.configs.fields import Role
from rkbench.errors import UserError
from rkbench.records import Run, identity
from rkbench.records.names import Namer
from rkbench.scoring.outcomes import SeedLog
from rkbench.texts import printable


@dataclasses.dataclass(frozen=True)
class Omission:
    """A run, or part of it, that no number contains."""

    folder: pathlib.Path
    reason: str

    def __str__(self) -> str:
        return printable(f"{self.folder}: {self.reason}")


@dataclasses.dataclass(frozen=True)
class Setting:
    """One method with one choice of hyperparameters on one task.

    Attributes:
      task: the name of data, model and batch; unlike tasks have unlike names.
      method: the optimizer's name, with what tells it from the task's other settings.
      config: the plain config, without what decides nothing (seeds, folders).
      data: what run.json says of the data.
      logs: its seeds, ordered.
    """

    task: str
    method: str
    config: Mapping[str, Any]
    data: Mapping[str, Any]
    logs: tuple[SeedLog, ...]

    @property
    def optimizer(self) -> str:
        """The optimizer's name alone."""
        return self.config["optimizer"]["name"]


@dataclasses.dataclass(frozen=True)
class Collection:
    """All that was found."""

    settings: tuple[Setting, ...]
    omissions: tuple[Omission, ...]


def collect(folders: Iterable[pathlib.Path]) -> Collection:
    """Reads every run in or below the folders.

    What is unfinished, damaged, cut off or there twice is left out and named.

    Raises:
      UserError: there is no such folder, or no run in one.
    """
    groups: dict[str, tuple[Mapping, Mapping, dict[int, SeedLog]]] = {}
    omissions: list[Omission] = []
    runs = records.read_all(folders)
    contents = _contents(runs)
    for run in tqdm.tqdm(runs, "reading", unit="run", delay=1, disable=None):
        try:
            config, data = identity.comparable(run.record), run.record.get("data") or {}
            if len(only := contents.get(_told(data), ())) == 1:
                data = {**data, "sha256": min(only)}  # of records older than the field too
            logs = list(_seed_logs(run, omissions))
        except UserError as error:
            omissions.append(Omission(run.folder, str(error)))
            continue
        key = alike({"config": config, "data": data})
        _, _, known = groups.setdefault(key, (config, data, {}))
        for log in logs:
            if (first := known.setdefault(log.seed, log)) is not log:
                reason = f"seed {log.seed} is in {first.folder} already"
                omissions.append(Omission(run.folder, reason))
    found = [group for group in groups.values() if group[2]]
    return Collection(_settings(found), tuple(omissions))


def _contents(runs: Iterable[Run]) -> dict[str, set[str]]:
    """By all else that the runs' records tell of their data: the digests of the content."""
    found: dict[str, set[str]] = {}
    for run in runs:
        with contextlib.suppress(UserError):  # `collect` names it
            data = run.record.get("data") or {}
            if "sha256" in data:
                found.setdefault(_told(data), set()).add(str(data["sha256"]))
    return found


def _told(data: Mapping[str, Any]) -> str:
    return identity.canonical({k: v for k, v in data.items() if k != "sha256"})


def without_paths(collection: Collection, name: Namer) -> Collection:
    """The collection with the names of runs in place of their paths in why others were left out."""
    folders = {log.folder for setting in collection.settings for log in setting.logs}
    folders |= {omission.folder for omission in collection.omissions}
    longest_first = sorted(folders, key=lambda folder: -len(str(folder)))

    def named(reason: str) -> str:
        for folder in longest_first:
            reason = reason.replace(str(folder), name(folder))
        return reason

    omissions = tuple(Omission(o.folder, named(o.reason)) for o in collection.omissions)
    return dataclasses.replace(collection, omissions=omissions)


def _seed_logs(run: Run, omissions: list[Omission]) -> Iterable[SeedLog]:
    """The seeds that came to an end and whose log is whole; the others become omissions."""
    entries = {entry["seed"]: entry for entry in run.record["seeds"]}
    wanted = run.record["config"].get("seeds") or []
    if unfinished := [seed for seed in wanted if seed not in entries]:
        reason = f"status {run.record.get('status')!r}: no result of seeds {unfinished}"
        if "error" in run.record:
            reason += f" ({printable(run.record['error'])})"
        omissions.append(Omission(run.folder, reason))
    for seed, entry in entries.items():
        if seed in run.faults:
            omissions.append(Omission(run.folder, f"seed {seed}: {run.faults[seed]}"))
        else:
            columns = run.logged[seed].columns
            yield SeedLog(run.folder, seed, entry["status"] == "diverged", columns)


def _settings(groups: Sequence[tuple[Mapping, Mapping, Mapping[int, SeedLog]]]) -> tuple:
    """The groups as settings, tasks together and in the order in which they were found."""
    tasks = distinct_names(
        [config["workload"] for config, _, _ in groups],
        [_task(config, data) for config, data, _ in groups],
        derived="data.",
    )
    settings = [
        Setting(task, "", config, data, tuple(logs[seed] for seed in sorted(logs)))
        for task, (config, data, logs) in zip(tasks, groups, strict=True)
    ]
    return with_methods(sorted(settings, key=lambda setting: setting.task))


def with_methods(settings: Sequence[Setting]) -> tuple[Setting, ...]:
    """The settings with methods that tell them apart from one another within each task."""
    names = distinct_names(
        [f"{setting.task}\n{setting.optimizer}" for setting in settings],
        [flat(setting.config) for setting in settings],
    )
    return tuple(
        dataclasses.replace(setting, method=name.split("\n", 1)[1])
        for setting, name in zip(settings, names, strict=True)
    )


def _task(config: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that two runs must share to be compared."""
    other = default.names(role=Role.METHOD) | default.names(role=Role.RUN)
    rest = {name: value for name, value in config.items() if name not in other}
    return flat({**rest, "data": data})


def flat(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"group.field": value} of a plain config."""
    fields = {}
    for name, value in mapping.items():
        if isinstance(value, Mapping):
            fields |= flat(value, f"{prefix}{name}.")
        else:
            fields[prefix + name] = value
    return fields


def alike(content: Any) -> str:
    """Plain content as one text, which is equal for equal content: 1 and 1.0 are one number."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: plain(one) for name, one in value.items()}
        if isinstance(value, list | tuple):
            return [plain(one) for one in value]
        return int(value) if isinstance(value, float) and value.is_integer() else value

    return identity.canonical(plain(content))


def distinct_names(
    names: Sequence[str], fields: Sequence[Mapping[str, Any]], derived: str | None = None
) -> list[str]:
    """Each name, with the fields in brackets in which those of the same name differ.

    Fields that begin with `derived` follow from others, as what is in the data does, and are shown
    only where the others do not tell all apart.
    """
    unique = []
    for name, own in zip(names, fields, strict=True):
        same = [other for n, other in zip(names, fields, strict=True) if n == name]
        differing: list[str] = []
        parts = 1  # into which those shown so far part the same
        for field in sorted(
            dict.fromkeys(field for other in same for field in other),
            key=lambda field: derived is not None and field.startswith(derived),
        ):
            if len({alike(other.get(field)) for other in same}) == 1:
                continue
            finer = len({alike([other.get(f) for f in (*differing, field)]) for other in same})
            if finer > parts or derived is None or not field.startswith(derived):
                differing.append(field)
                parts = finer
        shown = ", ".join(f"{field.split('.')[-1]}={own.get(field)}" for field in differing)
        unique.append(f"{name} ({printable(shown)})" if shown else name)
    return unique
