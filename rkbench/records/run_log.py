"""Where a run's measurements go: metrics.jsonl at once, TensorBoard behind it."""

import itertools
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from rkbench.records import metrics, tensorboard
from rkbench.records.tensorboard import TensorBoardThread


class Steps(Protocol):
    """What the steps of a call report: arrays over steps."""

    @property
    def loss(self) -> Any: ...

    @property
    def grad_norm(self) -> Any: ...

    @property
    def learning_rate(self) -> Any: ...

    @property
    def grad_evals(self) -> Any: ...

    @property
    def diagnostics(self) -> Mapping[str, Any]: ...


class RunLog:
    """The log of one run in its folder."""

    def __init__(self, folder: pathlib.Path, event_files: bool, writes: bool = True):
        """`writes` is false in all but one of the processes of a run: nothing is logged there."""
        self._writes = writes
        self._path = folder / "metrics.jsonl"
        self._folder = folder
        self._wants_tensorboard = event_files
        self._writer: metrics.JsonLinesWriter | None = None
        self._logged = metrics.Fingerprint()
        self._tensorboard: TensorBoardThread | None = None

    def holds(self, seeds: tuple[int, ...], fingerprint: Mapping[str, Any]) -> bool:
        """Whether these seeds' lines begin with those of a `fingerprint`."""
        own = itertools.islice(self._of(seeds), fingerprint["lines"])
        return metrics.Fingerprint(own).to_json() == fingerprint

    def _of(self, seeds: tuple[int, ...]) -> Iterator[metrics.Line]:
        return (line for line in metrics.sound(self._path) if line["seed"] in seeds)

    def without_evaluation(self, seeds: tuple[int, ...], step: int, lines: int) -> int:
        """How many of these seeds' first `lines` lines are left without the evaluation of `step`.

        It is the last thing that is logged at a step.
        """
        own = itertools.islice(self._of(seeds), lines)
        return lines - sum(line["step"] == step and "train/loss" in line for line in own)

    def truncate(self, seeds: tuple[int, ...], lines: int) -> None:
        """Opens the log for these seeds and forgets all but their first `lines` lines."""
        if not self._writes:
            return
        self._close_writer()
        self._logged = metrics.Fingerprint()
        kept = dict.fromkeys(seeds, 0)

        def known(line: metrics.Line) -> bool:
            if line["seed"] not in seeds:
                return True
            if self._logged.lines == lines:
                return False
            self._logged.add(line)
            kept[line["seed"]] += 1
            return True

        metrics.keep_only(self._path, known)
        self._writer = metrics.JsonLinesWriter(self._path)
        if self._wants_tensorboard:
            if self._tensorboard is None:
                self._tensorboard = TensorBoardThread(self._folder / "tensorboard")
            self._tensorboard.begin(self._path, kept)

    def fingerprint(self) -> dict[str, Any]:
        """What the seeds of the last `truncate` have logged so far; see `holds`."""
        return self._logged.to_json()

    def step(self, seed: int, step: int, wall_time: float, history: Steps, index: int) -> None:
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
                **{name: values[index] for name, values in history.diagnostics.items()},
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
        line = metrics.line(step, scalars | dict(values))
        assert self._writer is not None, "truncate() opens the log"
        self._writer.write_line(line)
        self._logged.add(line)
        if self._tensorboard is not None:
            self._tensorboard.write(line)

    def flush(self) -> None:
        """Makes metrics.jsonl durable."""
        if self._writer is not None:
            self._writer.flush()

    def _close_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        """Writes metrics.jsonl out; event files of a run that failed are left as they are."""
        if kind is not None and self._tensorboard is not None:
            self._tensorboard.cancel()
        self._close_writer()

    def complete_event_files(self, record: Mapping[str, Any]) -> None:
        """Waits for the event files of a run whose `record` is written, and mends them."""
        if not self._writes or not self._wants_tensorboard:
            return
        if self._tensorboard is None or self._tensorboard.finish():
            tensorboard.mend(self._folder, record)
