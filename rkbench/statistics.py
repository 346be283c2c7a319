"""Statistics over seeds."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """A mean over seeds; `standard_error` is s / sqrt(n) with n - 1 in s, NaN for one seed."""

    mean: float
    standard_error: float
    n: int

    @property
    def standard_deviation(self) -> float:
        """s, with n - 1 in it; NaN for one seed."""
        return self.standard_error * self.n**0.5

    @property
    def interval(self) -> tuple[float, float]:
        """Student's 95 % interval of the mean: mean -+ t s / sqrt(n), n - 1 degrees of freedom."""
        return _interval(self.mean, self.standard_error, self.n - 1)


class Difference(NamedTuple):
    """A difference of two means with its 95 % interval, NaN where there are too few seeds."""

    mean: float
    low: float
    high: float
    n: tuple[int, int]  # values on either side

    @property
    def significant(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def estimate(values: np.ndarray) -> Estimate:
    """Mean, standard error and number of the values, float64 [n]; NaNs where there is none."""
    n = len(values)
    if n == 0:
        return Estimate(np.nan, np.nan, 0)
    error = np.std(values, ddof=1) / np.sqrt(n) if n > 1 else np.nan
    return Estimate(float(np.mean(values)), float(error), n)


def paired(one: Mapping[int, float], other: Mapping[int, float]) -> Difference:
    """one - other over the seeds that both have: Student's interval of the differences.

    Both are {seed: finite value}. Equal seeds share initial parameters and batches, so what the two
    have in common drops out.
    """
    seeds = sorted(one.keys() & other.keys())
    differences = estimate(np.array([one[seed] - other[seed] for seed in seeds], np.float64))
    return Difference(differences.mean, *differences.interval, (len(seeds), len(seeds)))


def welch(one: np.ndarray, other: np.ndarray) -> Difference:
    """mean(one) - mean(other) for independent samples of unequal variance: Welch's interval.

    The degrees of freedom are Welch and Satterthwaite's,
    (v1 + v2)^2 / (v1^2 / (n1 - 1) + v2^2 / (n2 - 1)) with v = s^2 / n. (B. L. Welch, 1947.)
    """
    a, b = estimate(one), estimate(other)
    v1, v2 = a.standard_error**2, b.standard_error**2
    spread = v1**2 / max(a.n - 1, 1) + v2**2 / max(b.n - 1, 1)
    degrees = (v1 + v2) ** 2 / spread if spread else 1.0
    mean = a.mean - b.mean
    return Difference(mean, *_interval(mean, np.sqrt(v1 + v2), degrees), (a.n, b.n))


def _interval(mean: float, error: float, degrees: float) -> tuple[float, float]:
    half = t_quantile(degrees) * float(error)
    return mean - half, mean + half


def t_quantile(degrees: float) -> float:
    """How many standard errors the 95 % interval reaches to either side; NaN for 0 degrees."""
    if not degrees > 0:
        return np.nan
    from scipy.special import stdtrit  # the quantile of Student's t; loads when it is needed

    return float(stdtrit(degrees, (1 + CONFIDENCE) / 2))


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
