"""Tables of text: aligned for a terminal, Markdown to read, CSV for everything else."""

import csv
import io
import math
from collections.abc import Collection, Sequence

from rkbench.texts import printable

Row = Sequence[str]


def aligned(rows: Sequence[Row]) -> str:
    """The rows in aligned columns, the first of them a header over a line."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in lines)


def markdown(rows: Sequence[Row], right: Collection[int] = ()) -> str:
    """The rows as Markdown, the first of them the header; the columns of `right` end at the right.

    Columns are counted from 0.
    """
    rule = ["---:" if column in right else "---" for column in range(len(rows[0]))]
    lines = [rows[0], rule, *rows[1:]]
    cells = ([printable(cell).replace("|", r"\|") for cell in row] for row in lines)
    return "".join(f"| {' | '.join(row)} |\n" for row in cells)


def with_error(mean: float, standard_error: float) -> str:
    """A mean and its standard error as "12.34 ± 0.56"; an error of NaN is left out."""
    return f"{mean:.2f}" + ("" if math.isnan(standard_error) else f" ± {standard_error:.2f}")


def comma_separated(rows: Sequence[Row]) -> str:
    """The rows as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
