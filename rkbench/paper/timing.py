"""Wall-clock time of several optimizers, a few steps of each in turn.

A machine that slows down for a while slows all of them, so that the ratio of their times stays
right; compilation and evaluation are outside the clock. What is left are the records of ordinary
runs, whose only measurement is the time.
"""

import contextlib
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import jax

from rkbench import optimizers
from rkbench.records import metrics, summary
from rkbench.records.workdir import Workdir
from rkbench.trainer.experiment import Experiment

TURNS = 20  # of each optimizer in a run, if it has so many steps


def interleave(configs: Mapping[pathlib.Path, Any]) -> None:
    """Times the configs, which have the same seeds and steps, each in its own workdir.

    Where all are finished, nothing is done: their times stand.
    """
    if all(_is_finished(folder, config) for folder, config in configs.items()):
        return
    with contextlib.ExitStack() as stack:
        timed = [
            _Timed(Experiment.from_config(config), folder, stack)
            for folder, config in configs.items()
        ]
        for seed in timed[0].experiment.config.seeds:
            for one in timed:
                one.begin(seed)
            for _ in range(timed[0].turns):
                for one in timed:
                    one.take_turn()
        for one in timed:
            one.finish()


def _is_finished(folder: pathlib.Path, config: Any) -> bool:
    with contextlib.closing(Workdir(folder, config)) as run:
        ended = run.record.get("status") in summary.ENDS
        steps = {entry["seed"]: entry["steps"] for entry in run.record.get("seeds", [])}
    return ended and all(steps.get(seed, 0) >= config.total_steps for seed in config.seeds)


class _Timed:
    """One optimizer in its workdir."""

    def __init__(self, experiment: Experiment, folder: pathlib.Path, stack: contextlib.ExitStack):
        self.experiment = experiment
        self._total = experiment.config.total_steps
        self.turns = min(TURNS, self._total)
        self._workdir = Workdir(folder, experiment.config)
        stack.callback(self._workdir.close)
        self._workdir.record["parts"] = []  # all is measured anew
        self._workdir.begin(
            data=experiment.workload.provenance,
            compiled_loops=experiment.loop,
            seeds=[],
        )
        self._workdir.begin_group(experiment.config.seeds)
        (folder / "metrics.jsonl").unlink(missing_ok=True)
        self._log = metrics.JsonLinesWriter(folder / "metrics.jsonl")
        stack.callback(self._log.close)
        self._lines: list[metrics.Record] = []
        self._warm_up()

    def _warm_up(self) -> None:
        """Compiles, and runs once what is measured later."""
        seeds = self.experiment.config.seeds[:1]
        state = self.experiment.program.init(seeds)
        jax.block_until_ready(self.experiment.program.advance(state, seeds, 0, 1))

    def begin(self, seed: int) -> None:
        """Starts a seed."""
        self._seed, self._step, self._seconds = seed, 0, 0.0
        self._state = self.experiment.program.init((seed,))
        jax.block_until_ready(self._state)
        self._write()

    def take_turn(self) -> None:
        """Trains this optimizer's next few steps, on the clock."""
        turn = self._step * self.turns // self._total + 1
        steps = -(-turn * self._total // self.turns) - self._step
        begin = time.perf_counter()
        self._state, history = self.experiment.program.advance(
            self._state, (self._seed,), self._step, steps
        )
        jax.block_until_ready((self._state, history))
        self._seconds += time.perf_counter() - begin
        self._step += steps
        self._write()

    def _write(self) -> None:
        line = metrics.record(
            self._step,
            {
                "seed": self._seed,
                "wall_time": round(self._seconds, 6),
                "grad_evals": int(optimizers.grad_evals(self._state.opt_state)),
            },
        )
        self._lines.append(line)
        self._log.write_record(line)

    def finish(self) -> None:
        """Writes the record."""
        seeds = self.experiment.config.seeds
        last = {line["seed"]: line for line in self._lines}
        entries = [
            summary.of_seed(self._lines, seed, None, last[seed]["wall_time"], self._total)
            for seed in seeds
        ]
        self._log.flush()
        self._workdir.compiled(self.experiment.program.compilations)
        self._workdir.write(
            seeds=entries,
            parameters=sum(leaf.size for leaf in jax.tree.leaves(self._state.params)),
            **summary.of_run(entries),
        )
