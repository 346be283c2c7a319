"""Trains the runs that are missing, one after the other, and archives their records."""

import json
import pathlib
import sys
import time
from collections.abc import Callable

from rkbench import errors, files
from rkbench.paper import timing
from rkbench.paper.plan import Job, Places, timing_group
from rkbench.records import Run
from rkbench.records.archive import archive
from rkbench.step import compilation
from rkbench.train import train_experiment
from rkbench.trainer.experiment import Experiment


def train(jobs: list[Job], places: Places) -> dict[str, str]:
    """Trains what is missing; returns {run's name: why it failed} for those that did.

    A finished run is not repeated, an interrupted run resumes, and a run that fails does not stop
    the others. The runs of a timing group are timed in turns.
    """
    compilation.enable_cache()
    failed: dict[str, str] = {}
    waiting = [job for job in jobs if job.missing]
    latest = _Latest()
    begin = time.monotonic()
    while waiting:
        job = waiting[0]
        group = timing_group(job.run)
        together = [j for j in waiting if group and j.run in group] or [job]
        waiting = [j for j in waiting if j not in together]
        names = ", ".join(j.run.name for j in together)
        print(
            f"{names}: seeds {', '.join(map(str, job.missing))}; {len(waiting)} runs follow "
            f"({time.monotonic() - begin:.0f} s so far)",
            file=sys.stderr,
            flush=True,
        )
        problem = _attempt(lambda together=together: _run(together, places, latest))
        if problem is not None:
            print(f"{names} failed: {problem}", file=sys.stderr, flush=True)
        for one in together:
            if problem is not None:
                failed[one.run.name] = problem
                _note_failure(places.record(one.run), problem)
            else:
                _put_away(one, places)
    if latest.trained:
        print(
            f"programs compiled: {latest.compilations} for {latest.trained} runs", file=sys.stderr
        )
    return failed


class _Latest:
    """The latest experiment: the next one takes over its data and programs where it can.

    Attributes:
      experiment: it; None at first.
      trained: runs so far, without those that are timed in turns.
      compilations: programs that they compiled: one a run's optimizer, whatever the seeds.
    """

    experiment: Experiment | None = None
    trained = 0
    compilations = 0

    def train(self, job: Job, workdir: pathlib.Path) -> None:
        """Trains a run, or goes on with it."""
        self.experiment = Experiment.from_config(job.config(), like=self.experiment)
        before = self.experiment.programs.compilations
        train_experiment(self.experiment, workdir)
        self.trained += 1
        self.compilations += self.experiment.programs.compilations - before


def _run(together: list[Job], places: Places, latest: _Latest) -> None:
    if timing_group(together[0].run) is None:
        (job,) = together
        latest.train(job, places.workdir(job.run))
    else:
        timing.interleave({places.workdir(job.run): job.config() for job in together})


def _attempt(call: Callable[[], None]) -> str | None:
    """What went wrong, in one line; None where nothing did."""
    try:
        call()
    except Exception as error:  # whatever it is, the other runs go on
        text = " ".join(str(error).split())
        return text if isinstance(error, errors.UserError) else f"{type(error).__name__}: {text}"
    return None


def _put_away(job: Job, places: Places) -> None:
    record = places.record(job.run)
    runs = [Run(record)] if (record / "run.json").is_file() else []
    archive([*runs, Run(places.workdir(job.run))], record)
    (record / "failed.json").unlink(missing_ok=True)


def _note_failure(record: pathlib.Path, problem: str) -> None:
    """Keeps why a run failed, so that the table can say it."""
    record.mkdir(parents=True, exist_ok=True)
    files.write_text(record / "failed.json", json.dumps({"error": problem}) + "\n")
