"""What is published of the paper's tables and figures: drawn, noted in `manifest.json`, read again.

A kind of table or figure is a frozen dataclass in a module of its own. Its fields say which one it
is, and are what the manifest notes beside the scale. A new kind is a row in `KINDS`.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, Self

import msgspec

from rkbench import errors, files
from rkbench.drawing.artefact import Artefact
from rkbench.paper.figures import PaperFigure
from rkbench.paper.input_scaling import InputScaling
from rkbench.paper.plan import Places
from rkbench.paper.runs import PaperRun
from rkbench.paper.scales import SCALES
from rkbench.paper.study import Study
from rkbench.paper.table1 import Table1
from rkbench.records import read_object, schemas


class Published(Protocol):
    """A table or figure of the paper, before there are records.

    Attributes:
      name: that of its artefact, and its key in the manifest; unlike for unlike ones.
      title: what it is called in messages.
      noted: whether it is part of the manifest, and so of what is verified.
    """

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def noted(self) -> bool: ...

    def runs(self, scale: str) -> list[PaperRun]:
        """The runs behind it."""
        ...

    def only(self, words: Sequence[str], scale: str) -> Self | None:
        """The part of it that runs with one of the words in their names make; None: there is none.

        () keeps all of it.
        """
        ...

    def of(self, places: Places) -> Artefact | None:
        """It, made from the records that there are; None where these are too few."""
        ...


KINDS: dict[str, type[Published]] = {
    "table1": Table1,
    "figures": PaperFigure,
    "study": Study,
    "input_scaling": InputScaling,
}
"""The kinds, by the first word of their names."""


class Noted(NamedTuple):
    """An entry of the manifest: what was drawn, and from which records."""

    places: Places
    published: Published


def draw(places: Places, published: Published) -> list[pathlib.Path]:
    """Writes its files below the results, and the manifest; [] where there are too few records."""
    artefact = published.of(places)
    if artefact is None:
        return []
    places.results.mkdir(parents=True, exist_ok=True)
    if published.noted:
        entries = {one.published.name: _entry(*one) for one in noted(places.results)}
        entries[published.name] = _entry(places, published)
        files.write_json(places.results / "manifest.json", dict(sorted(entries.items())))
    return artefact.draw(places.results)


def noted(results: pathlib.Path) -> list[Noted]:
    """What the manifest notes; [] where nothing was drawn.

    Raises:
      UserError: the manifest cannot be read, or an entry is not one of these tables or figures.
    """
    path = results / "manifest.json"
    if not path.exists():
        return []
    found = read_object(path, "a manifest of results", dict[str, schemas.Made])
    return [_noted(path, name, how) for name, how in found.items()]


def _noted(path: pathlib.Path, name: str, how: dict[str, Any]) -> Noted:
    problem = errors.UserError(f"{path}: {name!r} is not a table or figure of the paper's")
    kind = KINDS.get(name.partition("/")[0])
    if kind is None or how["scale"] not in SCALES:
        raise problem
    try:
        published = msgspec.convert(how, kind)
    except msgspec.ValidationError as error:
        raise problem from error
    if published.name != name:
        raise problem
    return Noted(Places(path.parent, pathlib.Path(), how["scale"]), published)


def _entry(places: Places, published: Any) -> dict[str, Any]:
    """The scale, and the fields without those that choose nothing."""
    fields = dataclasses.asdict(published)
    return {"scale": places.scale} | {name: value for name, value in fields.items() if value != ()}
