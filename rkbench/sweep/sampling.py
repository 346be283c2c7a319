"""From a space to settings: a grid, or quasi-random points."""

import itertools
import math
from typing import Any

from rkbench import errors
from rkbench.sweep.space import Choice, Space, is_range, value_at

SAMPLERS = ("auto", "grid", "halton", "sobol")

Settings = dict[str, Any]
"""{field of the config: value}."""


def sample(space: Space, trials: int, sampler: str = "auto", seed: int = 0) -> list[Settings]:
    """At most `trials` settings, all different, the same ones whenever it is called.

    "grid" takes every choice, and of each range as many values as fit, evenly spaced with both
    ends. "halton" and "sobol" take `trials` points of scipy's scrambled sequences. "auto" is a grid
    for a single range, where nothing covers better, and "halton" for more.

    Args:
      space: what to sample.
      trials: how many at most.
      sampler: one of `SAMPLERS`.
      seed: of the scrambling.

    Raises:
      UserError: an unknown sampler, or too few trials for a grid.
    """
    if sampler not in SAMPLERS:
        raise errors.unknown("sampler", sampler, SAMPLERS)
    if trials < 1:
        raise errors.UserError(f"trials={trials} must be at least 1")
    ranges = sum(map(is_range, space.values()))
    if sampler == "grid" or (sampler == "auto" and ranges <= 1):
        settings = _grid(space, trials)
    else:
        settings = _sequence(space, trials, sampler, seed)
    unique = {repr(one): one for one in settings}
    return list(unique.values())


def _grid(space: Space, trials: int) -> list[Settings]:
    choices = math.prod(len(d.values) for d in space.values() if isinstance(d, Choice))
    ranges = sum(map(is_range, space.values()))
    each = 0
    while choices * (each + 1) ** ranges <= trials and each < trials:
        each += 1
    if each < (2 if ranges else 1):
        raise errors.UserError(
            f"trials={trials} are too few for a grid: {choices} choices x two values of each of "
            f"{ranges} ranges are {choices * 2**ranges}; sampler=halton takes any number"
        )
    points = []
    for distribution in space.values():
        if is_range(distribution):
            points.append([i / (each - 1) for i in range(each)])
        elif isinstance(distribution, Choice):
            count = len(distribution.values)
            points.append([(i + 0.5) / count for i in range(count)])
        else:
            points.append([0.0])
    return [_settings(space, point) for point in itertools.product(*points)]


def _sequence(space: Space, trials: int, sampler: str, seed: int) -> list[Settings]:
    from scipy.stats import qmc

    if sampler == "sobol":
        powers = math.ceil(math.log2(trials))  # its balance is that of powers of two
        points = qmc.Sobol(len(space), rng=seed).random_base2(powers)[:trials]
    else:
        points = qmc.Halton(len(space), rng=seed).random(trials)
    return [_settings(space, point) for point in points]


def _settings(space: Space, point: Any) -> Settings:
    pairs = zip(space.items(), point, strict=True)
    return {field: value_at(distribution, float(u)) for (field, distribution), u in pairs}
