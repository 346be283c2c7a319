"""Writes the table and the figures, and notes in `manifest.json` how each was made."""

import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rkbench import errors
from rkbench.drawing import heatmap, plotting
from rkbench.files import write_json, write_text
from rkbench.paper import input_scaling, study, table1
from rkbench.paper.figures import FIGURES, figure, file_name
from rkbench.paper.plan import Places
from rkbench.paper.runs import TABLE_1
from rkbench.paper.scales import SCALES
from rkbench.records import AXES, read_object, schemas

COMPANION = "grad_evals"  # beside the paper's axis: an RK4 step costs four gradients


def draw_table(places: Places, rows: Iterable[int]) -> list[pathlib.Path]:
    """Writes `table1.{md,csv,tex}`."""
    rows = list(rows)
    places.results.mkdir(parents=True, exist_ok=True)
    _note(places, "table1", {"scale": places.scale, "rows": rows})
    return _write(places, table1.texts(table1.lines(places, rows), places.scale))


def draw_figure(
    places: Places, number: int, axis: str = "step", only: Sequence[str] = ()
) -> list[pathlib.Path]:
    """Writes `figures/figNN.{png,pdf,csv}`, and the companion at equal gradient evaluations.

    Nothing is written for a figure none of whose runs has a record. What was drawn by choice, on
    another axis or of some runs only, has a name of its own and is no part of the manifest.
    """
    spec = FIGURES[number].only(only)
    records = places.records(spec.runs)
    if not records:
        return []
    folder = places.results / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    axes = [axis] if spec.timed or axis != "step" else [axis, COMPANION]
    files = []
    for one in axes:
        name = file_name(number, one, only)
        files += plotting.draw(figure(number, places.scale, one, records, only), folder / name)
        if axis == "step" and not only:
            entry = {"scale": places.scale, "number": number, "axis": one}
            _note(places, f"figures/{name}", entry)
    return files


def draw_study(places: Places) -> list[pathlib.Path]:
    """Writes `study.{png,pdf,csv}` and `input_scaling.{md,csv}`, as far as there are records."""
    files = []
    if records := places.records(study.runs()):
        _note(places, "study", {"scale": places.scale})
        files += heatmap.draw(study.heat_map(places.scale, records), places.results / "study")
    if found := input_scaling.lines(places.records(input_scaling.runs())):
        _note(places, "input_scaling", {"scale": places.scale})
        files += _write(places, input_scaling.texts(found, places.scale))
    return files


def manifest(results: pathlib.Path) -> dict[str, Any]:
    """How each file in `results` was made; {} where nothing was."""
    path = results / "manifest.json"
    if not path.exists():
        return {}
    found = read_object(path, "a manifest of results", dict[str, schemas.Made])
    for name, how in found.items():
        if not _is_known(name, how):
            raise errors.UserError(f"{path}: {name!r} is nothing that is drawn here")
    return found


def _is_known(name: str, how: Any) -> bool:
    if not isinstance(how, dict) or how.get("scale") not in tuple(SCALES):
        return False
    if name == "table1":
        rows = how.get("rows")
        return isinstance(rows, list) and all(row in range(1, len(TABLE_1) + 1) for row in rows)
    return name in ("study", "input_scaling") or (
        how.get("number") in list(FIGURES) and how.get("axis") in list(AXES)
    )


def _write(places: Places, texts: Mapping[str, str]) -> list[pathlib.Path]:
    written = []
    for name, text in texts.items():
        written.append(places.results / name)
        write_text(written[-1], text)
    return written


def _note(places: Places, name: str, how: dict[str, Any]) -> None:
    known = manifest(places.results) | {name: how}
    write_json(places.results / "manifest.json", dict(sorted(known.items())))
