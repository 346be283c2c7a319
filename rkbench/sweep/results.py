"""What trials came to, read from their folders: the choice and what is to be said about it."""

import dataclasses
import math
from typing import Any

from rkbench import errors, scoring
from rkbench.records import Run
from rkbench.sweep.plan import Protocol, Trial, Tuning, changed
from rkbench.sweep.space import Range, extended, is_range
from rkbench.trainer.optimizer import check_optimizer, learning_rates

FINISHED = ("done", "diverged", "failed")


@dataclasses.dataclass(frozen=True)
class Result:
    """What became of a trial.

    Attributes:
      trial: which.
      status: "done", "diverged" (a seed of it did), "failed", "running", or "missing": not begun.
      value: the protocol's metric, the mean over the tuning seeds; None unless it is done.
      error: why it failed; "".
      seconds: of training, all seeds together.
    """

    trial: Trial
    status: str
    value: float | None = None
    error: str = ""
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Edge:
    """A chosen value with none beyond it that was tried, and the range to try next, if any."""

    field: str
    value: float
    tried: Range
    upwards: bool
    next: Range | None

    @property
    def end(self) -> str:
        """Which of the values tried it is."""
        return "largest" if self.upwards else "smallest"

    def __str__(self) -> str:
        text = f"the best {self.field}, {self.value:g}, is the {self.end} tried of {self.tried}"
        if self.next is None:
            return f"{text}, and cannot go further"
        return f"{text}: run next {self.next}"


@dataclasses.dataclass(frozen=True)
class Choice:
    """What one optimizer's trials came to.

    Attributes:
      tuning: its trials.
      results: of each.
      best: the best one; None while trials are missing, or where none is done.
      edges: the fields in which the best one lies at an end of what was tried.
    """

    tuning: Tuning
    results: tuple[Result, ...]
    best: Result | None
    edges: tuple[Edge, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is to be said about the choice, each a line."""
        lines = [str(edge) for edge in self.edges]
        if self.best is None and not self.unfinished:
            lines.append("no trial came to its end: nothing can be chosen")
        if failed := sum(result.status == "failed" for result in self.results):
            lines.append(f"{failed} of {len(self.results)} trials failed")
        return tuple(lines)

    @property
    def unfinished(self) -> int:
        """Trials still to be trained."""
        return sum(result.status not in FINISHED for result in self.results)


def result(trial: Trial, protocol: Protocol) -> Result:
    """What the trial's folder holds; a damaged or cut-off log makes it a failure."""
    if not (trial.folder / "run.json").is_file():
        return Result(trial, "missing")
    run = Run(trial.folder)
    try:
        status, seconds = run.record.get("status", ""), run.record.get("seconds", 0.0)
        found = scoring.collect([trial.folder])
    except errors.UserError as error:
        return Result(trial, "failed", error=" ".join(str(error).split()))
    if status not in ("done", "diverged"):
        return Result(trial, status, error=run.record.get("error", ""))
    if found.omissions:
        return Result(trial, "failed", error=found.omissions[0].reason, seconds=seconds)
    (score,) = scoring.score(found, protocol.metric)
    if score.diverged:
        return Result(trial, "diverged", seconds=seconds)
    if {one.seed for one in score.outcomes} < set(trial.config.seeds):
        return Result(trial, "running", seconds=seconds)
    value = score.estimate(protocol.quantity).mean
    if not math.isfinite(value):
        return Result(trial, "failed", error=f"no finite {protocol.metric}", seconds=seconds)
    return Result(trial, "done", value, seconds=seconds)


def choose(tuning: Tuning, protocol: Protocol, failures: dict[Any, str] | None = None) -> Choice:
    """The best trial by the protocol's metric, the first of equal ones.

    Args:
      tuning: whose trials.
      protocol: how they are compared.
      failures: {folder of a trial that failed in this process: why}.
    """
    results = []
    for trial in tuning.trials:
        found = result(trial, protocol)
        if failures and trial.folder in failures:
            found = dataclasses.replace(found, status="failed", error=failures[trial.folder])
        results.append(found)
    done = [found for found in results if found.value is not None]
    if not done or any(found.status not in FINISHED for found in results):
        return Choice(tuning, tuple(results), None)
    sign = -1 if scoring.lower_is_better(protocol.metric) else 1
    best = max(done, key=lambda found: sign * (found.value or 0.0))
    return Choice(tuning, tuple(results), best, tuple(edges(tuning, best.trial)))


def edges(tuning: Tuning, best: Trial) -> list[Edge]:
    """The fields in which the best trial lies at an end of what was tried."""
    found = []
    for field, distribution in tuning.space.items():
        if not is_range(distribution):
            continue
        value = best.settings[field]
        tried = [trial.settings[field] for trial in tuning.trials]
        for upwards, end in ((False, min(tried)), (True, max(tried))):
            if value == end:
                wider = extended(distribution, upwards)
                possible = _possible(best, field, wider.high if upwards else wider.low)
                found.append(Edge(field, value, distribution, upwards, wider if possible else None))
    return found


def _possible(trial: Trial, field: str, value: Any) -> bool:
    """Whether a setting beyond the range could be trained at all."""
    try:
        config = changed(trial.config, {field: value})
        check_optimizer(config.optimizer, learning_rates(config))
    except ValueError:
        return False
    return True
