"""Which input scaling fits the paper at batch 16: both optimizers on MNIST under two readings."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rkbench.drawing import tables
from rkbench.drawing.artefact import Artefact
from rkbench.paper.plan import Places
from rkbench.paper.runs import ADAM, RK4, SMALL_BATCH, TABLE_1, PaperRun
from rkbench.paper.scales import SCALES
from rkbench.records import Run
from rkbench.statistics import Estimate, estimate

RUNS: Mapping[str, tuple[PaperRun, PaperRun]] = {
    "raw, 0 to 255": SMALL_BATCH["mnist"],
    "[0, 1]": (
        PaperRun("mnist_mlp", "adam,input_scaling=unit", "small_batch", ADAM),
        PaperRun("mnist_mlp", "rk4,input_scaling=unit", "small_batch", RK4),
    ),
}
PAPER = TABLE_1[0].paper


class Line(NamedTuple):
    """One optimizer under one scaling; accuracies in percent."""

    scaling: str
    optimizer: str
    best: Estimate  # selected on the test set, as in the paper
    final: Estimate
    paper: tuple[float, float]

    @property
    def difference(self) -> float:
        """Ours (best) less the paper's, in percentage points."""
        return self.best.mean - self.paper[0]


def runs() -> list[PaperRun]:
    """Every run, scaling by scaling."""
    return [run for pair in RUNS.values() for run in pair]


def lines(records: Mapping[str, Run]) -> list[Line]:
    """The lines of the runs that have a record."""
    return [
        Line(scaling, run.label, *_accuracies(records[run.name]), paper)
        for scaling, pair in RUNS.items()
        for run, paper in zip(pair, PAPER, strict=True)
        if run.name in records
    ]


def _accuracies(record: Run) -> tuple[Estimate, Estimate]:
    best, final = (
        estimate(100 * record.outcomes(f"{which}_test_accuracy")) for which in ("best", "final")
    )
    return best, final


def texts(found: list[Line], scale: str) -> dict[str, str]:
    """The files that show the lines: {name: what is in it}."""
    return {
        "input_scaling.md": markdown(found, scale),
        "input_scaling.csv": comma_separated(found),
    }


def markdown(found: list[Line], scale: str) -> str:
    """The table with what one has to know to read it."""
    header = ("inputs", "optimizer", "seeds", "best (%)", "final (%)", "paper, best (%)")
    rows: list[tables.Row] = [(*header, "difference")]
    for line in found:
        paper = tables.with_error(*line.paper)
        accuracies = (tables.with_error(*value[:2]) for value in (line.best, line.final))
        count = str(line.best.n)
        rows.append(
            (line.scaling, line.optimizer, count, *accuracies, paper, f"{line.difference:+.2f}")
        )
    return f"""# Input scaling at batch 16

MNIST, MLP 3 x 500, 10,000 steps, the paper's learning rates (Adam 0.001, RK4 0.003). Scale
`{scale}`: {SCALES[scale]["small_batch"].says}. Test accuracy, mean ± standard error over seeds.

{tables.markdown(rows)}"""


def comma_separated(found: list[Line]) -> str:
    """Every number unrounded."""
    header = ("inputs", "optimizer", "seeds", "best", "best_standard_error")
    more = ("final", "final_standard_error", "paper", "difference")
    rows: list[tables.Row] = [(*header, *more)]
    for line in found:
        numbers = (*line.best[:2], *line.final[:2], line.paper[0], line.difference)
        cells = [f"{number:.6g}" for number in numbers]
        rows.append((line.scaling, line.optimizer, str(line.best.n), *cells))
    return tables.comma_separated(rows)


@dataclasses.dataclass(frozen=True)
class InputScaling:
    """The comparison of input scalings as a table; see `published.Published`."""

    name = "input_scaling"
    title = "input scaling"
    noted = True

    def runs(self, scale: str) -> list[PaperRun]:
        """All of them, at every scale."""
        return runs()

    def only(self, words: Sequence[str], scale: str) -> "InputScaling":
        """All of it: a run without a record has no line."""
        return self

    def of(self, places: Places) -> Artefact | None:
        """The table; None without any record."""
        found = lines(places.records(runs()))
        return Artefact(self.name, texts(found, places.scale)) if found else None
