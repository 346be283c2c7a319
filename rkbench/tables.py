"""Tables of text: aligned for a terminal, as CSV for everything else."""

import csv
import io
from collections.abc import Sequence

Row = Sequence[str]


def aligned(rows: Sequence[Row]) -> str:
    """The rows in aligned columns, the first of them a header over a line."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in lines)


def comma_separated(rows: Sequence[Row]) -> str:
    """The rows as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
