"""Published results computed again from the raw logs: every number, or the difference is named."""

import math
import pathlib
import re
from collections.abc import Iterator, Mapping

from rkbench.comparison import published
from rkbench.drawing import heatmap, plotting
from rkbench.paper import drawing, input_scaling, study, table1
from rkbench.paper.figures import FIGURES, figure
from rkbench.paper.plan import Places
from rkbench.records import Run, find

_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[-+]?\d+)?")
COMPARISON = "comparison"  # the folder of `rkbench score`'s and `compare`'s output, with records


def verify(results: pathlib.Path) -> Iterator[str]:
    """A line for each thing that is not what the logs say."""
    for record in _records(results):
        yield from _of_record(record)
    for name, how in drawing.manifest(results).items():
        places = Places(results, pathlib.Path(), how["scale"])
        if name == "table1":
            found = table1.lines(places, how["rows"])
            yield from _of_files(results, table1.texts(found, places.scale))
        elif name == "study":
            found = study.heat_map(places.scale, places.records(study.runs()))
            yield from _of_file(results / "study.csv", heatmap.numbers(found))
        elif name == "input_scaling":
            found = input_scaling.lines(places.records(input_scaling.runs()))
            yield from _of_files(results, input_scaling.texts(found, places.scale))
        else:
            records = places.records(FIGURES[how["number"]].runs)
            drawn = figure(how["number"], how["scale"], how["axis"], records)
            yield from _of_file(results / f"{name}.csv", plotting.points(drawn))
    yield from _of_files(results / COMPARISON, _of_comparison(results / COMPARISON))


def counts(results: pathlib.Path) -> tuple[int, int]:
    """The number of records in a folder of results, and of the tables and figures made of them."""
    files = len(drawing.manifest(results)) + len(_of_comparison(results / COMPARISON))
    return len(list(_records(results))), files


def _of_comparison(folder: pathlib.Path) -> dict[str, str]:
    """Its files as the logs give them; {} where there is no comparison."""
    return published.files(folder) if (folder / published.SCORES).is_file() else {}


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


def _of_files(results: pathlib.Path, texts: Mapping[str, str]) -> Iterator[str]:
    for name, text in texts.items():
        yield from _of_file(results / name, text)


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
