"""The trainer: `train_and_evaluate(config, workdir)` runs a config to its end, from where it is.

A run is a list of groups of seeds (`rkbench.trainer.group`). Runs that share a program can also
train as one group, side by side.
"""

import contextlib
import itertools
import os
import pathlib
import sys
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from rkbench import errors, paths, plugins
from rkbench.records import metrics, summary
from rkbench.records.identity import differences
from rkbench.records.provenance import environment
from rkbench.records.run_log import RunLog
from rkbench.records.workdir import Workdir
from rkbench.trainer import distributed
from rkbench.trainer.checkpoint import check_fit
from rkbench.trainer.experiment import Experiment, side_by_side
from rkbench.trainer.group import Group
from rkbench.trainer.lanes import Lane
from rkbench.trainer.optimizer import learning_rates


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
    return train_experiment(Experiment.from_config(config), paths.local(workdir))


def train_experiment(experiment: Experiment, workdir: pathlib.Path) -> dict[str, Any]:
    """`train_and_evaluate` for a config made ready, whose compiled programs it shares."""
    if not os.path.isfile(workdir / "run.json"):
        experiment.programs.check()  # before the first start: what cannot work leaves no trace
    with contextlib.closing(_workdir(workdir, experiment)) as run:
        groups, ended = _what_is_left(run, experiment)
        if ended:
            if distributed.is_primary():
                _check_outcomes(run)
                print(f"rkbench: {workdir} is finished, nothing to do", file=sys.stderr)
                with RunLog(workdir, experiment.config.tensorboard) as log:
                    log.complete_event_files(run.record)
            return run.record
        by_size = {len(seeds): experiment.of_group(seeds) for seeds in groups}
        for seeds in groups:
            _check_resumable(run, by_size[len(seeds)], seeds, _checkpoints(run, seeds))
        with _running(experiment, [run]) as (log,):
            for seeds in groups:
                lanes = tuple(Lane(run, log, seed) for seed in seeds)
                Group(by_size[len(seeds)], lanes, _checkpoints(run, seeds)).train()
            if groups:
                run.compiled(sum(one.program.compilations for one in by_size.values()))
        return run.record


def train_side_by_side(
    experiments: Sequence[Experiment],
    workdirs: Sequence[pathlib.Path],
    checkpoints: pathlib.Path,
) -> None:
    """Trains runs that can share a program as one vectorized program, each in its own workdir.

    They resume from `checkpoints` together. A run whose seeds are finished already is not trained
    again.

    Raises:
      ValueError: they cannot share a program.
    """
    left = []
    for one, folder in zip(experiments, workdirs, strict=True):
        with contextlib.closing(_workdir(folder, one)) as run:
            waiting = bool(_what_is_left(run, one)[0])
        if waiting:
            left.append((one, folder))
        else:
            train_experiment(one, folder)
    if len(left) < 2:
        for one, folder in left:
            train_experiment(one, folder)
        return
    together = side_by_side([one for one, _ in left])
    with contextlib.ExitStack() as stack:
        runs = [
            stack.enter_context(contextlib.closing(_workdir(folder, one))) for one, folder in left
        ]
        seeds = [
            (run, seed)
            for run, (one, _) in zip(runs, left, strict=True)
            for seed in one.config.seeds
        ]
        _check_resumable(runs[0], together, tuple(seed for _, seed in seeds), checkpoints)
        logs = dict(zip(runs, stack.enter_context(_running(together, runs)), strict=True))
        Group(
            together, tuple(Lane(run, logs[run], seed) for run, seed in seeds), checkpoints
        ).train()
        for run in runs:
            run.compiled(together.program.compilations)


def train_in_turns(
    experiments: Sequence[Experiment], workdirs: Sequence[pathlib.Path], turns: int
) -> None:
    """Trains runs of equal seeds and steps, a few steps of each in turn, to measure their time.

    Each has its own workdir and is a run like any other, but that nothing is evaluated or saved:
    its log holds the seconds and gradient evaluations after each of `turns` turns. Where all are
    finished, nothing is done: their times stand. Else all are measured anew.
    """
    steps = experiments[0].config.total_steps
    turns = min(turns, steps)
    timed_at = tuple(-(-turn * steps // turns) for turn in range(turns + 1))
    with contextlib.ExitStack() as stack:
        runs = [
            stack.enter_context(contextlib.closing(_workdir(folder, one)))
            for one, folder in zip(experiments, workdirs, strict=True)
        ]
        pairs = list(zip(experiments, runs, strict=True))
        if all(_what_is_left(run, one)[1] for one, run in pairs):
            return
        for run in runs:
            for field in ("parts", "groups", "logs", "seeds"):
                run.record.pop(field, None)
            (run.folder / "metrics.jsonl").unlink(missing_ok=True)
        logs = [stack.enter_context(_running(one, [run]))[0] for one, run in pairs]
        seeds = experiments[0].config.seeds
        alone = [one.of_group(seeds[:1]) for one in experiments]
        for seed in seeds:
            groups = [
                Group(one, (Lane(run, log, seed),), _checkpoints(run, (seed,)), timed_at)
                for one, run, log in zip(alone, runs, logs, strict=True)
            ]
            with contextlib.ExitStack() as ends:
                turns_of = [ends.enter_context(contextlib.closing(g.in_turns())) for g in groups]
                for _ in itertools.zip_longest(*turns_of):  # one that diverges ends early
                    pass
        for run, one in zip(runs, alone, strict=True):
            run.compiled(one.program.compilations)


def _workdir(folder: pathlib.Path, experiment: Experiment) -> Workdir:
    return Workdir(folder, experiment.config, distributed.is_primary(), learning_rates)


@contextlib.contextmanager
def _running(experiment: Experiment, runs: Sequence[Workdir]) -> Iterator[list[RunLog]]:
    """Gives the runs' logs, and keeps in their records what goes on and how it ends."""
    data = experiment.workload.provenance
    used = [
        plugins.used(
            run.record["config"]["optimizer"]["name"], experiment.config.workload, data.get("name")
        )
        for run in runs
    ]
    for run, own in zip(runs, used, strict=True):
        run.check_data(data)
        run.check_plugins(own)
        run.check_numerics()  # of all runs, before one of them is written
    for run, own in zip(runs, used, strict=True):
        finished = set(_finished_seeds(run))
        logs = run.record.get("logs", {})
        run.begin(
            data=data,
            compiled_loops=experiment.programs.loop,
            seeds=[entry for entry in run.record.get("seeds", []) if entry["seed"] in finished],
            logs={seed: logged for seed, logged in logs.items() if int(seed) in finished},
            **({"plugins": own} if own else {}),
        )
    tensorboard, writes = experiment.config.tensorboard, distributed.is_primary()
    written = [RunLog(run.folder, tensorboard, writes) for run in runs]
    try:
        for run in runs:
            distributed.check_shared(run.folder / "run.json")
        with contextlib.ExitStack() as stack:
            yield [stack.enter_context(log) for log in written]
    except Exception as error:
        for run in runs:
            with contextlib.suppress(OSError):  # a full disk may be what `error` is
                run.write(status="failed", error=f"{type(error).__name__}: {error}".splitlines()[0])
        raise
    for run in runs:
        run.record.pop("error", None)
        run.write(**summary.of_run(run.record["seeds"]))
    for run, log in zip(runs, written, strict=True):
        log.complete_event_files(run.record)


def _what_is_left(run: Workdir, experiment: Experiment) -> tuple[list[tuple[int, ...]], bool]:
    """The groups of seeds that are still to be trained, and whether the run has ended.

    Seeds that have begun together and have a checkpoint go on together, whatever was asked for
    since; of the others those that are missing train as the experiment says.
    """
    finished = _finished_seeds(run, tell=distributed.is_primary())
    wanted = experiment.config.seeds
    missing = [seed for seed in wanted if seed not in finished]
    groups = []
    for seeds in _begun(run):
        if not any(finished.get(seed) for seed in seeds) and not set(seeds).isdisjoint(missing):
            groups.append(seeds)
            missing = [seed for seed in missing if seed not in seeds]
    together = len(experiment.seed_groups[0]) > 1
    groups += [tuple(missing)] if together and missing else [(seed,) for seed in missing]
    groups.sort(key=lambda seeds: min(wanted.index(seed) for seed in seeds if seed in wanted))
    ended = not groups and run.record.get("status") in summary.ENDS
    groups, ended = distributed.plain_from_primary([groups, ended])
    return [tuple(seeds) for seeds in groups], ended


def _begun(run: Workdir) -> list[tuple[int, ...]]:
    """The groups that have begun and have a checkpoint, the latest first."""
    recorded = run.record.get("groups", [run.seeds_before])
    groups = [tuple(seeds) for seeds in recorded if isinstance(seeds, list | tuple)]
    return [
        seeds
        for seeds in reversed(groups)
        if seeds and all(isinstance(seed, int) for seed in seeds)
        if any(path.name.isdigit() for path in _checkpoints(run, seeds).glob("[0-9]*"))
    ]


def _finished_seeds(run: Workdir, tell: bool = False) -> dict[int, bool]:
    """The seeds whose outcome is recorded and whose log is as it was then.

    A seed that has come to the end of a run that is extended now is not finished. The values tell
    which seeds have all the steps; others have diverged or spent their budget, and would not train
    where their group goes on.
    """
    finished = {}
    logged = metrics.fingerprints(run.folder / "metrics.jsonl")
    nothing, total = metrics.Fingerprint().to_json(), run.record["config"]["total_steps"]
    for entry in run.record.get("seeds", []):
        seed = entry["seed"]
        now = logged.get(seed, nothing)
        if run.record.get("logs", {}).get(str(seed), now) != now:
            if tell:
                print(
                    f"rkbench: metrics.jsonl is damaged in the lines of seed {seed}, which is "
                    "trained again from its last checkpoint before them",
                    file=sys.stderr,
                )
            continue
        whole = entry["status"] == "done" and entry["steps"] >= (run.earlier_end or total)
        if not (whole and run.earlier_end):
            finished[seed] = whole
    return finished


def _check_outcomes(run: Workdir) -> None:
    """Raises a UserError where run.json says something else of a seed than its log does."""
    gathered = {entry["seed"]: summary.SeedSummary() for entry in run.record["seeds"]}
    for line in metrics.read(run.folder / "metrics.jsonl"):
        if line["seed"] in gathered:
            gathered[line["seed"]].add(line)
    for entry in run.record["seeds"]:
        diverged = entry["steps"] if entry["status"] == "diverged" else None
        again = gathered[entry["seed"]].entry(
            entry["seed"], diverged, entry["seconds"], entry["steps"]
        )
        for field in sorted(entry.keys() & again.keys()):
            if entry[field] != again[field]:
                raise errors.UserError(
                    f"{run.folder / 'run.json'} says of seed {entry['seed']} that {field} is "
                    f"{entry[field]!r}, and the log says {again[field]!r}: it was changed"
                )


def _check_resumable(
    run: Workdir, experiment: Experiment, seeds: tuple[int, ...], checkpoints: pathlib.Path
) -> None:
    """Raises a UserError, before anything is written, where the run cannot go on as it began."""
    run.check_numerics()
    try:
        check_fit(checkpoints, experiment.program.shapes(seeds))
    except errors.UserError as error:
        before = run.record.get("versions", {}) | {"commit": run.record.get("commit")}
        here = environment()
        changed = differences(before, here["versions"] | {"commit": here["commit"]})
        since = (
            f"since it was written these changed: {'; '.join(changed)}"
            if changed
            else ("rkbench and its libraries have the versions that wrote it")
        )
        raise errors.UserError(f"{error}; {since}. Nothing was touched") from error


def _checkpoints(run: Workdir, seeds: tuple[int, ...]) -> pathlib.Path:
    """The folder for the checkpoints of these seeds alone."""
    name = f"seed-{seeds[0]}"
    if len(seeds) > 1:
        name += f"-to-{seeds[-1]}"
        if seeds != tuple(range(seeds[0], seeds[-1] + 1)):  # others can have the same ends
            name += f"-{zlib.crc32(repr(seeds).encode()):08x}"
    return run.folder / "checkpoints" / name
