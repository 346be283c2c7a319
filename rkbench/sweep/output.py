"""What a sweep says: `sweep.json`, the tables on the terminal and the warnings."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from rkbench import errors, files, records, scoring
from rkbench.drawing import tables
from rkbench.records import identity, provenance, read_object, schemas
from rkbench.records.archive import SWEEP as FILE
from rkbench.records.schemas import Object
from rkbench.statistics import percent
from rkbench.sweep.plan import CHOSEN, Protocol, Tuning, description
from rkbench.sweep.results import Choice, Result
from rkbench.sweep.train import shown


def read(workdir: pathlib.Path, tunings: Sequence[Tuning], protocol: Protocol) -> Object:
    """What `sweep.json` says so far; {} where there is none.

    Raises:
      UserError: the folder belongs to another sweep.
    """
    path = workdir / FILE
    if not os.path.lexists(path):
        return {}
    record = records.read_object(path, "a sweep's record", schemas.SweepRecord)
    if differing := identity.differences(record["sweep"], description(tunings, protocol)):
        shown = "; ".join(differing[:5]) + (" ..." if len(differing) > 5 else "")
        raise errors.UserError(f"{workdir} belongs to another sweep; it differs in {shown}")
    return record


def make_folder(workdir: pathlib.Path) -> None:
    """Makes the sweep's folder; UserError where that is not possible."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise errors.because(f"workdir {workdir} cannot be made", error) from error


def write(
    workdir: pathlib.Path,
    choices: Sequence[Choice],
    protocol: Protocol,
    compilations: Mapping[str, int],
    origin: Object,
) -> None:
    """Writes `sweep.json` anew; `origin` is the `provenance.environment` of this process.

    Each command, as those of other shards, keeps its own part.
    """
    path = workdir / FILE
    parts = provenance.parts(read_object(path, "a sweep's record")) if path.exists() else []
    provenance.continued(parts, origin)
    tunings = [choice.tuning for choice in choices]
    record = {
        **origin,
        "parts": parts,
        "sweep": description(tunings, protocol),
        "seeds": list(protocol.seeds),
        "choices": {
            choice.tuning.optimizer: _of_choice(choice, workdir, protocol)
            | {"compilations": compilations.get(choice.tuning.optimizer, 0)}
            for choice in choices
        },
    }
    files.write_json(path, record)


def _of_choice(choice: Choice, workdir: pathlib.Path, protocol: Protocol) -> dict[str, Any]:
    best = choice.best
    folder = choice.tuning.folder / CHOSEN
    return {
        "trials": [
            {
                "folder": str(found.trial.folder.relative_to(workdir)),
                "settings": identity.plain(found.trial.settings),
                "total_steps": found.trial.config.total_steps,
                "status": found.status,
                protocol.metric: found.value,
                "seconds": found.seconds,
            }
            | ({"error": found.error} if found.error else {})
            for found in choice.results
        ],
        "best": None if best is None else str(best.trial.folder.relative_to(workdir)),
        "settings": None if best is None else identity.plain(best.trial.settings),
        "chosen": str(folder.relative_to(workdir)) if folder.is_dir() else None,
        "warnings": list(choice.warnings),
    }


def text(choices: Sequence[Choice], protocol: Protocol, compilations: Mapping[str, int]) -> str:
    """All trials, the choices, what they came to with the reporting seeds, and the warnings."""
    parts = []
    for choice in choices:
        count = compilations.get(choice.tuning.optimizer, 0)
        header = (
            f"{choice.tuning.optimizer}: {len(choice.results)} trials, "
            f"{count} compilation{'s' if count != 1 else ''}"
        )
        parts.append(f"{header}\n{tables.aligned(_trials(choice, protocol))}")
    header = ("optimizer", "chosen", protocol.metric, "final test accuracy (%)", "seeds")
    rows = [(*header, "at the edge")]
    rows += [_chosen(choice) for choice in choices]
    parts.append(tables.aligned(rows))
    parts.append(
        f"chosen by the {protocol.quantity} {protocol.metric}, mean over the tuning seeds "
        f"{_numbers(protocol.tuning_seeds)}; test accuracy: mean ± standard error over the "
        f"reporting seeds {_numbers(protocol.seeds) or '(none)'}"
    )
    if found := warnings(choices):
        parts.append("\n".join(f"warning: {warning}" for warning in found))
    return "\n\n".join(parts)


def warnings(choices: Sequence[Choice]) -> list[str]:
    """All that is to be said about the choices, each with its optimizer."""
    found = [f"{c.tuning.optimizer}: {warning}" for c in choices for warning in c.warnings]
    if unfinished := sum(choice.unfinished for choice in choices):
        found.append(f"{unfinished} trials are not finished: the same command goes on")
    return found


def _trials(choice: Choice, protocol: Protocol) -> list[tuple[str, ...]]:
    rows = [("trial", "settings", protocol.metric, "seconds")]
    for found in choice.results:
        mark = " <- chosen" if found is choice.best else ""
        rows.append(
            (
                found.trial.folder.name,
                shown(found.trial.settings),
                _value(found) + mark,
                f"{found.seconds:.1f}",
            )
        )
    return rows


def _value(found: Result) -> str:
    if found.value is not None:
        return f"{found.value:.4f}"
    return f"{found.status}: {found.error}" if found.error else found.status


def _chosen(choice: Choice) -> tuple[str, ...]:
    name = choice.tuning.optimizer
    if choice.best is None:
        return (name, "-", "-", "-", "0", "")
    tested, seeds = "-", 0
    folder = choice.tuning.folder / CHOSEN
    if (folder / "run.json").is_file():
        found = scoring.collect([folder])
        if any(log.has("test/accuracy") for one in found.settings for log in one.logs):
            (score,) = scoring.score(found, "test/accuracy")
            tested, seeds = percent(score.final), len(score.outcomes)
            if score.diverged:
                tested += f" ({score.diverged} diverged)"
    value = f"{choice.best.value:.4f}"
    ends = ", ".join(f"{edge.end} {edge.field}" for edge in choice.edges)
    return (name, shown(choice.best.trial.settings), value, tested, str(seeds), ends)


def _numbers(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
