"""A group of seeds that train together: restored, trained from event to event, recorded.

A group goes from event to event (evaluation, checkpoint), and between two events the device is busy
with compiled steps. Events lie at fixed steps and a resumed group starts at a checkpoint, so the
same calls follow in the same order as without interruption. The seeds of a group may belong to
several runs. Each seed of each run has a lane, and each lane is a column of the group's arrays.
"""

import contextlib
import pathlib
import time
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from rkbench import optimizers
from rkbench.step.program import MAX_STEPS_PER_DISPATCH
from rkbench.step.train_step import StepMetrics, TrainState
from rkbench.trainer import distributed, preemption
from rkbench.trainer.checkpoint import Checkpoints, Restored
from rkbench.trainer.evaluate import all_finite
from rkbench.trainer.experiment import Experiment
from rkbench.trainer.lanes import Lane, Lanes, Outcome
from rkbench.trainer.progress import Progress

SECONDS_PER_DISPATCH = 1.0  # so that the progress moves and an interruption loses little


class Group:
    """One group of seeds on its way from the first step to the last."""

    def __init__(
        self,
        experiment: Experiment,
        lanes: Sequence[Lane],
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
        self._experiment, self._config = experiment, experiment.config
        self._lanes = Lanes(lanes)
        self._seeds = self._lanes.seeds
        self._checkpoints = Checkpoints(checkpoints)
        self._step = self._saved_step = 0
        self._evaluated = False  # whether this step has been evaluated, if it is to be
        # The step of the latest evaluation, and the logs' fingerprints before it.
        self._before_evaluation: tuple[int, list[Any]] = (-1, [])
        self._seconds = 0.0
        self._diverged: dict[int, int] = {}  # column -> step at which it diverged
        # Of the lanes whose budget is spent: column -> (last step, seconds until then).
        self._ended: dict[int, tuple[int, float]] = {}
        self._unevaluated: set[int] = set()  # the columns of those still to be evaluated
        self._input: dict[str, float] = {}  # the feed's counters before this process
        self._steps_per_dispatch = MAX_STEPS_PER_DISPATCH if timed_at else 1
        self._state: TrainState = experiment.program.init(self._seeds)

    def train(self) -> None:
        """Trains to the end and adds the seeds to the run record."""
        for _ in self.in_turns():
            pass

    def in_turns(self) -> Generator[None]:
        """`train`, which hands over at the first step and after each event."""
        feed = self._experiment.programs.feed
        with contextlib.closing(self._checkpoints), contextlib.closing(feed):
            self._restore()
            self._lanes.begin()
            program = self._experiment.program
            program.compile(self._state, self._seeds)
            if self._timed_at:  # what runs for the first time takes longer
                jax.block_until_ready(program.advance(self._state, self._seeds, 0, 1))
                self._state = program.init(self._seeds)
            self._progress = Progress(
                self._lanes.label,
                self._config.total_steps,
                self._step,
                visible=distributed.is_primary(),
            )
            with contextlib.closing(self._progress), preemption.deferred():
                try:
                    yield from self._train_to_the_end()
                except preemption.Preempted as request:
                    self._save()
                    self._checkpoints.wait()
                    request.saved(self._step, tell=distributed.is_primary())
                    raise
            self._lanes.flush()
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

    def _active(self) -> list[int]:
        """The columns that still train: they have neither diverged nor spent their budget."""
        over = self._diverged.keys() | self._ended.keys()
        return [column for column in range(len(self._lanes)) if column not in over]

    def _restore(self) -> None:
        """Goes back to the newest checkpoint that is undamaged, as its part of the logs must be."""
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
            self._lanes.copy_logs(self._checkpoints.folder)
        self._truncate_logs(restored)

    def _truncate_logs(self, restored: Restored | None) -> None:
        """Leaves of the logs what the restored state stands for.

        Where a run is extended, the longer run may not evaluate at the step where it ended before.
        """
        if restored is None:
            self._lanes.truncate(None)
        elif self._evaluates_at(self._step):
            self._lanes.truncate(restored.progress["logs"])
        elif "logs_before_evaluation" in restored.progress:
            self._lanes.truncate(restored.progress["logs_before_evaluation"])
        else:  # a checkpoint of an earlier version
            self._lanes.truncate(restored.progress["logs"], without_evaluation=self._step)

    def _check_logs(self, progress: dict[str, Any]) -> None:
        known = [progress["logs"]]
        if "step" in progress and not self._evaluates_at(progress["step"]):
            known.append(progress["logs_before_evaluation"])
        self._lanes.check(known)

    def _evaluates_at(self, step: int) -> bool:
        if self._timed_at:
            return step in self._timed_at
        config = self._config
        every = config.eval_every_steps
        return step in (0, config.total_steps) or bool(every and step % every == 0)

    def _next_event(self) -> int:
        """The next step after which the group evaluates or saves, or at which it ends."""
        if self._timed_at:
            return next(step for step in self._timed_at if step > self._step)
        config = self._config
        every = (config.eval_every_steps, config.checkpoint_every_steps)
        following = [(self._step // n + 1) * n for n in every if n > 0]
        return min([*following, config.total_steps])

    def _advance_to(self, event: int) -> None:
        """Trains up to the event, in timed calls of about `SECONDS_PER_DISPATCH` each."""
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

        Returns:
          {column of a lane that spent its budget: (its last step, seconds of training until then)}.
        """
        every = 0 if self._timed_at else self._config.log_every_steps
        ended: dict[int, tuple[int, float]] = {}
        for column in self._active():
            lane = self._lanes[column]
            own = self._lanes.own(jax.tree.map(lambda leaf: leaf[:steps], history), column, axis=1)
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
        """Ends a lane whose budget is spent; its state is still that after `step`, its last."""
        if not all_finite(self._lanes.own(self._state.params, column)):
            self._diverged[column] = step
            return
        self._ended[column] = step, seconds
        every = self._config.eval_every_steps
        if step % every if every else step:  # elsewhere it has been evaluated already
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
            if not all_finite(self._lanes.own(self._state.params, column)):
                self._diverged[column] = self._step
        last = self._step >= config.total_steps
        if self._evaluates_at(self._step):
            self._evaluate()
        every = config.checkpoint_every_steps
        if last or not self._active() or (every and self._step % every == 0):
            self._save()

    def _save(self) -> None:
        if self._step == self._saved_step or self._timed_at:
            return  # this step is saved already, or is the first: there is nothing to save
        self._lanes.flush()  # a checkpoint never knows more than the log
        logs = self._lanes.fingerprints()
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
        self._before_evaluation = self._step, self._lanes.fingerprints()
        if columns := self._active():
            self._evaluate_at(self._step, self._seconds, columns)
        self._evaluated = True

    def _evaluate_at(self, step: int, seconds: float, columns: list[int]) -> None:
        """Evaluates all splits for some lanes at their step; the time does not count.

        An optimizer can ask to be evaluated elsewhere than at the parameters that it trains: see
        `optimizers.eval_params`.
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
            own = {name: leaf.item() for name, leaf in self._lanes.own(results, column).items()}
            own |= self._input_so_far()
            spent = own.pop("grad_evals")
            lane.log.evaluation(lane.seed, step, seconds, spent, own)
            for shown in list(splits)[-1:]:  # the test set, or what stands in for it
                self._progress.update(self._step, **{shown: own[f"{shown}/accuracy"]})

    def _input_so_far(self) -> dict[str, float]:
        """What the input has cost since step 0; nothing for data on the device."""
        counters = self._experiment.programs.feed.counters()
        return {name: self._input.get(name, 0) + value for name, value in counters.items()}

    def _finish(self) -> None:
        count = sum(leaf.size for leaf in jax.tree.leaves(self._state.params)) // len(self._lanes)
        at_the_end = self._step, self._seconds
        outcomes = [
            Outcome(*self._ended.get(column, at_the_end), self._diverged.get(column))
            for column in range(len(self._lanes))
        ]
        self._lanes.finish(outcomes, count)
