"""Where methods are stable: final accuracy by method and learning rate, as a map."""

import math
from collections.abc import Sequence

import numpy as np

from rkbench.heatmap import HeatMap, Panel
from rkbench.records import METRICS
from rkbench.scoring import Rate, Robustness

PER_DECADE = 3  # columns


def heat_map(families: Sequence[Robustness]) -> HeatMap:
    """One map of the families, all of one task and one metric, an accuracy, in percent.

    A column is a third of a decade. Where several rates fall into it the worst one stands there,
    and one of which a seed diverged is worse than any.
    """
    bins = sorted({_bin(rate) for family in families for rate in family.rates})
    columns = range(bins[0], bins[-1] + 1)
    values = np.full((len(families), len(columns)), np.nan)
    marks = np.full(values.shape, "", object)
    for i, family in enumerate(families):
        for rate in family.rates:
            j = _bin(rate) - columns[0]
            if rate.score.diverged:
                values[i, j], marks[i, j] = np.nan, "diverged"
            elif not marks[i, j]:
                values[i, j] = np.fmin(values[i, j], 100 * rate.score.final.mean)
    return HeatMap(
        (Panel(families[0].task, values, marks),),
        rows=tuple(family.method for family in families),
        columns=tuple(f"{10 ** (k / PER_DECADE):.1g}" for k in columns),
        boxed=None,
        x_label="learning rate (DALR: its cap c)",
        value_label=f"final {METRICS.get(families[0].metric, families[0].metric)} (%)",
        caption="Columns are thirds of a decade, with the worst rate tried in each; div: a seed "
        "diverged; empty: not tried.",
    )


def _bin(rate: Rate) -> int:
    return round(PER_DECADE * math.log10(rate.value))
