"""One measured row of the benchmark table, and how two things are timed against each other."""

import importlib
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from rkbench.drawing import tables


class Row(NamedTuple):
    """A line of the table; `target` is what it must reach, "" where there is nothing to reach."""

    what: str
    value: str
    target: str = ""
    note: str = ""


def measure(module: str, function: str) -> Iterator[Row]:
    """The rows of one benchmark, as they come."""
    yield from getattr(importlib.import_module(module), function)()


def table(rows: Iterable[Row]) -> str:
    """The rows as a Markdown table."""
    cells = [("what", "measured", "must reach", "note"), *rows]
    widths = [max(len(row[i]) for row in cells) for i in range(4)]
    padded = [[c.ljust(w) for c, w in zip(row, widths, strict=True)] for row in cells]
    return tables.markdown(padded)


def seconds(call: Callable[[], object]) -> float:
    """The time of one call, which returns when its work is done."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


class Ratio(NamedTuple):
    """How the time of one thing compares with another's over pairs of calls in turn."""

    median: float
    low: float
    high: float
    numerator: float  # median seconds
    denominator: float  # median seconds

    def __str__(self) -> str:
        return f"{self.median:.2f} [{self.low:.2f} to {self.high:.2f}]"


def ratio(one: Callable[[], object], other: Callable[[], object], pairs: int = 9) -> Ratio:
    """seconds(one) / seconds(other), after one call of each that is not counted.

    Args:
      one, other: calls that return when their work is done.
      pairs: how often both are called, in alternating order.
    """
    one()
    other()
    times = []
    for pair in range(pairs):
        if pair % 2:
            b, a = seconds(other), seconds(one)
        else:
            a, b = seconds(one), seconds(other)
        times.append((a, b))
    ratios = sorted(a / b for a, b in times)
    a, b = (statistics.median(side) for side in zip(*times, strict=True))
    return Ratio(statistics.median(ratios), ratios[0], ratios[-1], a, b)
