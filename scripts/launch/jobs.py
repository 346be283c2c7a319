"""What is to run: entries of a manifest, or one run of the command line."""

import dataclasses
import hashlib
import json
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

from rkbench.errors import UserError, unknown


@dataclasses.dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
      name: the run's folder below the output.
      arguments: of `rkbench train`, without a workdir.
      seeds: what a finished record must have; () where the record's status alone decides.
      cost: gradient evaluations and hours as words, "" where they are not known.
    """

    name: str
    arguments: tuple[str, ...]
    seeds: tuple[int, ...] = ()
    cost: str = ""

    def __post_init__(self):
        # *?[]{}# have a meaning in a bucket's URL and $ has one in a manifest of Kubernetes;
        # "launch" is the folder of the launchers' files.
        if self.name == "launch" or not re.fullmatch(
            r"(?![-.])[^\x00-\x1f/\\*?\[\]{}#$]{1,200}", self.name
        ):
            raise UserError(
                f"run name {self.name!r} must be a file name without /\\*?[]{{}}#$, not beginning "
                "with a dot or hyphen, and not 'launch'"
            )
        if not any(re.match("--?config=", argument) for argument in self.arguments):
            raise UserError(f"run {self.name!r} has no --config=configs/FILE.py:PRESET")
        for argument in self.arguments:
            if re.match("--?(workdir|distributed|coordinator|processes|process_id)($|=)", argument):
                raise UserError(f"run {self.name!r}: {argument} is the launcher's to set")
            if re.match("--?flagfile($|=)", argument):
                raise UserError(f"run {self.name!r}: {argument} is a file of this machine")

    def machine(self, output: str) -> str:
        """A name of at most 40 lower-case letters, digits and hyphens, its own at this output."""
        words = re.sub("[^a-z0-9]+", "-", self.name.lower()).strip("-")[:22].strip("-")
        digits = hashlib.sha256(f"{output}/{self.name}".encode()).hexdigest()[:8]
        return "-".join(word for word in ("rkbench", words, digits) if word)

    def is_finished(self, record: Any) -> bool:
        """Whether a run.json says so; one that is not a record says no."""
        if not isinstance(record, dict) or record.get("status") not in ("done", "diverged"):
            return False
        entries = record.get("seeds") or []
        known = {entry.get("seed") for entry in entries if isinstance(entry, dict)}
        return known.issuperset(self.seeds)


def read_manifest(path: pathlib.Path, only: str | None = None) -> list[Job]:
    """The jobs of a file that `rkbench paper --manifest` wrote; `only` as there.

    Raises UserError where it cannot be read, is no manifest, or has no run with a word of `only`.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        jobs = [_from_entry(entry) for entry in content["runs"]]
    except OSError as error:
        raise UserError(f"--manifest={path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"--manifest={path} is not a manifest ({error!r})") from error
    _check_names(path, [job.name for job in jobs])
    return jobs if only is None else _selected(jobs, only.split(","))


def _from_entry(entry: Any) -> Job:
    arguments, seeds = entry["arguments"], entry["seeds"]
    if not all(isinstance(argument, str) for argument in arguments):
        raise TypeError("an argument that is no text")
    cost = f"{int(entry['grad_evals']):,} gradient evaluations"
    if entry["hours"] is not None:
        cost += f", {float(entry['hours']):.2f} h on the machine that wrote the manifest"
    return Job(str(entry["name"]), tuple(arguments), tuple(int(seed) for seed in seeds), cost)


def _check_names(path: pathlib.Path, names: Sequence[str]) -> None:
    if not names:
        raise UserError(f"--manifest={path} has no runs")
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--manifest={path} has two runs of the name {name!r}")


def _selected(jobs: Sequence[Job], words: Iterable[str]) -> list[Job]:
    for word in words:
        if not any(word in job.name for job in jobs):
            raise unknown("run", word, [job.name for job in jobs])
    return [job for job in jobs if any(word in job.name for word in words)]
