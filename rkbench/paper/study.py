"""Which reading of the paper's full-batch settings fits: learning rate x input scaling x method.

The paper does not say how its inputs are scaled, nor AdaGrad's eps. If a reading is right, the
tuned learning rates should be near the best under it for every method at once.
"""

import dataclasses
import fractions
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from rkbench.drawing import heatmap
from rkbench.drawing.artefact import Artefact
from rkbench.drawing.heatmap import HeatMap, Map
from rkbench.paper.plan import Places
from rkbench.paper.runs import PaperRun
from rkbench.paper.scales import SCALES
from rkbench.records import Run

# method: (variant of configs/mnist_mlp.py, the keyword that is varied, the paper's value, D.2-D.4)
METHODS = {
    "Adam": ("adam,full", "learning_rate", 0.002),
    "RK4": ("rk4,full", "learning_rate", 0.004),
    "RK4 + ADGR, eps 1e-8": ("rk4_adagrad,full,eps=1e-8", "learning_rate", 0.032),
    "RK4 + ADGR, eps 0.1": ("rk4_adagrad,full,eps=0.1", "learning_rate", 0.032),
    "RK4 + Modified-ADGR": ("rk4_modified_adagrad,full", "learning_rate", 0.064),
    "RK4 + DALR (c)": ("rk4_dalr,full", "c", 4.0),
    "RK4 + momentum": ("rk4_momentum,full", "learning_rate", 0.004),
}
SCALINGS = {"raw": "raw, 0 to 255", "unit": "[0, 1]", "standardized": "mean 0, deviation 1"}
EXPONENTS = (-6, -4, -2, 0, 2, 4, 6)  # powers of two times the paper's value


def run_of(method: str, scaling: str, exponent: int) -> PaperRun:
    """The run of one cell."""
    variant, keyword, value = METHODS[method]
    settings = f"input_scaling={scaling},{keyword}={value * 2.0**exponent!r}"
    return PaperRun("mnist_mlp", f"{variant},{settings}", "study", method)


def runs() -> list[PaperRun]:
    """Every run, cell by cell."""
    return list(itertools.starmap(run_of, itertools.product(METHODS, SCALINGS, EXPONENTS)))


def heat_map(scale: str, records: Mapping[str, Run]) -> HeatMap:
    """Final test accuracy in percent: a panel a scaling, a row a method, a column a factor."""
    panels = []
    for scaling, title in SCALINGS.items():
        values = np.full((len(METHODS), len(EXPONENTS)), np.nan)
        marks = np.full(values.shape, "", object)
        for (i, method), (j, exponent) in itertools.product(
            enumerate(METHODS), enumerate(EXPONENTS)
        ):
            record = records.get(run_of(method, scaling, exponent).name)
            if record is None:
                marks[i, j] = "?"
                continue
            final = record.outcomes("final_test_accuracy")
            if len(final):
                values[i, j] = 100 * final.mean()
            else:
                marks[i, j] = "diverged"
        panels.append(Map(title, values, marks))
    return HeatMap(
        tuple(panels),
        rows=tuple(f"{method}, {METHODS[method][2]:g}" for method in METHODS),
        columns=tuple(str(fractions.Fraction(2) ** exponent) for exponent in EXPONENTS),
        boxed=EXPONENTS.index(0),
        x_label="learning rate (DALR: c) over the paper's tuned value, which follows the name",
        value_label="final test accuracy (%)",
        caption="Full-batch MNIST, MLP 3 x 500, by input scaling; boxed: the paper's tuned values. "
        f"{SCALES[scale]['study'].says}.",
    )


@dataclasses.dataclass(frozen=True)
class Study:
    """The study as a heat map; see `published.Published`."""

    name = "study"
    title = "study"
    noted = True

    def runs(self, scale: str) -> list[PaperRun]:
        """All of them, at every scale."""
        return runs()

    def only(self, words: Sequence[str], scale: str) -> "Study":
        """All of it: cells without a record are marked."""
        return self

    def of(self, places: Places) -> Artefact | None:
        """The map; None without any record."""
        records = places.records(runs())
        return heatmap.artefact(heat_map(places.scale, records), self.name) if records else None
