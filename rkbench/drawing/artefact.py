"""A published table or figure: a name, numbers that can be computed again, and often a picture."""

import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from matplotlib.figure import Figure as Canvas

from rkbench import files


class Artefact(NamedTuple):
    """One table or figure, ready to be written or compared with what was written.

    Attributes:
      name: the path of its picture below the folder of its files, without a suffix.
      texts: {path below that folder: content} of what is computed from records: the numbers behind
        a picture, or the forms of a table.
      picture: draws it; None for a table.
    """

    name: str
    texts: Mapping[str, str]
    picture: Callable[[], Canvas] | None = None

    def draw(self, folder: pathlib.Path) -> list[pathlib.Path]:
        """Writes its files below the folder, the picture as .png and .pdf; returns their paths."""
        paths = list(self._drawn(folder))
        for name, text in self.texts.items():
            paths.append(_made(folder / name))
            files.write_text(paths[-1], text)
        return paths

    def _drawn(self, folder: pathlib.Path) -> Iterator[pathlib.Path]:
        if self.picture is None:
            return
        canvas = self.picture()
        if layout := canvas.get_layout_engine():
            layout.execute(canvas)  # once for both files: it takes as long as drawing
            canvas.set_layout_engine("none")
        for kind, metadata in {"png": None, "pdf": {"CreationDate": None}}.items():
            path = _made(folder / f"{self.name}.{kind}")  # a name may have dots: 0.1
            with files.replacing(path) as file:
                canvas.savefig(file, format=kind, metadata=metadata)
            yield path


def _made(path: pathlib.Path) -> pathlib.Path:
    """The path, whose folder is made where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
