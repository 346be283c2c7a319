"""Published results computed again from the raw logs: every number, or the difference is named."""

import math
import pathlib
import re
from collections.abc import Iterator

from rkbench.comparison import published as comparison
from rkbench.drawing.artefact import Artefact
from rkbench.paper import published
from rkbench.records import Run, find

_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[-+]?\d+)?")
COMPARISON = "comparison"  # the folder of `rkbench score`'s and `compare`'s output, with records


def verify(results: pathlib.Path) -> Iterator[str]:
    """A line for each thing that is not what the logs say."""
    for record in _records(results):
        yield from _of_record(record)
    for places, one in published.noted(results):
        artefact = one.of(places)
        if artefact is None:
            yield f"{results}: {one.title}: there is no record of its runs"
        else:
            yield from _of_artefact(results, artefact)
    for artefact in _of_comparison(results):
        yield from _of_artefact(results / COMPARISON, artefact)


def counts(results: pathlib.Path) -> tuple[int, int]:
    """The number of records in a folder of results, and of the tables and figures made of them."""
    artefacts = len(published.noted(results)) + len(_of_comparison(results))
    return len(list(_records(results))), artefacts


def _of_comparison(results: pathlib.Path) -> list[Artefact]:
    """Its tables and pictures as the logs give them; none where there is no comparison."""
    folder = results / COMPARISON
    return comparison.artefacts(folder) if (folder / comparison.SCORES).is_file() else []


def _records(results: pathlib.Path) -> Iterator[Run]:
    for folder in find(results):
        yield Run(folder)


def _of_record(record: Run) -> Iterator[str]:
    for entry in record.record["seeds"]:
        seed = entry["seed"]
        again = record.logged[seed].summary(entry) if seed in record.logged else entry
        found = [
            f"{field} is {entry.get(field)!r}, the log says {again.get(field)!r}"
            for field in sorted(entry.keys() | again.keys())
            if entry.get(field) != again.get(field)
        ]
        if seed in record.faults and record.faults[seed] not in found:
            found.append(record.faults[seed])
        yield from (f"{record.folder}: seed {seed}: {line}" for line in found)


def _of_artefact(folder: pathlib.Path, artefact: Artefact) -> Iterator[str]:
    for name, text in artefact.texts.items():
        yield from _of_file(folder / name, text)


def _of_file(path: pathlib.Path, expected: str) -> Iterator[str]:
    if not path.is_file():
        yield f"{path} is missing"
        return
    found = path.read_text(encoding="utf-8", errors="replace").splitlines()
    wanted = expected.splitlines()
    if len(found) != len(wanted):
        yield f"{path}: {len(found)} lines, the logs give {len(wanted)}"
    for number, (one, other) in enumerate(zip(found, wanted, strict=False), 1):
        if not _alike(one, other):
            yield f"{path}:{number}: {one!r}, the logs say {other!r}"
            return


def _alike(one: str, other: str) -> bool:
    """Whether two lines say the same, but for the last digits of numbers.

    In these, logarithms and exponentials of unlike machines differ.
    """
    if one == other:
        return True
    if _NUMBER.split(one) != _NUMBER.split(other):
        return False
    pairs = zip(_NUMBER.findall(one), _NUMBER.findall(other), strict=True)
    return all(math.isclose(float(a), float(b), rel_tol=1e-13) for a, b in pairs)
