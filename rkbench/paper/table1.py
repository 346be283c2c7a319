"""Table 1 from records: Markdown, CSV and LaTeX."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from rkbench.drawing import tables
from rkbench.drawing.artefact import Artefact
from rkbench.paper.plan import Places
from rkbench.paper.runs import TABLE_1, PaperRow, PaperRun, shrunken
from rkbench.paper.scales import SCALES
from rkbench.records import Run, read_object, schemas, summary
from rkbench.statistics import Estimate, estimate


class Line(NamedTuple):
    """One optimizer of one row; accuracies and errors in percent."""

    row: int
    dataset: str
    model: str
    optimizer: str
    status: str  # "done", "2 of 5 diverged", "not run: why", "failed: why"
    n: int
    best: Estimate  # selected on the test set, as in the paper
    final: Estimate
    paper: tuple[float, float]
    grad_evals: float  # of a seed
    seconds: float  # of training, of a seed
    source: str  # the folder of its record, or of its shrunken run's, below the results; "": none

    @property
    def difference(self) -> float:
        """Ours (best) less the paper's, in percentage points."""
        return self.best.mean - self.paper[0]

    @property
    def within(self) -> str:
        """Whether the difference lies within twice the combined standard error."""
        if math.isnan(self.best.standard_error):
            return "-"
        error = math.hypot(self.best.standard_error, self.paper[1])
        return "yes" if abs(self.difference) <= 2 * error else "no"


def lines(places: Places, rows: Iterable[int]) -> list[Line]:
    """The lines of these rows, counted from 1, from the records that there are."""
    return [_line(row, TABLE_1[row - 1], index, places) for row in rows for index in range(2)]


def _line(number: int, row: PaperRow, index: int, places: Places) -> Line:
    run = row.runs[index]
    record = places.records([run]).get(run.name)
    entries = [] if record is None else record.entries

    def over_seeds(field: str) -> Estimate:
        return estimate(np.array([]) if record is None else record.outcomes(field))

    best, final = (over_seeds(f"{which}_test_accuracy") for which in ("best", "final"))
    return Line(
        row=number,
        dataset=row.dataset,
        model=row.model,
        optimizer=run.label,
        status=_why_not(run, places) if record is None else _status(record),
        n=len(entries),
        best=_in_percent(best),
        final=_in_percent(final),
        paper=row.paper[index],
        grad_evals=over_seeds("grad_evals").mean,
        seconds=over_seeds("seconds").mean,
        source=_source(run, places),
    )


def _source(run: PaperRun, places: Places) -> str:
    known = places.records([run, shrunken(run)])
    return next((f"records/{places.scale}/{name}" for name in known), "")


def _in_percent(fraction: Estimate) -> Estimate:
    return Estimate(100 * fraction.mean, 100 * fraction.standard_error, fraction.n)


def _status(record: Run) -> str:
    entries = record.entries
    diverged = sum(entry["status"] == "diverged" for entry in entries)
    status = f"{diverged} of {len(entries)} diverged" if diverged else "done"
    if record.faults:
        status += f", {len(record.faults)} of {len(record.record['seeds'])} seeds left out"
    return f"{status}, on a subset of the data" if summary.subset(record.record) else status


def _why_not(run: PaperRun, places: Places) -> str:
    failed = places.record(run) / "failed.json"
    if failed.is_file():
        return f"failed: {read_object(failed, 'a note of a failure', schemas.Failure)['error']}"
    if not SCALES[places.scale][run.kind].runs:
        smoke = places.records([shrunken(run)])
        note = "; its smoke run is linked" if smoke else ""
        return f"not run: beyond the scale {places.scale!r}{note}"
    return "not run yet"


_COLUMNS = (
    "dataset",
    "model",
    "optimizer",
    "status",
    "seeds",
    "best test accuracy (%)",
    "final test accuracy (%)",
    "paper, best (%)",
    "difference",
    "within 2 combined errors",
    "gradient evaluations a seed",
    "seconds a seed",
    "record",
)


def _cells(line: Line) -> list[str]:
    ran = line.n > 0
    return [
        line.dataset,
        line.model,
        line.optimizer,
        line.status,
        str(line.n),
        _accuracy(line.best),
        _accuracy(line.final),
        tables.with_error(*line.paper),
        f"{line.difference:+.2f}" if ran else "-",
        line.within if ran else "-",
        f"{line.grad_evals:,.0f}" if ran else "-",
        f"{line.seconds:,.0f}" if ran else "-",
        f"[`{line.source.rpartition('/')[2]}`]({line.source})" if line.source else "-",
    ]


def _accuracy(value: Estimate) -> str:
    return tables.with_error(*value[:2]) if value.n else "-"


def markdown(found: list[Line], scale: str) -> str:
    """The table with what one has to know to read it."""
    kinds = dict.fromkeys(run.kind for row in TABLE_1 for run in row.runs)
    says = dict.fromkeys(SCALES[scale][kind].says for kind in kinds)
    reductions = "; ".join(text for text in says if text) or "none"
    return f"""# Table 1

Scale `{scale}`. Mean ± standard error over seeds, in percent. The best accuracy is the largest
during training, which selects on the test set, as in the paper; the final one is that of the last
step. Reductions against the paper: {reductions}. Rows that were not run say so.

{tables.markdown([_COLUMNS, *map(_cells, found)])}"""


_NUMBERS = (
    *("row", "dataset", "model", "optimizer", "status", "seeds"),
    *("best", "best_standard_error", "final", "final_standard_error"),
    *("paper", "paper_standard_error", "difference"),
    *("within", "grad_evals", "seconds", "record"),
)


def comma_separated(found: list[Line]) -> str:
    """Every number of the table unrounded."""
    rows: list[tables.Row] = [_NUMBERS]
    for line in found:
        row = (str(line.row), line.dataset, line.model, line.optimizer, line.status, str(line.n))
        numbers = (*line.best[:2], *line.final[:2], *line.paper, line.difference)
        cells = [f"{number:.6g}" for number in numbers]
        cost = [f"{line.grad_evals:.0f}", f"{line.seconds:.1f}", line.source]
        rows.append([*row, *cells, line.within, *cost])
    return tables.comma_separated(rows)


def latex(found: list[Line]) -> str:
    """The table in the paper's form, with our numbers beside the paper's."""
    rows = []
    for baseline, rk4 in zip(found[::2], found[1::2], strict=True):
        cells = [baseline.dataset, baseline.model, baseline.optimizer]
        for line in (baseline, rk4):
            ours = _accuracy(line.best).replace("±", r"\pm")
            cells.append(f"${ours}$" if line.n else "not run")
            cells.append(f"${line.paper[0]:.2f} \\pm {line.paper[1]:.2f}$")
        rows.append(" & ".join(cells) + r" \\")
    head = r"Dataset & Model & Baseline & Baseline (\%) & paper & RK4 (\%) & paper \\"
    body = "\n".join(rows)
    return (
        "\\begin{tabular}{lllrrrr}\n\\toprule\n"
        f"{head}\n\\midrule\n{body}\n\\bottomrule\n\\end{{tabular}}\n"
    )


def texts(found: list[Line], scale: str) -> dict[str, str]:
    """The files that show the lines: {name: what is in it}."""
    return {
        "table1.md": markdown(found, scale),
        "table1.csv": comma_separated(found),
        "table1.tex": latex(found),
    }


@dataclasses.dataclass(frozen=True)
class Table1:
    """These rows of Table 1, counted from 1; see `published.Published`.

    It can be made without any record: it says why what is missing was not run.
    """

    rows: tuple[int, ...]
    name = "table1"
    title = "table 1"
    noted = True

    def __post_init__(self):
        if not set(self.rows) <= set(range(1, len(TABLE_1) + 1)):
            raise ValueError(f"there is no such row of Table 1: {self.rows}")

    def runs(self, scale: str) -> list[PaperRun]:
        """The runs behind these rows; shrunken where beyond the scale."""
        return [
            run if SCALES[scale][run.kind].runs else shrunken(run)
            for row in self.rows
            for run in TABLE_1[row - 1].runs
        ]

    def only(self, words: Sequence[str], scale: str) -> "Table1 | None":
        """The rows with such a run."""
        rows = [
            row
            for row in self.rows
            if not words or any(run.is_one_of(words) for run in Table1((row,)).runs(scale))
        ]
        return Table1(tuple(rows)) if rows else None

    def of(self, places: Places) -> Artefact:
        """The table from the records that there are."""
        return Artefact(self.name, texts(lines(places, self.rows), places.scale))
