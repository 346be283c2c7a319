"""Methods over several tasks: performance profiles and geometric-mean speed-ups.

Both take {task: {method: time to the target}}, where a time is infinite if the target was missed.
A method that was not run on a task counts as having missed it there, and `tasks` says how many of
them it was run on.
"""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

TimesByTask = Mapping[str, Mapping[str, float]]

MAX_RATIO = 4.0  # up to which the area of a profile is taken


@dataclasses.dataclass(frozen=True)
class Profile:
    """rho(tau): the share of tasks that a method solves within tau times the fastest's time.

    Attributes:
      ratios: time over that of the fastest method, of every task: infinite where the target was
        missed.
      tasks: those that the method was run on.
    """

    ratios: tuple[float, ...]
    tasks: int

    def __call__(self, tau: float | np.ndarray) -> np.ndarray:
        """rho at tau >= 1, float64 of tau's shape."""
        shares = np.asarray(self.ratios) <= np.expand_dims(np.asarray(tau, np.float64), -1)
        return shares.mean(axis=-1)

    def area(self, max_ratio: float = MAX_RATIO) -> float:
        """The mean of rho over 1 <= tau <= max_ratio: 1 for a method that always is the fastest."""
        solved = np.maximum(0.0, max_ratio - np.asarray(self.ratios))
        return float(np.mean(solved / (max_ratio - 1)))

    def steps(self, max_ratio: float = MAX_RATIO) -> tuple[np.ndarray, np.ndarray]:
        """(tau, rho) of the corners between 1 and max_ratio, to be drawn as steps after each."""
        inside = [ratio for ratio in self.ratios if ratio <= max_ratio]
        tau = np.unique([1.0, *inside, max_ratio])
        return tau, self(tau)


def profile(times: TimesByTask) -> dict[str, Profile]:
    """The performance profile of each method (Dolan and More, 2002).

    A task that no method solved gives every method an infinite ratio.
    """
    profiles = {}
    for method in _methods(times):
        ratios = [_ratio(own.get(method, math.inf), min(own.values())) for own in times.values()]
        run = sum(method in own for own in times.values())
        profiles[method] = Profile(tuple(ratios), run)
    return profiles


@dataclasses.dataclass(frozen=True)
class SpeedUp:
    """How much faster than a baseline a method reaches the targets.

    Attributes:
      factor: the geometric mean over tasks of the baseline's time over the method's, 2 for half the
        time: 0 where the method misses a target that the baseline reaches, infinite the other way
        round, NaN where both happens or no task counts.
      tasks: those that count: either reaches the target, and both were run.
      missed: of these, the ones whose target the method missed.
      baseline_missed: of these, the ones whose target the baseline missed.
    """

    factor: float
    tasks: int
    missed: int
    baseline_missed: int


def speed_up(times: TimesByTask, baseline: str) -> dict[str, SpeedUp]:
    """The speed-up of each method over the baseline; only tasks that both were run on count."""
    found = {}
    for method in _methods(times):
        pairs = [
            (own[baseline], own[method])
            for own in times.values()
            if baseline in own and method in own and min(own[baseline], own[method]) < math.inf
        ]
        missed = sum(math.isinf(ours) for _, ours in pairs)
        baseline_missed = sum(math.isinf(theirs) for theirs, _ in pairs)
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = [np.log(theirs) - np.log(ours) for theirs, ours in pairs]
            factor = float(np.exp(np.mean(logs))) if logs else math.nan
        found[method] = SpeedUp(factor, len(pairs), missed, baseline_missed)
    return found


def _methods(times: TimesByTask) -> list[str]:
    return list(dict.fromkeys(method for own in times.values() for method in own))


def _ratio(time: float, fastest: float) -> float:
    """1 for the fastest, also where it took no time at all (the target was reached at step 0)."""
    if math.isinf(time):
        return math.inf
    if time == fastest:
        return 1.0
    return time / fastest if fastest else math.inf
