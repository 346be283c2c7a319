"""The rows of a report: every seed of every run, whether or not it is part of an average."""

import dataclasses
import pathlib
from collections.abc import Sequence

from rkbench import records
from rkbench.errors import UserError
from rkbench.records import Run, identity
from rkbench.scoring import Collection, SeedLog


@dataclasses.dataclass(frozen=True)
class Row:
    """One seed of one run.

    Attributes:
      run: of which.
      log: its lines; `log.diverged` says whether it diverged.
      status: "done", "diverged", or what run.json says of a run without a result of this seed.
      setting: the place of its setting in the collection; None where no run of it is whole.
      ended: whether its log reaches its last step, so that it has a final value.
      averaged: whether it is part of the setting's averages.
      notes: why it is not.
    """

    run: Run
    log: SeedLog
    status: str
    setting: int | None
    ended: bool
    averaged: bool
    notes: tuple[str, ...]


def rows(folders: Sequence[pathlib.Path], collection: Collection) -> list[Row]:
    """Every seed in or below the folders, run by run; a damaged run.json has none.

    Args:
      folders: with runs.
      collection: what `collect` made of them.
    """
    whole = {(log.folder, log.seed): log for setting in collection.settings for log in setting.logs}
    found = []
    for run in records.read_all(folders):
        notes = [o.reason for o in collection.omissions if o.folder == run.folder]
        try:
            entries = {entry["seed"]: entry for entry in run.record["seeds"]}
            wanted: list[int] = run.record["config"].get("seeds") or []
            place, logged = _place(run, collection), run.logged
        except UserError:
            continue  # one of the omissions
        for seed in sorted({*wanted, *entries}):
            status = entries.get(seed, run.record).get("status", "unknown")
            log = whole.get((run.folder, seed))
            averaged = log is not None
            if log is None:
                columns = logged[seed].columns if seed in logged else {}
                log = SeedLog(run.folder, seed, status == "diverged", columns)
            ended = averaged or (seed in entries and seed not in run.faults)
            told = () if averaged else _about(seed, notes)
            found.append(Row(run, log, status, place, ended, averaged, told))
    return found


def _place(run: Run, collection: Collection) -> int | None:
    """The setting with the run's config and data, of which another run may be whole."""
    config, data = identity.comparable(run.record), run.record.get("data") or {}
    for place, setting in enumerate(collection.settings):
        if setting.config == config and not identity.data_differences(setting.data, data):
            return place
    return None


def _about(seed: int, notes: Sequence[str]) -> tuple[str, ...]:
    """The notes on the run that are about the seed, or about all of it."""
    own = (f"seed {seed}:", f"seed {seed} ")
    return tuple(n for n in notes if n.startswith(own) or not n.startswith("seed "))
