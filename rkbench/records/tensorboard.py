"""TensorBoard event files: the numbers of metrics.jsonl, written behind the training.

They are made from the log alone and can be made from it again. Each seed has a folder, and beside
its event file `complete.json` says, when the file is closed, which lines of the log it holds and
how long it is: a file that a kill or a full disk has cut is known by that, and made again.
"""

import contextlib
import json
import os
import pathlib
import queue
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from absl import logging

from rkbench import files
from rkbench.records import metrics
from rkbench.records.metrics import Line

COMPLETE = "complete.json"
WAIT_SECONDS = 60.0  # at the end of a run, for event files that are behind

_MAX_BEHIND = 100_000  # records in memory; what comes on top is taken from the log in the end
_FLUSH_SECONDS = 5.0  # so that TensorBoard shows a run that goes on


def mend(workdir: pathlib.Path, record: Mapping[str, Any]) -> None:
    """Makes the event files that are not complete again, from the log; it says so.

    Args:
      workdir: of a run whose log is there.
      record: what its run.json says.

    A failure to write is said and raises nothing: the log has all that the files would have.
    """
    log, folder = workdir / "metrics.jsonl", workdir / "tensorboard"
    logs = record.get("logs", {})
    seeds = [entry["seed"] for entry in record.get("seeds", [])]
    missing = [s for s in seeds if not _is_complete(folder / f"seed_{s}", logs.get(str(s)))]
    if not missing or not log.is_file():
        return
    names = ", ".join(map(str, missing))
    print(f"rkbench: making event files again from {log}, seeds {names}", file=sys.stderr)
    with _saying_failures():
        made = {seed: EventFile(folder / f"seed_{seed}") for seed in missing}
        for line in metrics.sound(log):
            if line["seed"] in made:
                made[line["seed"]].add(line)
        for file in made.values():
            file.close()


def _is_complete(folder: pathlib.Path, logged: Mapping[str, Any] | None) -> bool:
    """Whether the folder has an event file with the `logged` lines (None: with any), whole."""
    try:
        found = json.loads((folder / COMPLETE).read_text(encoding="utf-8"))
        (path,) = folder.glob("*tfevents*")
        return found == _complete(path, found["log"] if logged is None else logged)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return False


def _complete(path: pathlib.Path, logged: Mapping[str, Any]) -> dict[str, Any]:
    """What `complete.json` says of an event file that holds the `logged` lines."""
    return {"log": dict(logged), "bytes": path.stat().st_size}


@contextlib.contextmanager
def _saying_failures() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a full disk or a broken TensorBoard must not end the training
        print(
            f"rkbench: TensorBoard files were not written ({error}); metrics.jsonl is complete, "
            "and the same command makes them from it",
            file=sys.stderr,
        )


class EventFile:
    """The event file of one seed, the only one in its folder, whose earlier content goes.

    The scalars are float32 under their names in the log, as `tf.summary.scalar` writes them.
    """

    def __init__(self, folder: pathlib.Path):
        from tensorboard.summary.writer.record_writer import RecordWriter

        if folder.is_symlink():
            folder.unlink()
        elif folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        self._path = folder / f"events.out.tfevents.{time.time():.0f}.rkbench"
        self._file = open(self._path, "xb")  # noqa: SIM115 - until close()
        self._writer = RecordWriter(self._file)
        self._held = metrics.Fingerprint()
        self._flush_at = 0.0
        self._write(file_version="brain.Event:2")

    def add(self, record: Line) -> None:
        """Writes the scalars of one line of the log."""
        scalars = {
            name: value
            for name, value in record.items()
            if value is not None and ("/" in name or name in ("wall_time", "grad_evals"))
        }
        values = [_summary(name, value) for name, value in scalars.items()]
        self._write(step=record["step"], summary={"value": values})
        self._held.add(record)
        if time.monotonic() > self._flush_at:
            self._file.flush()
            self._flush_at = time.monotonic() + _FLUSH_SECONDS
        if logging.get_verbosity() >= logging.INFO:
            text = ", ".join(f"{name}={value:.6g}" for name, value in scalars.items())
            logging.info("[%d] seed %d: %s", record["step"], record["seed"], text)

    def _write(self, **fields: Any) -> None:
        from tensorboard.compat.proto import event_pb2

        event = event_pb2.Event(  # pyright: ignore[reportAttributeAccessIssue]
            wall_time=time.time(), **fields
        )
        self._writer.write(event.SerializeToString())

    def close(self) -> None:
        """Closes the file and says beside it that it is complete."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        says = _complete(self._path, self._held.to_json())
        files.write_text(self._path.with_name(COMPLETE), json.dumps(says) + "\n")


def _summary(name: str, value: float) -> dict[str, Any]:
    """A `Summary.Value` with a scalar."""
    return {
        "tag": name,
        "metadata": {"plugin_data": {"plugin_name": "scalars"}},
        "tensor": {"dtype": "DT_FLOAT", "tensor_shape": {}, "float_val": [value]},
    }


class _Beginning(NamedTuple):
    """Seeds start anew, with so many lines that the log has of each."""

    log: pathlib.Path
    lines: Mapping[int, int]


class TensorBoardThread:
    """Takes records as they are logged and writes the event files of their seeds."""

    def __init__(self, folder: pathlib.Path):
        """Starts the thread; `folder` gets one sub-folder a seed."""
        self._folder = folder
        self._queue: queue.SimpleQueue[Line | _Beginning | None] = queue.SimpleQueue()
        self._files: dict[int, EventFile] = {}
        self._gives_up = False
        self._thread = threading.Thread(target=self._run, name="tensorboard", daemon=True)
        self._thread.start()

    def begin(self, log: pathlib.Path, lines: Mapping[int, int]) -> None:
        """Starts the event files of seeds anew, with so many lines that the log has of each."""
        self._queue.put(_Beginning(log, lines))

    def write(self, record: Line) -> None:
        """Hands over one record of metrics.jsonl; returns at once."""
        if self._queue.qsize() < _MAX_BEHIND and not self._gives_up:
            self._queue.put(record)  # else the file lacks lines, and is not complete

    def cancel(self) -> None:
        """Ends the thread soon; the files stay incomplete."""
        self._gives_up = True
        self._queue.put(None)
        self._thread.join(1.0)  # it is at one record, at most

    def finish(self, seconds: float = WAIT_SECONDS) -> bool:
        """Waits until all is written, but no longer; whether it is. It says what it waits for."""
        self._queue.put(None)
        self._thread.join(1.0)
        if self._thread.is_alive():
            print(
                f"rkbench: waiting for the event files in {self._folder}, {self._queue.qsize()} "
                f"records behind, for {seconds:.0f} seconds at most",
                file=sys.stderr,
            )
            self._thread.join(seconds)
        if self._thread.is_alive():
            self._gives_up = True
            print(
                f"rkbench: the event files in {self._folder} are not complete; metrics.jsonl is, "
                "and the same command makes them from it",
                file=sys.stderr,
            )
        return not self._gives_up

    def _run(self) -> None:
        with _saying_failures():
            while (item := self._queue.get()) is not None and not self._gives_up:
                if isinstance(item, _Beginning):
                    self._begin(item)
                else:
                    self._files[item["seed"]].add(item)
            for file in () if self._gives_up else self._files.values():
                file.close()
            return
        self._gives_up = True

    def _begin(self, beginning: _Beginning) -> None:
        left = dict(beginning.lines)
        for seed in left:
            self._files[seed] = EventFile(self._folder / f"seed_{seed}")
        for line in metrics.sound(beginning.log):
            if not any(left.values()) or self._gives_up:
                return  # what follows is handed over
            if left.get(line["seed"]):
                self._files[line["seed"]].add(line)
                left[line["seed"]] -= 1
