"""A group of seeds that train together: restored, trained from event to event, recorded.

A group goes from event to event (evaluation, checkpoint), and between two events the device is busy
with compiled steps. Events lie at fixed steps and a resumed group starts at a checkpoint, so the
same calls follow in the same order as without interruption. Its seeds may belong to several runs:
each seed of each has a lane.
"""

import contextlib
import pathlib
import shutil
import sys
import time
from collections.abc import Generator, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from rkbench import optimizers
from rkbench.records import metrics
from rkbench.records.run_log import RunLog
from rkbench.records.summary import SeedSummary
from rkbench.records.workdir import Workdir
from rkbench.step.program import MAX_STEPS_PER_DISPATCH
from rkbench.step.train_step import StepMetrics, TrainState
from rkbench.trainer import distributed, preemption
from rkbench.trainer.checkpoint import Checkpoints, Restored, unused_name
from rkbench.trainer.evaluate import all_finite
from rkbench.trainer.experiment import Experiment
from rkbench.trainer.progress import Progress

SECONDS_PER_DISPATCH = 1.0  # so that the progress moves and an interruption loses little


class Lane(NamedTuple):
    """One seed of one run; those of a group train together."""

    run: Workdir
    log: RunLog
    seed: int


class Group:
    """One group of seeds on its way from the first step to the last."""

    def __init__(
        self,
        experiment: Experiment,
        lanes: tuple[Lane, ...],
        checkpoints: pathlib.Path,
        timed_at: tuple[int, ...] = (),
    ) -> None:
        """Prepares the group.

        Args:
          experiment: what is trained.
          lanes: its seeds.
          checkpoints: the folder for the checkpoints of these seeds alone.
          timed_at: steps, of which 0 is the first and the last step the last. Where there are any,
            the time at these steps is all that is logged: nothing is evaluated or saved.
        """
        self._timed_at = timed_at
        self._experiment, self._config, self._lanes = experiment, experiment.config, lanes
        self._seeds = tuple(lane.seed for lane in lanes)
        self._checkpoints = Checkpoints(checkpoints)
        self._step = self._saved_step = 0
        self._evaluated = False  # at this step, if it is one to evaluate at
        self._before_evaluation: tuple[int, list[Any]] = (-1, [])  # its step, the logs before it
        self._seconds = 0.0
        self._diverged: dict[int, int] = {}  # lane -> step
        self._ended: dict[int, tuple[int, float]] = {}  # lane, its budget spent -> step, seconds
        self._unevaluated: set[int] = set()  # of those
        self._input: dict[str, float] = {}  # the feed's counters before this process
        self._steps_per_dispatch = MAX_STEPS_PER_DISPATCH if timed_at else 1
        self._state: TrainState = experiment.program.init(self._seeds)

    def train(self) -> None:
        """Trains to the end and adds the seeds to the run record."""
        for _ in self.in_turns():
            pass

    def in_turns(self) -> Generator[None]:
        """`train`, which hands over at the first step and after each event."""
        feed = self._experiment.feed
        with contextlib.closing(self._checkpoints), contextlib.closing(feed):
            self._restore()
            for columns in self._by_run().values():
                own = [self._seeds[column] for column in columns]
                self._lanes[columns[0]].run.begin_group(own)
            program = self._experiment.program
            program.compile(self._state, self._seeds)
            if self._timed_at:  # what runs for the first time takes longer
                jax.block_until_ready(program.advance(self._state, self._seeds, 0, 1))
                self._state = program.init(self._seeds)
            label = f"seed {','.join(map(str, dict.fromkeys(self._seeds)))}"
            if (runs := len(self._by_run())) > 1:
                label = f"{runs} runs, {label}"
            self._progress = Progress(
                label, self._config.total_steps, self._step, visible=distributed.is_primary()
            )
            with contextlib.closing(self._progress), preemption.deferred():
                try:
                    yield from self._train_to_the_end()
                except preemption.Preempted as request:
                    self._save()
                    self._checkpoints.wait()
                    request.saved(self._step, tell=distributed.is_primary())
                    raise
            self._flush()
            self._checkpoints.wait()
        distributed.wait_for_all("the end of the seeds")
        self._finish()
        preemption.raise_if_requested()  # nothing more is begun

    def _train_to_the_end(self) -> Iterator[None]:
        self._evaluate_ended()
        if not self._evaluated and self._evaluates_at(self._step):
            self._evaluate()
        yield
        while self._step < self._config.total_steps and self._active():
            self._advance_to(self._next_event())
            self._at_event()
            yield

    def _by_run(self) -> dict[pathlib.Path, list[int]]:
        """The lanes of each run."""
        found: dict[pathlib.Path, list[int]] = {}
        for column, lane in enumerate(self._lanes):
            found.setdefault(lane.run.folder, []).append(column)
        return found

    def _logs(self) -> Iterator[tuple[RunLog, tuple[int, ...]]]:
        """The log of each run, with those of its seeds that train here."""
        for columns in self._by_run().values():
            yield self._lanes[columns[0]].log, tuple(self._seeds[column] for column in columns)

    def _active(self) -> list[int]:
        """The lanes that still train: not diverged, and within their budget."""
        over = self._diverged.keys() | self._ended.keys()
        return [column for column in range(len(self._lanes)) if column not in over]

    def _flush(self) -> None:
        for log, _ in self._logs():
            log.flush()

    def _own(self, tree: Any, column: int, axis: int = 0) -> Any:
        """One lane's part of a tree whose leaves have an axis for lanes, if there are several."""
        if len(self._seeds) == 1:
            return tree
        return jax.tree.map(lambda leaf: leaf.take(column, axis), tree)

    def _restore(self) -> None:
        """Takes up the newest checkpoint that is whole itself and in its part of the log."""
        restored = self._checkpoints.restore(self._state, self._check_logs)
        if restored is not None:
            progress = restored.progress
            self._step = self._saved_step = restored.step
            self._evaluated = progress["evaluated"]
            self._state = restored.state
            self._seconds = progress["seconds"]
            self._diverged = {int(c): n for c, n in progress["diverged"].items()}
            self._ended = {int(c): (n, s) for c, (n, s) in progress.get("ended", {}).items()}
            self._unevaluated = set(progress.get("unevaluated", []))
            self._input = progress["input"]
        elif self._checkpoints.set_aside and distributed.is_primary():
            self._keep_logs()
        for place, (log, seeds) in enumerate(self._logs()):
            log.truncate(seeds, self._lines_to_keep(log, seeds, place, restored))

    def _keep_logs(self) -> None:
        """Copies the logs, which begin anew as no checkpoint is left, beside the damaged ones."""
        folder = self._checkpoints.folder
        for columns in self._by_run().values():
            run = self._lanes[columns[0]].run
            log = run.folder / "metrics.jsonl"
            if log.is_file():
                kept = unused_name(folder.parent / f"damaged-{folder.name}-{run.folder.name}.jsonl")
                shutil.copyfile(log, kept)
                print(
                    f"rkbench: no checkpoint is left: training begins anew, and the log so far is "
                    f"kept as {kept}",
                    file=sys.stderr,
                )

    def _lines_to_keep(
        self, log: RunLog, seeds: tuple[int, ...], place: int, restored: Restored | None
    ) -> int:
        """How many lines of these seeds the restored state stands for.

        Where a run is extended, the evaluation at its earlier end may be none of the longer run's.
        """
        if restored is None:
            return 0
        if self._evaluates_at(self._step):
            return restored.progress["logs"][place]["lines"]
        if "logs_before_evaluation" in restored.progress:
            return restored.progress["logs_before_evaluation"][place]["lines"]
        lines = restored.progress["logs"][place]["lines"]  # a checkpoint of an earlier version
        return log.without_evaluation(seeds, self._step, lines)

    def _check_logs(self, progress: dict[str, Any]) -> None:
        known = [progress["logs"]]
        if "step" in progress and not self._evaluates_at(progress["step"]):
            known.append(progress["logs_before_evaluation"])
        for place, (log, seeds) in enumerate(self._logs()):
            if not any(log.holds(seeds, fingerprints[place]) for fingerprints in known):
                raise ValueError("metrics.jsonl has lost or changed lines from before it")

    def _evaluates_at(self, step: int) -> bool:
        if self._timed_at:
            return step in self._timed_at
        config = self._config
        every = config.eval_every_steps
        return step in (0, config.total_steps) or bool(every and step % every == 0)

    def _next_event(self) -> int:
        """The next step at which something happens beside training."""
        if self._timed_at:
            return next(step for step in self._timed_at if step > self._step)
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
            seconds = float(distributed.from_primary(time.perf_counter() - begin))
            ended = self._record(fetched, steps, seconds)
            self._step += steps
            self._seconds = before + time.perf_counter() - begin
            for column, last in ended.items():
                self._end(column, *last)
            if seconds < SECONDS_PER_DISPATCH / 2:
                self._steps_per_dispatch = min(2 * steps, MAX_STEPS_PER_DISPATCH)
            elif seconds > 2 * SECONDS_PER_DISPATCH:
                self._steps_per_dispatch = max(1, steps // 2)

    def _record(
        self, history: StepMetrics, steps: int, seconds: float
    ) -> dict[int, tuple[int, float]]:
        """Logs the steps of one call and finds out which seeds diverged in it.

        What comes back are the lanes that spent their budget, each with its last step and the
        seconds of training until then.
        """
        every = 0 if self._timed_at else self._config.log_every_steps
        ended: dict[int, tuple[int, float]] = {}
        for column in self._active():
            lane = self._lanes[column]
            own = self._own(jax.tree.map(lambda leaf: leaf[:steps], history), column, axis=1)
            taken = steps - int(np.count_nonzero(own.ended))
            bad = np.flatnonzero(~np.isfinite(own.loss[:taken]))
            last = bad[0] + 1 if len(bad) else taken
            for i in range(last):
                done = self._step + i + 1
                if (every and done % every == 0) or (len(bad) and i == bad[0]):
                    wall_time = self._seconds + seconds * (i + 1) / steps
                    lane.log.step(lane.seed, done, wall_time, own, i)
            if len(bad):
                self._diverged[column] = self._step + int(bad[0]) + 1
            elif taken < steps:
                ended[column] = self._step + taken, self._seconds + seconds * taken / steps
            self._progress.update(self._step + steps, loss=float(own.loss[last - 1]))
        return ended

    def _end(self, column: int, step: int, seconds: float) -> None:
        """Ends a lane whose budget is spent: its state is that after `step`, its last."""
        if not all_finite(self._own(self._state.params, column)):
            self._diverged[column] = step
            return
        self._ended[column] = step, seconds
        every = self._config.eval_every_steps
        if step % every if every else step:  # else it has been evaluated there
            self._unevaluated.add(column)
            self._evaluate_ended()

    def _evaluate_ended(self) -> None:
        """Evaluates the lanes that have ended, if that is still to be done."""
        for column in sorted(self._unevaluated):
            self._evaluate_at(*self._ended[column], [column])
            self._unevaluated.remove(column)

    def _at_event(self) -> None:
        config = self._config
        for column in self._active():
            if not all_finite(self._own(self._state.params, column)):
                self._diverged[column] = self._step
        last = self._step >= config.total_steps
        if self._evaluates_at(self._step):
            self._evaluate()
        every = config.checkpoint_every_steps
        if last or not self._active() or (every and self._step % every == 0):
            self._save()

    def _save(self) -> None:
        if self._step == self._saved_step or self._timed_at:
            return  # it is saved, or the beginning
        self._flush()  # a checkpoint never knows more than the log
        logs = [log.fingerprint() for log, _ in self._logs()]
        step, before = self._before_evaluation
        self._checkpoints.save(
            self._step,
            self._state,
            {
                "step": self._step,
                "seconds": self._seconds,
                "diverged": {str(c): n for c, n in self._diverged.items()},
                "ended": {str(c): last for c, last in self._ended.items()},
                "unevaluated": sorted(self._unevaluated),
                "input": self._input_so_far(),
                "evaluated": self._evaluated,
                "logs": logs,
                "logs_before_evaluation": before if step == self._step else logs,
            },
        )
        self._saved_step = self._step

    def _evaluate(self) -> None:
        self._evaluated = False
        self._before_evaluation = self._step, [log.fingerprint() for log, _ in self._logs()]
        if columns := self._active():
            self._evaluate_at(self._step, self._seconds, columns)
        self._evaluated = True

    def _evaluate_at(self, step: int, seconds: float, columns: list[int]) -> None:
        """Evaluates all splits for some lanes at their step, outside the clock.

        Where the optimizer is to be evaluated, which need not be at its parameters.
        """
        results, splits = {}, {} if self._timed_at else self._experiment.splits
        state = self._experiment.program.evaluated(self._state) if splits else self._state
        elsewhere = state is not self._state and jax.tree.leaves(state.model_state)
        if splits and (self._config.batch_norm_update == "recompute" or elsewhere):
            state = self._experiment.program.with_new_statistics(state, self._seeds, step)
        for name, split in splits.items():
            sums = self._experiment.evaluator(state.params, state.model_state, split)
            results |= {f"{name}/{metric}": value for metric, value in sums.items()}
        results["grad_evals"] = np.asarray(optimizers.grad_evals(self._state.opt_state))
        for column in columns:
            lane = self._lanes[column]
            own = {name: leaf.item() for name, leaf in self._own(results, column).items()}
            own |= self._input_so_far()
            spent = own.pop("grad_evals")
            lane.log.evaluation(lane.seed, step, seconds, spent, own)
            for shown in list(splits)[-1:]:  # the test set, or what stands in for it
                self._progress.update(self._step, **{shown: own[f"{shown}/accuracy"]})

    def _input_so_far(self) -> dict[str, float]:
        """What the input has cost since step 0; nothing for data on the device."""
        counters = self._experiment.feed.counters()
        return {name: self._input.get(name, 0) + value for name, value in counters.items()}

    def _finish(self) -> None:
        count = sum(leaf.size for leaf in jax.tree.leaves(self._state.params)) // len(self._seeds)
        for columns in self._by_run().values():
            run = self._lanes[columns[0]].run
            gathered = {self._seeds[column]: SeedSummary() for column in columns}
            for record in metrics.read(run.folder / "metrics.jsonl"):
                if record["seed"] in gathered:
                    gathered[record["seed"]].add(record)
            fingerprints = metrics.fingerprints(run.folder / "metrics.jsonl")
            entries = {entry["seed"]: entry for entry in run.record["seeds"]}
            logs = dict(run.record.get("logs", {}))
            for column in columns:
                seed, diverged = self._seeds[column], self._diverged.get(column)
                steps, seconds = self._ended.get(column, (self._step, self._seconds))
                entries[seed] = gathered[seed].entry(seed, diverged, seconds, steps)
                logs[str(seed)] = fingerprints[seed]
            seeds = [entries[seed] for seed in sorted(entries)]
            run.write(seeds=seeds, parameters=count, logs=logs)
