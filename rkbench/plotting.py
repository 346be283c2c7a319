"""Figures as specifications, drawn by one function.

A figure is data: panels, each with curves of runs, a metric and an axis. Nothing here knows a run
or an optimizer by name.
"""

import csv
import dataclasses
import pathlib

import numpy as np
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import PercentFormatter

from rkbench.records import AXES, Run
from rkbench.statistics import band

# Okabe and Ito's colours, told apart by colour-blind readers; line styles tell them apart in print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 1)))

METRICS = {
    "test/accuracy": "test accuracy",
    "train/accuracy": "training accuracy",
    "test/loss": "test loss",
    "train/loss": "training loss",
    "batch/loss": "batch loss",
}


@dataclasses.dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
      title: above it.
      metric: a key of `METRICS`.
      axis: a key of `records.AXES`.
      limits: of the vertical axis, in units of the metric; None for those of the data.
      log_x, log_y: logarithmic axes.
    """

    title: str
    metric: str
    axis: str = "step"
    limits: tuple[float, float] | None = None
    log_x: bool = False
    log_y: bool = False


@dataclasses.dataclass(frozen=True)
class Figure:
    """A row of panels that share their curves.

    Attributes:
      panels: left to right.
      curves: label -> run; the order gives colour and line style.
      caption: below the panels; says what the band is and how the numbers were made.
    """

    panels: tuple[Panel, ...]
    curves: dict[str, Run]
    caption: str


def draw(figure: Figure, path: pathlib.Path) -> list[pathlib.Path]:
    """Draws `path`.png and `path`.pdf and writes the points drawn to `path`.csv.

    Every curve is the mean over seeds with a band of one standard error.
    """
    canvas = Canvas(figsize=(5.2 * len(figure.panels), 4.4), layout="constrained", dpi=150)
    all_axes = canvas.subplots(1, len(figure.panels), squeeze=False)[0]
    rows = []
    for panel, axes in zip(figure.panels, all_axes, strict=True):
        rows += _draw_panel(panel, figure.curves, axes)
    handles, labels = all_axes[0].get_legend_handles_labels()
    canvas.legend(
        handles, labels, loc="outside upper center", ncols=min(len(labels), 5), frameon=False
    )
    canvas.supxlabel(figure.caption, fontsize=8, color="#444444")
    files = [path.with_suffix(suffix) for suffix in (".png", ".pdf")]
    for file in files:
        canvas.savefig(file, metadata={"CreationDate": None} if file.suffix == ".pdf" else None)
    _write_points(path.with_suffix(".csv"), rows)
    return [*files, path.with_suffix(".csv")]


def _draw_panel(panel: Panel, curves: dict[str, Run], axes) -> list[tuple]:
    """Draws one panel; returns its points (panel, curve, x, mean, standard error)."""
    points = []
    for number, (label, run) in enumerate(curves.items()):
        curve = run.curve(panel.metric, panel.axis)
        mean, error = band(curve.values)
        colour = COLOURS[number % len(COLOURS)]
        style = STYLES[number % len(STYLES)]
        axes.plot(curve.x, mean, color=colour, linestyle=style, label=label, linewidth=1.4)
        axes.fill_between(curve.x, mean - error, mean + error, color=colour, alpha=0.2, lw=0)
        points += [(panel.title, label, *row) for row in zip(curve.x, mean, error, strict=True)]
    axes.set_title(panel.title, fontsize=10)
    axes.set_xlabel(AXES[panel.axis])
    axes.set_ylabel(METRICS[panel.metric])
    axes.set_xscale("log" if panel.log_x else "linear")
    axes.set_yscale("log" if panel.log_y else "linear")
    if panel.metric.endswith("accuracy"):
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    if panel.limits is not None:
        axes.set_ylim(*panel.limits)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    return points


def _write_points(path: pathlib.Path, rows: list[tuple]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["panel", "curve", "x", "mean", "standard_error"])
        for panel, label, *numbers in rows:
            writer.writerow(
                [panel, label, *(np.format_float_positional(n, trim="-") for n in numbers)]
            )
