"""The trainer: `train_and_evaluate(config, workdir)` runs a config to its end, from where it is.

A run is a list of groups of seeds; a group goes from event to event (evaluation, checkpoint), and
between two events the device is busy with compiled steps. Events lie at fixed steps and a resumed
group starts at a checkpoint, so the same calls follow in the same order as without interruption.
"""

import contextlib
import os
import pathlib
import sys
import time
from typing import Any

import jax
import numpy as np

from rkbench import metrics, optimizers, preemption, summary
from rkbench.checkpoint import Checkpoints
from rkbench.evaluate import all_finite
from rkbench.experiment import Experiment
from rkbench.progress import Progress
from rkbench.run_log import RunLog
from rkbench.run_record import Workdir, environment
from rkbench.train_step import MAX_STEPS_PER_DISPATCH, StepMetrics, TrainState

SECONDS_PER_DISPATCH = 1.0  # so that the progress moves and an interruption loses little


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
    run = Workdir(workdir, experiment.config)
    try:
        finished = _finished_seeds(run)
        if run.record.get("status") in summary.ENDS and finished.issuperset(
            experiment.config.seeds
        ):
            print(f"rkbench: {workdir} is finished, nothing to do", file=sys.stderr)
            return run.record
        return _train(experiment, run, finished)
    finally:
        run.close()


def _train(experiment: Experiment, run: Workdir, finished: set[int]) -> dict[str, Any]:
    run.write(
        **environment(),
        status="running",
        data=experiment.workload.provenance,
        compiled_loops=experiment.loop,
        seeds=run.record.get("seeds", []),
    )
    try:
        with contextlib.closing(RunLog(run.folder, experiment.config.tensorboard)) as log:
            for seeds in experiment.seed_groups:
                if not finished.issuperset(seeds):
                    _Group(experiment, run, log, seeds).train()
    except Exception as error:
        with contextlib.suppress(OSError):  # a full disk may be what `error` is
            run.write(status="failed", error=f"{type(error).__name__}: {error}".splitlines()[0])
        raise
    run.record.pop("error", None)
    run.write(**summary.of_run(run.record["seeds"]), compilations=experiment.program.compilations)
    return run.record


def _finished_seeds(run: Workdir) -> set[int]:
    """The seeds whose outcome is recorded and whose log is as it was then."""
    finished = set()
    records = list(metrics.sound(run.folder / "metrics.jsonl"))
    for entry in run.record.get("seeds", []):
        seed = entry["seed"]
        logged = metrics.Fingerprint(_lines_of(records, seed)).to_json()
        if run.record.get("logs", {}).get(str(seed), logged) == logged:
            finished.add(seed)
        else:
            print(
                f"rkbench: metrics.jsonl is damaged in the lines of seed {seed}, which is trained "
                "again from its last checkpoint before them",
                file=sys.stderr,
            )
    return finished


def _lines_of(records: list[metrics.Record], seed: int) -> list[metrics.Record]:
    return [record for record in records if record["seed"] == seed]


class _Group:
    """One group of seeds on its way from the first step to the last."""

    def __init__(
        self, experiment: Experiment, run: Workdir, log: RunLog, seeds: tuple[int, ...]
    ) -> None:
        self._experiment, self._run, self._log, self._seeds = experiment, run, log, seeds
        self._config = experiment.config
        name = "-".join(map(str, seeds)) if len(seeds) == 1 else f"{seeds[0]}-to-{seeds[-1]}"
        self._checkpoints = Checkpoints(run.folder / "checkpoints" / f"seed-{name}")
        self._step = self._saved_step = 0
        self._evaluated = False  # at this step, if it is one to evaluate at
        self._seconds = 0.0
        self._diverged: dict[int, int] = {}  # seed -> step
        self._input: dict[str, float] = {}  # the feed's counters before this process
        self._steps_per_dispatch = 1
        self._state: TrainState = experiment.program.init(seeds)

    def train(self) -> None:
        """Trains to the end and adds the seeds to the run record."""
        feed = self._experiment.feed
        with contextlib.closing(self._checkpoints), contextlib.closing(feed):
            self._restore()
            program = self._experiment.program
            program.compile(self._state, self._seeds)
            self._progress = Progress(
                f"seed {','.join(map(str, self._seeds))}", self._config.total_steps, self._step
            )
            with contextlib.closing(self._progress):
                try:
                    self._train_to_the_end()
                except preemption.Preempted:
                    self._save()
                    self._checkpoints.wait()
                    print(f"rkbench: SIGTERM: saved at step {self._step}", file=sys.stderr)
                    raise
            self._log.flush()
            self._checkpoints.wait()
        self._finish()

    def _train_to_the_end(self) -> None:
        if not self._evaluated:
            self._evaluate()
        while self._step < self._config.total_steps and self._active():
            self._advance_to(self._next_event())
            self._at_event()

    def _active(self) -> list[int]:
        """The seeds that have not diverged."""
        return [seed for seed in self._seeds if seed not in self._diverged]

    def _own(self, tree: Any, column: int, axis: int = 0) -> Any:
        """One seed's part of a tree whose leaves have an axis for seeds, if there are several."""
        if len(self._seeds) == 1:
            return tree
        return jax.tree.map(lambda leaf: leaf.take(column, axis), tree)

    def _restore(self) -> None:
        """Takes up the newest checkpoint that is whole itself and in its part of the log."""
        restored = self._checkpoints.restore(self._state, self._check_log)
        lines = 0
        if restored is not None:
            progress = restored.progress
            self._step = self._saved_step = restored.step
            self._evaluated = progress.get("evaluated", True)
            self._state = jax.tree.map(jax.device_put, restored.state)
            self._seconds = progress["seconds"]
            self._diverged = {int(s): n for s, n in progress["diverged"].items()}
            self._input = progress.get("input", {})
            if "log" in progress:
                lines = progress["log"]["lines"]
            else:  # an older checkpoint
                lines = self._log.lines_until(self._seeds, restored.step)
        self._log.truncate(self._seeds, lines)

    def _check_log(self, progress: dict[str, Any]) -> None:
        if "log" in progress and not self._log.holds(self._seeds, progress["log"]):
            raise ValueError("metrics.jsonl has lost or changed lines from before it")

    def _next_event(self) -> int:
        """The next step at which something happens beside training."""
        config = self._config
        every = (config.eval_every_steps, config.checkpoint_every_steps)
        following = [(self._step // n + 1) * n for n in every if n > 0]
        return min([*following, config.total_steps])

    def _advance_to(self, event: int) -> None:
        """Trains up to the event, in calls of about `SECONDS_PER_DISPATCH`, on the clock."""
        while self._step < event and self._active():
            preemption.raise_if_requested()
            steps = min(event - self._step, self._steps_per_dispatch, MAX_STEPS_PER_DISPATCH)
            begin, before = time.perf_counter(), self._seconds
            self._state, history = self._experiment.program.advance(
                self._state, self._seeds, self._step, steps
            )
            fetched = jax.device_get(history)  # returns when the steps are done
            seconds = time.perf_counter() - begin
            self._record(fetched, steps, seconds)
            self._step += steps
            self._seconds = before + time.perf_counter() - begin
            if seconds < SECONDS_PER_DISPATCH / 2:
                self._steps_per_dispatch = min(2 * steps, MAX_STEPS_PER_DISPATCH)
            elif seconds > 2 * SECONDS_PER_DISPATCH:
                self._steps_per_dispatch = max(1, steps // 2)

    def _record(self, history: StepMetrics, steps: int, seconds: float) -> None:
        """Logs the steps of one call and finds out which seeds diverged in it."""
        every = self._config.log_every_steps
        for column, seed in enumerate(self._seeds):
            if seed in self._diverged:
                continue
            own = self._own(jax.tree.map(lambda leaf: leaf[:steps], history), column, axis=1)
            bad = np.flatnonzero(~np.isfinite(own.loss))
            last = bad[0] + 1 if len(bad) else steps
            for i in range(last):
                done = self._step + i + 1
                if (every and done % every == 0) or (len(bad) and i == bad[0]):
                    self._log.step(seed, done, self._seconds + seconds * (i + 1) / steps, own, i)
            if len(bad):
                self._diverged[seed] = self._step + int(bad[0]) + 1
            self._progress.update(self._step + steps, loss=float(own.loss[last - 1]))

    def _at_event(self) -> None:
        config = self._config
        for column, seed in enumerate(self._seeds):
            params = self._own(self._state.params, column)
            if seed not in self._diverged and not all_finite(params):
                self._diverged[seed] = self._step
        last = self._step >= config.total_steps
        if last or (config.eval_every_steps and self._step % config.eval_every_steps == 0):
            self._evaluate()
        every = config.checkpoint_every_steps
        if last or not self._active() or (every and self._step % every == 0):
            self._save()

    def _save(self) -> None:
        if self._step == self._saved_step:
            return  # it is saved, or the beginning
        self._log.flush()  # a checkpoint never knows more than the log
        self._checkpoints.save(
            self._step,
            self._state,
            {
                "seconds": self._seconds,
                "diverged": {str(s): n for s, n in self._diverged.items()},
                "input": self._input_so_far(),
                "evaluated": self._evaluated,
                "log": self._log.fingerprint(),
            },
        )
        self._saved_step = self._step

    def _evaluate(self) -> None:
        """Evaluates all splits, outside the clock."""
        results, state = {}, self._state
        self._evaluated = False
        if self._config.batch_norm_update == "recompute":
            state = self._experiment.program.with_new_statistics(state, self._seeds, self._step)
        for name, split in self._experiment.splits.items():
            sums = self._experiment.evaluator(state.params, state.model_state, split)
            results |= {f"{name}/{metric}": value for metric, value in sums.items()}
        results["grad_evals"] = np.asarray(optimizers.grad_evals(self._state.opt_state))
        for column, seed in enumerate(self._seeds):
            if seed in self._diverged:
                continue
            own = {name: leaf.item() for name, leaf in self._own(results, column).items()}
            own |= self._input_so_far()
            self._log.evaluation(seed, self._step, self._seconds, own.pop("grad_evals"), own)
            self._progress.update(self._step, test=own["test/accuracy"])
        self._evaluated = True

    def _input_so_far(self) -> dict[str, float]:
        """What the input has cost since step 0; nothing for data on the device."""
        counters = self._experiment.feed.counters()
        return {name: self._input.get(name, 0) + value for name, value in counters.items()}

    def _finish(self) -> None:
        count = sum(leaf.size for leaf in jax.tree.leaves(self._state.params)) // len(self._seeds)
        entries = [entry for entry in self._run.record["seeds"] if entry["seed"] not in self._seeds]
        records = list(metrics.read(self._run.folder / "metrics.jsonl"))
        entries += [
            summary.of_seed(records, seed, self._diverged.get(seed), self._seconds, self._step)
            for seed in self._seeds
        ]
        entries.sort(key=lambda entry: entry["seed"])
        logs = self._run.record.get("logs", {}) | {
            str(seed): metrics.Fingerprint(_lines_of(records, seed)).to_json()
            for seed in self._seeds
        }
        self._run.write(seeds=entries, parameters=count, logs=logs)
