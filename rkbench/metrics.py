"""`metrics.jsonl`: the raw log from which every number of a run can be computed again.

One JSON object a line with `step` (updates done), `seed`, `wall_time` (seconds of training so far,
without compilation and evaluation), `grad_evals` (gradients spent so far) and the metrics. A number
that is not finite is written as null, which JSON can hold.
"""

import contextlib
import gzip
import json
import math
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Record = dict[str, Any]


class JsonLinesWriter:
    """A CLU `MetricWriter` that appends scalars to a file of JSON lines.

    It has the methods of `clu.metric_writers.MetricWriter`, as which `tensorboard.py` registers it;
    it does not inherit from it because importing CLU's writers imports TensorFlow.
    """

    def __init__(self, path: pathlib.Path):
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - until close()

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Writes one line."""
        self.write_record(record(step, scalars))

    def write_record(self, line: Record) -> None:
        """Writes one line as it is."""
        self._file.write(json.dumps(line) + "\n")

    def flush(self) -> None:
        """Makes all lines durable: they survive the machine."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flushes and closes the file."""
        self.flush()
        self._file.close()

    def _refuse(self, step: int, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("metrics.jsonl holds scalars only")

    write_summaries = write_images = write_videos = _refuse
    write_audios = write_texts = write_histograms = write_hparams = _refuse


def record(step: int, scalars: Mapping[str, Any]) -> Record:
    """A line of the log: Python numbers, with null for what is not finite."""
    plain = {k: v.item() if hasattr(v, "item") else v for k, v in scalars.items()}
    return {"step": int(step)} | {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in plain.items()
    }


def read(path: pathlib.Path) -> Iterator[Record]:
    """The records of a metrics file in order; a line that a crash cut off ends them.

    A file whose name ends in .gz is compressed.
    """
    if not path.exists():
        return
    opener = gzip.open if path.suffix == ".gz" else open
    # A compressed file that is cut off ends in an EOFError.
    with (
        contextlib.suppress(EOFError, gzip.BadGzipFile),
        opener(path, "rt", encoding="utf-8", errors="replace") as file,
    ):
        for line in file:
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                return
            if not isinstance(record, dict) or not line.endswith("\n"):
                return
            yield record


def keep_only(path: pathlib.Path, keep: Callable[[Record], bool]) -> None:
    """Drops the records for which `keep` is false, and a cut-off end, in one atomic replacement."""
    if not path.exists():
        return
    kept = path.with_suffix(".tmp")
    with open(kept, "w", encoding="utf-8") as file:
        for record in read(path):
            if keep(record):
                file.write(json.dumps(record) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(kept, path)
