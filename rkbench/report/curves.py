"""Curves short enough for a page: thinned without losing their extremes, in few digits."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rkbench.records import AXES, Columns, aligned
from rkbench.statistics import band

TOTAL_POINTS = 300_000  # of all curves of a page together: about 8 MB
DIGITS = 6


def points_each(max_points: int, curves: int) -> int:
    """How many points a curve may have where there are so many curves."""
    return max(4, min(max_points, TOTAL_POINTS // max(curves, 1)))


def thinned(values: np.ndarray, points: int) -> np.ndarray:
    """Indices, ascending, of at most `points` of the values, which are finite float64 [n].

    The first and the last are kept, and of each of (points - 2) / 2 buckets of equal width the
    least and the greatest: no spike is lost.
    """
    n = len(values)
    if n <= points:
        return np.arange(n)
    buckets = max((points - 2) // 2, 1)
    width = -(-n // buckets)
    padded = np.pad(values, (0, buckets * width - n), mode="edge").reshape(buckets, width)
    begins = np.arange(buckets) * width
    extremes = [begins + padded.argmin(axis=1), begins + padded.argmax(axis=1)]
    return np.unique(np.minimum(np.concatenate([*extremes, [0, n - 1]]), n - 1))


def of_seed(columns: Columns, metrics: Iterable[str], points: int) -> dict[str, Any]:
    """One seed's curves.

    {"axes": {axis: numbers}, "metrics": {metric: {"at": indices into the axes, "y": values}}}
    """
    kept = {}
    for metric in metrics:
        there = np.flatnonzero(np.isfinite(columns.get(metric, np.empty(0))))
        if there.size:
            kept[metric] = there[thinned(columns[metric][there], points)]
    lines = np.unique(np.concatenate([*kept.values(), []])).astype(int)
    return {
        "axes": {axis: _numbers(columns[axis][lines]) if columns else [] for axis in AXES},
        "metrics": {
            metric: {
                "at": np.searchsorted(lines, indices).tolist(),
                "y": _numbers(columns[metric][indices]),
            }
            for metric, indices in kept.items()
        },
    }


def of_seeds(seeds: Sequence[Columns], metrics: Iterable[str], points: int) -> dict[str, Any]:
    """The mean over several seeds.

    {metric: {axis: numbers, "y": means, "error": standard errors, "n": seeds at each point}}
    """
    found = {}
    for metric in metrics:
        curves = {axis: aligned(seeds, metric, axis) for axis in AXES}
        values = curves["step"].values
        if not values.size:
            continue
        mean, error = band(values)
        kept = thinned(mean, points)
        counts = np.isfinite(values).sum(axis=0)[kept].tolist()
        found[metric] = {axis: _numbers(curve.x[kept]) for axis, curve in curves.items()} | {
            "y": _numbers(mean[kept]),
            "error": _numbers(error[kept]),
            "n": counts[0] if len(set(counts)) == 1 else counts,
        }
    return found


def _numbers(values: np.ndarray) -> list[float | int]:
    return [number(value) for value in values.tolist()]


def number(value: float) -> Any:
    """The value in `DIGITS` digits, whole where it is; None where it is not finite."""
    if not math.isfinite(value):
        return None
    if value == int(value):
        return int(value)
    return float(f"{value:.{DIGITS}g}")


def plain(content: Any) -> Any:
    """The content as JSON holds it, with every float as `number` writes it."""
    if isinstance(content, float):
        return number(content)
    if isinstance(content, Mapping):
        return {str(key): plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [plain(value) for value in content]
    return content
