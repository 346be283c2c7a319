"""The trainer: `train_and_evaluate(config, workdir)` runs a config to its end, from where it is.

A run is a list of groups of seeds (`rkbench.group`). Runs that share a program can also train as
one group, side by side.
"""

import contextlib
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from rkbench import distributed, metrics, summary
from rkbench.experiment import Experiment, side_by_side
from rkbench.group import Group, Lane
from rkbench.run_log import RunLog
from rkbench.run_record import Workdir, environment


def train_and_evaluate(config, workdir: str | pathlib.Path) -> dict[str, Any]:
    """Trains every seed of `config` and returns the run record, as `workdir`/run.json holds it.

    The same call after an interruption resumes from the newest checkpoint; after the end it returns
    the record; with further seeds it trains those. A seed whose loss or parameters are no longer
    finite ends as "diverged", which is a result: no exception.

    Args:
      config: a config as `configs/default.py` describes it.
      workdir: the run's folder.

    Raises:
      UserError: the config cannot work, or the workdir cannot be used. Nothing is written then.
    """
    return train_experiment(Experiment.from_config(config), pathlib.Path(workdir))


def train_experiment(experiment: Experiment, workdir: pathlib.Path) -> dict[str, Any]:
    """`train_and_evaluate` for a config made ready, whose compiled programs it shares."""
    if not os.path.isfile(workdir / "run.json"):
        experiment.check()  # before the first start: what cannot work leaves no trace
    with contextlib.closing(_workdir(workdir, experiment)) as run:
        finished = _finished_seeds(run)
        ended = run.record.get("status") in summary.ENDS and finished.issuperset(
            experiment.config.seeds
        )
        if distributed.from_primary(ended):
            if distributed.is_primary():
                print(f"rkbench: {workdir} is finished, nothing to do", file=sys.stderr)
                with RunLog(workdir, experiment.config.tensorboard) as log:
                    log.complete_event_files(run.record)
            return run.record
        with _running(experiment, [run]) as (log,):
            for seeds in experiment.seed_groups:
                if not distributed.from_primary(finished.issuperset(seeds)):
                    lanes = tuple(Lane(run, log, seed) for seed in seeds)
                    Group(experiment, lanes, run.folder / "checkpoints" / _name(seeds)).train()
        return run.record


def train_side_by_side(
    experiments: Sequence[Experiment],
    workdirs: Sequence[pathlib.Path],
    checkpoints: pathlib.Path,
) -> Experiment:
    """Trains runs that can share a program as one vectorized program, each in its own workdir.

    They resume from `checkpoints` together. What is returned is the experiment of them all.

    Raises:
      ValueError: they cannot share a program.
    """
    together = side_by_side(experiments)
    with contextlib.ExitStack() as stack:
        runs = [
            stack.enter_context(contextlib.closing(_workdir(folder, one)))
            for folder, one in zip(workdirs, experiments, strict=True)
        ]
        logs = stack.enter_context(_running(together, runs))
        lanes = [
            Lane(run, log, seed)
            for run, log, one in zip(runs, logs, experiments, strict=True)
            for seed in one.config.seeds
        ]
        Group(together, tuple(lanes), checkpoints).train()
    return together


def _workdir(folder: pathlib.Path, experiment: Experiment) -> Workdir:
    return Workdir(folder, experiment.config, writes=distributed.is_primary())


@contextlib.contextmanager
def _running(experiment: Experiment, runs: Sequence[Workdir]) -> Iterator[list[RunLog]]:
    """Gives the runs' logs, and keeps in their records what goes on and how it ends."""
    data = experiment.workload.provenance
    for run in runs:
        run.check_data(data)
    for run in runs:
        run.write(
            **environment(),
            status="running",
            data=data,
            compiled_loops=experiment.loop,
            seeds=run.record.get("seeds", []),
        )
    tensorboard, writes = experiment.config.tensorboard, distributed.is_primary()
    logs = [RunLog(run.folder, tensorboard, writes) for run in runs]
    try:
        for run in runs:
            distributed.check_shared(run.folder / "run.json")
        with contextlib.ExitStack() as stack:
            yield [stack.enter_context(log) for log in logs]
    except Exception as error:
        for run in runs:
            with contextlib.suppress(OSError):  # a full disk may be what `error` is
                run.write(status="failed", error=f"{type(error).__name__}: {error}".splitlines()[0])
        raise
    for run in runs:
        run.record.pop("error", None)
        run.write(
            **summary.of_run(run.record["seeds"]), compilations=experiment.program.compilations
        )
    for run, log in zip(runs, logs, strict=True):
        log.complete_event_files(run.record)


def _finished_seeds(run: Workdir) -> set[int]:
    """The seeds whose outcome is recorded and whose log is as it was then."""
    finished = set()
    records = list(metrics.sound(run.folder / "metrics.jsonl"))
    for entry in run.record.get("seeds", []):
        seed = entry["seed"]
        logged = metrics.fingerprint(records, seed)
        if run.record.get("logs", {}).get(str(seed), logged) == logged:
            finished.add(seed)
        elif distributed.is_primary():
            print(
                f"rkbench: metrics.jsonl is damaged in the lines of seed {seed}, which is trained "
                "again from its last checkpoint before them",
                file=sys.stderr,
            )
    return finished


def _name(seeds: tuple[int, ...]) -> str:
    return f"seed-{seeds[0]}" if len(seeds) == 1 else f"seed-{seeds[0]}-to-{seeds[-1]}"
