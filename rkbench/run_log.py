"""Where a run's measurements go: metrics.jsonl at once, TensorBoard behind it."""

import pathlib
from collections.abc import Mapping
from typing import Any

from rkbench import metrics
from rkbench.tensorboard import TensorBoardThread
from rkbench.train_step import StepMetrics


class RunLog:
    """The log of one run in its folder."""

    def __init__(self, folder: pathlib.Path, tensorboard: bool, writes: bool = True):
        """`writes` is false in all but one of the processes of a run: nothing is logged there."""
        self._writes = writes
        self._path = folder / "metrics.jsonl"
        self._folder = folder
        self._wants_tensorboard = tensorboard
        self._writer: metrics.JsonLinesWriter | None = None
        self._tensorboard: TensorBoardThread | None = None

    def truncate(self, seeds: tuple[int, ...], step: int) -> None:
        """Forgets what these seeds logged after `step`, the step at which they start now."""

        def reached(record: metrics.Record) -> bool:
            return record["seed"] not in seeds or (step > 0 and record["step"] <= step)

        if not self._writes:
            return
        self._close_writer()
        metrics.keep_only(self._path, reached)
        self._writer = metrics.JsonLinesWriter(self._path)
        if self._wants_tensorboard and self._tensorboard is None:
            logged = list(metrics.read(self._path))
            self._tensorboard = TensorBoardThread(self._folder / "tensorboard", logged)

    def step(
        self, seed: int, step: int, wall_time: float, history: StepMetrics, index: int
    ) -> None:
        """Logs a training step; `history` holds arrays over steps and `index` says which."""
        self._write(
            seed,
            step,
            wall_time,
            int(history.grad_evals[index]),
            {
                "batch/loss": history.loss[index],
                "batch/grad_norm": history.grad_norm[index],
                "batch/learning_rate": history.learning_rate[index],
            },
        )

    def evaluation(
        self, seed: int, step: int, wall_time: float, grad_evals: int, values: Mapping[str, float]
    ) -> None:
        """Logs an evaluation."""
        self._write(seed, step, wall_time, grad_evals, values)

    def _write(
        self, seed: int, step: int, wall_time: float, grad_evals: int, values: Mapping[str, Any]
    ) -> None:
        if not self._writes:
            return
        scalars = {"seed": seed, "wall_time": round(wall_time, 6), "grad_evals": grad_evals}
        record = metrics.record(step, scalars | dict(values))
        assert self._writer is not None, "truncate() opens the log"
        self._writer.write_record(record)
        if self._tensorboard is not None:
            self._tensorboard.write(record)

    def flush(self) -> None:
        """Makes metrics.jsonl durable."""
        if self._writer is not None:
            self._writer.flush()

    def _close_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def close(self) -> None:
        """Writes everything out."""
        self._close_writer()
        if self._tensorboard is not None:
            self._tensorboard.close()
