"""TensorBoard event files and log lines through CLU, written behind the training.

Importing CLU's writers imports TensorFlow, which takes many seconds; a thread of low priority does
it while the first steps run. The event files are made from the records of `metrics.jsonl`: a
resumed run starts them again, so that they never hold a step that the run did not reach.
"""

import os
import pathlib
import queue
import shutil
import sys
import threading
from collections.abc import Iterable

from rkbench.metrics import JsonLinesWriter, Record
from workloads.tfds_source import quiet_tensorflow

_SUMMARY_NAMES = ("wall_time", "grad_evals")


class TensorBoardThread:
    """Takes records and writes them with CLU's `SummaryWriter` and `LoggingWriter`."""

    def __init__(self, folder: pathlib.Path, records: Iterable[Record]):
        """Starts the thread.

        Args:
          folder: gets one sub-folder a seed; what it holds is replaced.
          records: what was logged before.
        """
        shutil.rmtree(folder, ignore_errors=True)
        self._folder = folder
        self._queue: queue.SimpleQueue[Record | None] = queue.SimpleQueue()
        for record in records:
            self._queue.put(record)
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="tensorboard", daemon=True)
        self._thread.start()

    def write(self, record: Record) -> None:
        """Hands over one record of metrics.jsonl; returns at once."""
        self._queue.put(record)

    def close(self) -> None:
        """Waits until all is written."""
        self._queue.put(None)
        self._thread.join()
        if self._error is not None:
            print(
                f"rkbench: TensorBoard files were not written ({self._error}); "
                "metrics.jsonl is complete",
                file=sys.stderr,
            )

    def _run(self) -> None:
        try:
            _lower_priority()
            self._write_all()
        except Exception as error:  # a full disk or a broken TensorFlow must not end the training
            self._error = error

    def _write_all(self) -> None:
        quiet_tensorflow()
        from clu import metric_writers

        metric_writers.MetricWriter.register(JsonLinesWriter)
        writers: dict[int, metric_writers.MetricWriter] = {}
        while (record := self._queue.get()) is not None:
            seed, step = record["seed"], record["step"]
            if seed not in writers:
                writers[seed] = metric_writers.MultiWriter(
                    [
                        metric_writers.SummaryWriter(str(self._folder / f"seed_{seed}")),
                        metric_writers.LoggingWriter(collection=f"seed {seed}"),
                    ]
                )
            scalars = {
                name: value
                for name, value in record.items()
                if value is not None and ("/" in name or name in _SUMMARY_NAMES)
            }
            writers[seed].write_scalars(step, scalars)
        for writer in writers.values():
            writer.close()


def _lower_priority() -> None:
    """Lets the training go first (Linux schedules threads; elsewhere this does nothing)."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
