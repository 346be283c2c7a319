"""Where methods are stable: final values by method and learning rate, as a map."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure as Canvas

from rkbench.comparison.sensitivity import neighbourhoods
from rkbench.drawing import plotting
from rkbench.records import METRICS
from rkbench.scoring import Rate, Robustness
from rkbench.texts import literal


def picture(families: Sequence[Robustness]) -> Canvas:
    """The families, all of one task and metric, drawn.

    A row is a method, and each of its cells a rate that was tried, as wide as it is nearest.
    """
    metric = families[0].metric
    means = [rate.score.final.mean for family in families for rate in family.rates]
    there = [mean for mean in means if np.isfinite(mean)] or [0.0]
    image = ScalarMappable(Normalize(min(there), max(there)), "cividis")
    canvas = Canvas(figsize=(12, 1.9 + 0.42 * len(families)), layout="constrained", dpi=150)
    axes = canvas.subplots()
    ends = []
    for row, family in enumerate(families):
        edges = neighbourhoods([rate.value for rate in family.rates])
        ends += [edges[0], edges[-1]]
        for i, rate in enumerate(family.rates):
            _draw_cell(axes, row, edges[i : i + 2], rate, image)
    axes.set_xscale("log")
    axes.set_xlim(min(ends), max(ends))
    axes.set_xlabel("learning rate (DALR: its cap c)", fontsize=9)
    axes.set_ylim(len(families) - 0.5, -0.5)
    axes.set_yticks(
        range(len(families)), [literal(family.method) for family in families], fontsize=8
    )
    axes.set_title(literal(families[0].task), fontsize=10)
    label = literal(METRICS.get(metric, metric))
    percent = " (%)" if metric.endswith("accuracy") else ""
    bar = canvas.colorbar(image, ax=axes, pad=0.01)
    bar.set_label(f"final {label}{percent}", fontsize=8)
    if percent:
        bar.ax.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}")
    plotting.add_caption(
        canvas, "A cell is a rate that was tried. Hatched: with it a seed diverged.", 2
    )
    return canvas


def _draw_cell(axes: Any, row: int, edges: Sequence[float], rate: Rate, image: Any) -> None:
    mean = rate.score.final.mean
    diverged = rate.score.diverged or not np.isfinite(mean)
    looks = {"left": edges[0], "height": 0.92, "edgecolor": "white", "linewidth": 0.8}
    if diverged:
        axes.barh(row, edges[1] - edges[0], **looks, facecolor="#f3cdb5", hatch="////")
        return
    axes.barh(row, edges[1] - edges[0], **looks, facecolor=image.to_rgba(mean))
    dark = image.norm(mean) < 0.5
    text = f"{100 * mean:.0f}" if rate.score.metric.endswith("accuracy") else f"{mean:.2g}"
    colour = "white" if dark else "black"
    axes.text(rate.value, row, text, ha="center", va="center", fontsize=7, color=colour)
