"""Heat maps: numbers by row and column in several panels, with what has no number marked."""

import dataclasses
import functools
import textwrap

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Rectangle

from rkbench.drawing import tables
from rkbench.drawing.artefact import Artefact


@dataclasses.dataclass(frozen=True)
class Map:
    """One map.

    Attributes:
      title: above it.
      values: float64 [rows, columns], NaN where there is none.
      marks: what stands in a cell without a value, str [rows, columns].
    """

    title: str
    values: np.ndarray
    marks: np.ndarray


@dataclasses.dataclass(frozen=True)
class HeatMap:
    """Panels side by side with common rows, columns and colours; `boxed` is a column to mark."""

    panels: tuple[Map, ...]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    boxed: int
    x_label: str
    value_label: str
    caption: str


def artefact(heat_map: HeatMap, name: str) -> Artefact:
    """The map with its numbers as CSV."""
    return Artefact(name, {f"{name}.csv": numbers(heat_map)}, functools.partial(picture, heat_map))


def picture(heat_map: HeatMap) -> Canvas:
    """The map drawn."""
    count = len(heat_map.panels)
    size = (2.2 + 4.0 * count, 1.9 + 0.42 * len(heat_map.rows))
    canvas = Canvas(figsize=size, layout="constrained", dpi=150)
    all_axes = canvas.subplots(1, count, squeeze=False, sharey=True)[0]
    values = np.concatenate([panel.values for panel in heat_map.panels])
    low, high = np.nanmin(values), np.nanmax(values)
    image = ScalarMappable(Normalize(low, high), "cividis")
    for panel, axes in zip(heat_map.panels, all_axes, strict=True):
        axes.imshow(panel.values, norm=image.norm, cmap=image.cmap, aspect="auto")
        _label(panel, axes, (low + high) / 2)
        axes.set_title(panel.title, fontsize=10)
        axes.set_xticks(range(len(heat_map.columns)), heat_map.columns, fontsize=8)
        axes.set_yticks(range(len(heat_map.rows)), heat_map.rows, fontsize=8)
        box = (heat_map.boxed - 0.5, -0.5), 1, len(heat_map.rows)
        axes.add_patch(Rectangle(*box, fill=False, edgecolor="#D55E00", linewidth=2))
    canvas.colorbar(image, ax=all_axes, label=heat_map.value_label)
    text = f"{heat_map.x_label}\n{textwrap.fill(heat_map.caption, 60 * count)}"
    canvas.supxlabel(text, fontsize=8)
    return canvas


def _label(panel: Map, axes, middle: float) -> None:
    """Writes each cell's number, or its mark on white."""
    for (i, j), value in np.ndenumerate(panel.values):
        missing = np.isnan(value)
        text = panel.marks[i, j][:3] if missing else f"{value:.0f}"
        colour = "black" if missing or value > middle else "white"
        axes.text(j, i, text, ha="center", va="center", fontsize=7, color=colour)


def numbers(heat_map: HeatMap) -> str:
    """What the map shows, as CSV: panel, row, column, value (or mark)."""
    rows = [["panel", "row", "column", "value"]]
    for panel in heat_map.panels:
        for (i, j), value in np.ndenumerate(panel.values):
            cell = str(panel.marks[i, j]) if np.isnan(value) else f"{value:.4f}"
            rows.append([panel.title, heat_map.rows[i], heat_map.columns[j], cell])
    return tables.comma_separated(rows)
