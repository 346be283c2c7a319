"""Trains trials one after the other, all of an optimizer by one compiled program."""

import pathlib
import sys
import time
from collections.abc import Mapping, Sequence

from rkbench import errors
from rkbench.experiment import Experiment
from rkbench.sweep import results
from rkbench.sweep.plan import Protocol, Trial, Tuning
from rkbench.train import train_experiment


class Trainer:
    """Trains trials and remembers what failed and what was compiled.

    Attributes:
      failures: {folder of a trial that failed: why}.
      compilations: {optimizer: programs compiled}.
    """

    def __init__(self, compilations: Mapping[str, int]) -> None:
        """`compilations` are those of processes before this one."""
        self.failures: dict[pathlib.Path, str] = {}
        self.compilations = dict(compilations)
        self._latest: Experiment | None = None

    def train(self, tuning: Tuning, trials: Sequence[Trial], protocol: Protocol) -> None:
        """Trains those of the trials that are not finished; one that fails stops no other."""
        waiting = [t for t in trials if results.result(t, protocol).status not in _ENDED]
        begin = time.monotonic()
        for number, trial in enumerate(waiting):
            elapsed = time.monotonic() - begin
            left = f", {elapsed / number * (len(waiting) - number):.0f} s left" if number else ""
            print(
                f"[{number + 1}/{len(waiting)}{left}] {trial.optimizer} {trial.folder.name}: "
                f"{shown(trial.settings)}",
                file=sys.stderr,
                flush=True,
            )
            self._attempt(tuning, trial)

    def _attempt(self, tuning: Tuning, trial: Trial) -> None:
        try:
            self._latest = Experiment.from_config(
                trial.config, like=self._latest, traced=tuning.traced
            )
            program = self._latest.program
            before = program.compilations
            train_experiment(self._latest, trial.folder)
            done = self.compilations.get(tuning.optimizer, 0)
            self.compilations[tuning.optimizer] = done + program.compilations - before
        except Exception as error:  # whatever it is, the other trials go on
            text = " ".join(str(error).split())
            kind = "" if isinstance(error, errors.UserError) else f"{type(error).__name__}: "
            self.failures[trial.folder] = kind + text
            print(f"{trial.folder} failed: {kind}{text}", file=sys.stderr, flush=True)


_ENDED = ("done", "diverged")


def shown(settings: dict) -> str:
    """Settings as "learning_rate=0.001, momentum=0.9"."""
    return ", ".join(
        f"{field.removeprefix('optimizer.')}={value:g}"
        if isinstance(value, float)
        else f"{field.removeprefix('optimizer.')}={value}"
        for field, value in settings.items()
    )
