"""Final and best values against the learning rate, a panel a method, with what diverged marked."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure as Canvas

from rkbench.drawing import plotting, tables
from rkbench.records import METRICS
from rkbench.records.names import Namer
from rkbench.scoring import Rate, Robustness
from rkbench.scoring.scores import QUANTITIES
from rkbench.texts import literal

MOST_COLUMNS = 4
_LOOKS = {"final": ("#0072B2", "-", "o"), "best": ("#E69F00", "--", "s")}
_DIVERGED, _USELESS, _GOOD = "#D55E00", "#777777", "#009E73"


def picture(families: Sequence[Robustness]) -> Canvas:
    """The families, all of one task and metric, drawn."""
    rows = -(-len(families) // MOST_COLUMNS)
    columns = -(-len(families) // rows)
    size = (3.1 * columns + 0.6, 2.7 * rows + 1.2)
    canvas = Canvas(figsize=size, layout="constrained", dpi=150)
    all_axes = canvas.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for family, axes in zip(families, all_axes, strict=False):
        _draw_family(family, axes)
    for axes in all_axes[len(families) :]:
        axes.set_visible(False)
    for axes in all_axes[::columns]:
        axes.set_ylabel(literal(METRICS.get(families[0].metric, families[0].metric)))
    plotting.add_legend(canvas, all_axes)
    counts = {len(rate.score.setting.logs) for family in families for rate in family.rates}
    most = max(counts)
    seeds = f"mean over {most} seeds, bars: one standard error" if most > 1 else "one seed a rate"
    plotting.add_caption(
        canvas,
        f"{families[0].task}; {seeds}. Green: all rates tried "
        "are within 1 % of the best final value. Red: a seed diverged, with the "
        "share of the seeds that did.",
        round(size[0] / 4.8) or 1,
    )
    return canvas


def _draw_family(family: Robustness, axes: Any) -> None:
    values = [rate.value for rate in family.rates]
    edges = neighbourhoods(values)
    for i, rate in enumerate(family.rates):
        if rate.score.diverged:
            axes.axvspan(
                edges[i], edges[i + 1], color=_DIVERGED, alpha=0.18, lw=0, label="diverged"
            )
            share = f"{rate.score.diverged}/{len(rate.score.outcomes)}"
            place = {"xy": (rate.value, 0.98), "xycoords": axes.get_xaxis_transform()}
            axes.annotate(share, **place, ha="center", va="top", fontsize=6.5, color=_DIVERGED)
        elif not rate.stable:
            span = edges[i], edges[i + 1]
            axes.axvspan(*span, color=_USELESS, alpha=0.18, lw=0, label="half of the gain lost")
    if family.good:
        low, high = (values.index(end) for end in family.good)
        span = edges[low], edges[high + 1]
        axes.axvspan(*span, color=_GOOD, alpha=0.15, lw=0, label="within 1 % of the best")
    for quantity, (colour, style, marker) in _LOOKS.items():
        there = [rate for rate in family.rates if rate.score.values(quantity)]
        estimates = [rate.score.estimate(quantity) for rate in there]
        axes.errorbar(
            [rate.value for rate in there],
            [estimate.mean for estimate in estimates],
            [0 if estimate.n < 2 else estimate.standard_error for estimate in estimates],
            **{"color": colour, "linestyle": style, "marker": marker, "markersize": 3.5},
            **{"linewidth": 1.4, "elinewidth": 1, "label": quantity},
        )
    axes.set_xscale("log")
    axes.set_xlim(edges[0], edges[-1])
    edge = f", best at the {family.best_at} tried" if family.best_at else ""
    axes.set_title(literal(family.method + edge), fontsize=9)
    axes.set_xlabel(family.field.partition(".")[2].replace("_", " "), fontsize=8)
    axes.tick_params(labelsize=7.5)
    plotting.finish(axes, family.metric)


def neighbourhoods(values: Sequence[float]) -> list[float]:
    """Where the neighbourhoods of the rates meet: their geometric means; [rates + 1]."""
    inner = [math.sqrt(a) * math.sqrt(b) for a, b in itertools.pairwise(values)]
    ends = [values[0] * (values[0] / inner[0]), values[-1] * (values[-1] / inner[-1])]
    return [ends[0], *inner, ends[1]]


def numbers(families: Sequence[Robustness], name: Namer) -> str:
    """What is drawn, as CSV, with the runs of each rate."""
    header = ["method", "field", "rate", "seeds", "diverged", "stable"]
    header += [f"{q} {what}" for q in QUANTITIES for what in ("mean", "standard error")]
    rows = [_row(family, rate, name) for family in families for rate in family.rates]
    return tables.comma_separated([[*header, "runs"], *rows])


def _row(family: Robustness, rate: Rate, name: Namer) -> list[str]:
    score = rate.score
    runs = dict.fromkeys(name(log.folder) for log in score.setting.logs)
    cells = [family.method, family.field, f"{rate.value:g}", str(len(score.outcomes))]
    cells += [str(score.diverged), str(rate.stable)]
    for quantity in QUANTITIES:
        cells += [_cell(number) for number in score.estimate(quantity)[:2]]
    return [*cells, " ".join(runs)]


def _cell(number: float) -> str:
    return "" if math.isnan(number) else f"{number:.6g}"
