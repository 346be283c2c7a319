"""Statistics over seeds."""

from typing import NamedTuple

import numpy as np


class Estimate(NamedTuple):
    """A mean over seeds; `standard_error` is s / sqrt(n) with n - 1 in s, NaN for one seed."""

    mean: float
    standard_error: float
    n: int


def estimate(values: np.ndarray) -> Estimate:
    """Mean, standard error and number of the values, float64 [n]; NaNs where there is none."""
    n = len(values)
    if n == 0:
        return Estimate(np.nan, np.nan, 0)
    error = np.std(values, ddof=1) / np.sqrt(n) if n > 1 else np.nan
    return Estimate(float(np.mean(values)), float(error), n)


def band(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard error along the seeds (axis 0 of [seeds, points]), each [points].

    A point that a seed did not reach is NaN there and left out of its mean; a mean of one seed has
    standard error 0, so that a band can be drawn through it.
    """
    n = np.sum(np.isfinite(values), axis=0)
    mean = np.nanmean(values, axis=0)
    squares = np.nansum((values - mean) ** 2, axis=0)
    deviation = np.sqrt(squares / np.maximum(n - 1, 1))
    return mean, deviation / np.sqrt(np.maximum(n, 1))


def percent(value: Estimate) -> str:
    """A fraction as "96.64 ± 0.07", both in percent; "-" where there is no value."""
    if value.n == 0:
        return "-"
    if value.n == 1:
        return f"{100 * value.mean:.2f}"
    return f"{100 * value.mean:.2f} ± {100 * value.standard_error:.2f}"
