"""Trains trials one after the other, all of an optimizer by one compiled program."""

import pathlib
import sys
import time
from collections.abc import Mapping, Sequence

from rkbench import errors
from rkbench.step import compilation
from rkbench.sweep import results
from rkbench.sweep.plan import Protocol, Trial, Tuning
from rkbench.train import train_experiment, train_side_by_side
from rkbench.trainer.experiment import Experiment

_ENDED = ("done", "diverged")


class Trainer:
    """Trains trials and remembers what failed and what was compiled.

    A UserError (a trial's folder is in use by another process, say) ends it.

    Attributes:
      failures: {folder of a trial that failed: why}.
      compilations: {optimizer: programs compiled}.
    """

    def __init__(self, runs: int, compilations: Mapping[str, int]) -> None:
        """Of `runs` in all; `compilations` are those of processes before this one."""
        self.failures: dict[pathlib.Path, str] = {}
        self.compilations = dict(compilations)
        self._runs, self._trained = runs, 0
        self._seen: set[pathlib.Path] = set()  # those that are behind us
        self._begin = time.monotonic()
        self._latest: Experiment | None = None

    def train(self, tuning: Tuning, trials: Sequence[Trial], protocol: Protocol) -> None:
        """Trains those of the trials that are not finished; one that fails stops no other.

        On a CPU one after the other, else as one vectorized program: see
        `compilation.vectorized_seeds`.
        """
        waiting = [t for t in trials if results.result(t, protocol).status not in _ENDED]
        self._seen |= {t.folder for t in trials} - {t.folder for t in waiting}
        for group in _groups(tuning, waiting):
            self._announce(group)
            self._attempt(tuning, group)
            self._seen |= {trial.folder for trial in group}
            self._trained += len(group)

    def _announce(self, group: Sequence[Trial]) -> None:
        left = ""
        if self._trained:
            seconds = (time.monotonic() - self._begin) / self._trained
            left = f", {_duration(seconds * (self._runs - len(self._seen)))} left"
        first = group[0]
        name = f"{first.optimizer} {first.folder.name}: {shown(first.settings)}"
        if len(group) > 1:
            name += f", and {len(group) - 1} more side by side"
        line = f"[{len(self._seen) + 1}/{self._runs}{left}] {name}"
        print(line, file=sys.stderr, flush=True)

    def _attempt(self, tuning: Tuning, group: Sequence[Trial]) -> None:
        try:
            compiled = self._train(tuning, group)
        except errors.UserError:  # to be set right first, as a folder that another process uses
            raise
        except Exception as error:  # whatever it is, the other trials go on
            problem = f"{type(error).__name__}: {' '.join(str(error).split())}"
            self.failures |= {trial.folder: problem for trial in group}
            print(f"{group[0].folder} failed: {problem}", file=sys.stderr, flush=True)
        else:
            before = self.compilations.get(tuning.optimizer, 0)
            self.compilations[tuning.optimizer] = before + compiled

    def _train(self, tuning: Tuning, group: Sequence[Trial]) -> int:
        """Trains one trial, or several together; returns how often that compiled a program."""
        experiments = []
        for trial in group:
            self._latest = Experiment.from_config(
                trial.config, like=self._latest, traced=tuning.traced
            )
            experiments.append(self._latest)
        folders = [trial.folder for trial in group]
        programs = experiments[0].programs  # all of the group share them
        before = programs.compilations
        if len(group) > 1:
            name = f"{folders[0].name}-to-{folders[-1].name}"
            checkpoints = tuning.folder / "checkpoints" / name
            train_side_by_side(experiments, folders, checkpoints)
        else:
            train_experiment(experiments[0], folders[0])
        return programs.compilations - before


def _groups(tuning: Tuning, trials: Sequence[Trial]) -> list[list[Trial]]:
    """The trials that train together."""
    # Held-out examples are in memory: a stream has none, and could not serve several seeds.
    streamed = not tuning.base.validation_examples
    together = compilation.vectorized_seeds(tuning.base.vectorize_seeds, streamed)
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        key = tuning.program(trial) if together else str(trial.number)
        groups.setdefault(key, []).append(trial)
    return list(groups.values())


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{seconds / 60:.1f} min"


def shown(settings: dict) -> str:
    """Settings as "learning_rate=0.001, momentum=0.9"."""
    return ", ".join(
        f"{field.removeprefix('optimizer.')}={value:g}"
        if isinstance(value, float)
        else f"{field.removeprefix('optimizer.')}={value}"
        for field, value in settings.items()
    )
