"""Figures as specifications, drawn by one function.

A figure is data: panels, each with curves of runs, a metric and an axis. Nothing here knows a run
or an optimizer by name.
"""

import dataclasses
import functools
import pathlib
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import LogLocator, NullLocator, PercentFormatter

from rkbench.drawing import tables
from rkbench.drawing.artefact import Artefact
from rkbench.records import AXES, METRICS, Curve
from rkbench.statistics import band
from rkbench.texts import literal

# Okabe and Ito's colours, told apart by colour-blind readers; line styles tell them apart in print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 1)))

LEAST_SPAN = 0.02  # of a vertical axis that skips points
SKIPPED = 0.1  # of the points, as a rule for accuracies: see `Panel.skipped`


class Drawn(Protocol):
    """What a panel can draw, as `records.Run`."""

    def curve(self, metric: str, axis: str = "step") -> Curve:
        """The metric of every seed against the axis."""
        ...

    @property
    def diverged(self) -> list[int]:
        """The steps at which seeds diverged."""
        ...


@dataclasses.dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
      title: above it.
      metric: a metric of the log; `records.METRICS` has labels.
      curves: label -> run, or whatever has its curves.
      skipped: share of a curve's points; the vertical axis begins where the lowest curve had got
        by then, so that curves which rise fast at first are told apart later. 0: it shows all.
      log_y: whether the vertical axis is logarithmic, if the values span a decade.
    """

    title: str
    metric: str
    curves: Mapping[str, Drawn]
    axis: str = "step"
    skipped: float = 0.0
    log_y: bool = False


@dataclasses.dataclass(frozen=True)
class Figure:
    """Panels in rows of `columns`.

    A label has the same colour and line style in every panel. The caption stands below; it says
    what the band is and how the numbers were made.
    """

    panels: tuple[Panel, ...]
    caption: str
    columns: int = 2


def artefact(figure: Figure, name: str) -> Artefact:
    """The figure with the points drawn as CSV."""
    return Artefact(name, {f"{name}.csv": points(figure)}, functools.partial(picture, figure))


def draw(figure: Figure, path: pathlib.Path) -> list[pathlib.Path]:
    """Draws `path`.png and `path`.pdf and writes the points drawn to `path`.csv."""
    return artefact(figure, path.name).draw(path.parent)


def picture(figure: Figure) -> Canvas:
    """The figure drawn.

    Every curve is the mean over seeds with a band of one standard error. A curve that ends early,
    because seeds diverged, says so in the legend.
    """
    rows = -(-len(figure.panels) // figure.columns)
    canvas = Canvas(figsize=(4.8 * figure.columns, 3.6 * rows + 0.9), layout="constrained", dpi=150)
    all_axes = canvas.subplots(rows, figure.columns, squeeze=False).ravel()
    styles = _styles(figure)
    for panel, axes in zip(figure.panels, all_axes, strict=False):
        _draw_panel(panel, styles, axes)
    for axes in all_axes[len(figure.panels) :]:
        axes.set_visible(False)
    add_legend(canvas, all_axes)
    add_caption(canvas, figure.caption, figure.columns)
    return canvas


def add_legend(canvas: Canvas, all_axes: Iterable[Any]) -> None:
    """Puts one legend above the panels, with each label once."""
    handles = {}
    for axes in all_axes:
        shown, labels = axes.get_legend_handles_labels()
        handles |= dict(zip(labels, shown, strict=True))
    canvas.legend(
        handles.values(),
        map(literal, handles),
        loc="outside upper center",
        ncols=len(handles) if len(handles) <= 4 else -(-len(handles) // 2),
        frameon=False,
    )


def add_caption(canvas: Canvas, text: str, columns: int) -> None:
    """Puts the text below the panels, of which `columns` stand side by side."""
    canvas.supxlabel(textwrap.fill(literal(text), 72 * columns), fontsize=7.5, color="#444444")


def points(figure: Figure) -> str:
    """What the figure draws, as CSV: panel, curve, x, mean, standard error, number of seeds."""
    rows = [["panel", "curve", "x", "mean", "standard_error", "seeds"]]
    for panel in figure.panels:
        for label, run in panel.curves.items():
            curve = run.curve(panel.metric, panel.axis)
            counts = np.sum(np.isfinite(curve.values), axis=0)
            for *numbers, count in zip(curve.x, *band(curve.values), counts, strict=True):
                cells = [np.format_float_positional(n, trim="-") for n in numbers]
                rows.append([panel.title, label, *cells, str(count)])
    return tables.comma_separated(rows)


def _styles(figure: Figure) -> dict[str, tuple]:
    """(colour, line style) of each label, in the order in which the labels appear."""
    labels = dict.fromkeys(label for panel in figure.panels for label in panel.curves)
    return {label: style(i) for i, label in enumerate(labels)}


def style(number: int) -> tuple:
    """(colour, line style) of the line with this number, counted from 0."""
    turns = number // len(COLOURS)  # the eighth has the first's colour and another line style
    return COLOURS[number % len(COLOURS)], STYLES[(number + turns) % len(STYLES)]


def _draw_panel(panel: Panel, styles: dict[str, tuple], axes) -> None:
    for label, run in panel.curves.items():
        curve = run.curve(panel.metric, panel.axis)
        mean, error = band(curve.values)
        colour, style = styles[label]
        axes.plot(curve.x, mean, color=colour, linestyle=style, label=label, linewidth=1.4)
        axes.fill_between(curve.x, mean - error, mean + error, color=colour, alpha=0.2, lw=0)
        if run.diverged:
            note = f"{label}: {len(run.diverged)} diverged, first at step {min(run.diverged)}"
            axes.plot([], [], color=colour, marker="x", linestyle="none", label=note)
    axes.set_title(literal(panel.title), fontsize=10)
    axes.set_xlabel(AXES[panel.axis])
    axes.set_ylabel(literal(METRICS.get(panel.metric, panel.metric)))
    if panel.log_y:
        _scale_by_decades(axes)
    if panel.skipped:
        axes.set_ylim(*limits(panel))
    finish(axes, panel.metric)


def _scale_by_decades(axes: Any) -> None:
    """A logarithmic axis, which below two decades has 1, 2, 5 as its ticks; none below one."""
    decades = np.log10(axes.dataLim.ymax / axes.dataLim.minposy)
    if not decades >= 1:
        return
    axes.set_yscale("log")
    if decades < 2:
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())


def limits(panel: Panel) -> tuple[float, float]:
    """The vertical axis of a panel with skipped points, in units of the metric.

    From a little below the lowest mean after them to a little above the highest band, and
    `LEAST_SPAN` or more.
    """
    bands = [band(run.curve(panel.metric).values) for run in panel.curves.values()]
    bands = [(mean, error) for mean, error in bands if mean.size]
    if not bands:
        return 0.0, 1.0
    bottom = min(mean[int(panel.skipped * (len(mean) - 1))] for mean, _ in bands)
    top = max(np.nanmax(mean + error) for mean, error in bands)
    bottom = min(bottom, top - LEAST_SPAN)
    margin = 0.05 * (top - bottom)
    return bottom - margin, top + margin


def finish(axes: Any, metric: str) -> None:
    """Grid and spines as in all figures; accuracies in percent."""
    if metric.endswith("accuracy"):
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
