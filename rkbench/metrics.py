"""`metrics.jsonl`: the raw log from which every number of a run can be computed again.

One JSON object a line with `step` (updates done), `seed`, `wall_time` (seconds of training so far,
without compilation and evaluation), `grad_evals` (gradients spent so far) and the metrics. A number
that is not finite is written as null, which JSON can hold.
"""

import contextlib
import gzip
import hashlib
import json
import math
import os
import pathlib
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO

from rkbench import errors, files

Record = dict[str, Any]


class JsonLinesWriter:
    """A CLU `MetricWriter` that appends scalars to a file of JSON lines.

    It has the methods of `clu.metric_writers.MetricWriter`, as which `register_with_clu` registers
    it; it does not inherit from it because importing CLU's writers imports TensorFlow.
    """

    def __init__(self, path: pathlib.Path):
        self._file = files.appending(path)

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Writes one line."""
        self.write_record(record(step, scalars))

    def write_record(self, line: Record) -> None:
        """Writes one line as it is."""
        self._file.write(_line(line))

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


def register_with_clu() -> None:
    """Makes `JsonLinesWriter` a `clu.metric_writers.MetricWriter`; imports TensorFlow."""
    from clu import metric_writers

    metric_writers.MetricWriter.register(JsonLinesWriter)


def record(step: int, scalars: Mapping[str, Any]) -> Record:
    """A line of the log: Python numbers, with null for what is not finite."""
    plain = {k: v.item() if hasattr(v, "item") else v for k, v in scalars.items()}
    return {"step": int(step)} | {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in plain.items()
    }


def read(path: pathlib.Path) -> Iterator[Record]:
    """The records of a metrics file in order, without what a crash left at its end.

    A file whose name ends in .gz is compressed.

    Raises:
      UserError: a line is damaged, and sound ones follow; or the file cannot be read.
    """
    damaged = 0
    for number, found in enumerate(_parsed_lines(path), 1):
        if found is None:
            damaged = damaged or number
        elif damaged:
            raise errors.UserError(
                f"line {damaged} of {path} is damaged; where it is a run's, the command that "
                "trained the run mends it"
            )
        else:
            yield found


def sound(path: pathlib.Path) -> Iterator[Record]:
    """The records that are whole, of a file that may be damaged anywhere."""
    return (found for found in _parsed_lines(path) if found is not None)


def _parsed_lines(path: pathlib.Path) -> Iterator[Record | None]:
    """Each line as a record, or None where it is damaged."""
    if not path.exists():
        return
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with (
            contextlib.suppress(EOFError),  # a compressed file that is cut off
            opener(path, "rt", encoding="utf-8", errors="replace") as file,
        ):
            for line in file:
                yield _parsed(line)
    except (OSError, zlib.error) as error:
        raise errors.UserError(f"{path} cannot be read: {error}") from error


def _parsed(line: str) -> Record | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = (
        line.endswith("\n")
        and isinstance(found, dict)
        and all(isinstance(found.get(name), int) and found[name] >= 0 for name in ("step", "seed"))
        and all(map(_is_number_or_null, found.values()))
    )
    return found if whole else None


def _is_number_or_null(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and abs(value) <= sys.float_info.max)


class Fingerprint:
    """How many records there are, and the SHA-256 of their lines."""

    def __init__(self, records: Iterable[Record] = ()):
        self.lines = 0
        self._sha256 = hashlib.sha256()
        for found in records:
            self.add(found)

    def add(self, found: Record) -> None:
        """Counts one more."""
        self.lines += 1
        self._sha256.update(_line(found).encode())

    def to_json(self) -> dict[str, Any]:
        """The fingerprint as a run's record and its checkpoints hold it."""
        return {"lines": self.lines, "sha256": self._sha256.hexdigest()}


def fingerprint(records: Iterable[Record], seed: int) -> dict[str, Any]:
    """The fingerprint of one seed's records, as JSON."""
    return Fingerprint(found for found in records if found["seed"] == seed).to_json()


def _line(found: Record) -> str:
    return json.dumps(found) + "\n"


def keep_only(path: pathlib.Path, keep: Callable[[Record], bool]) -> None:
    """Drops the records for which `keep` is false, and what is damaged, in one step.

    Where only the end is dropped, which is the rule, the file is cut there: that needs no room on a
    disk that may be full. Memory does not grow with the file.

    Raises:
      OSError: it cannot be written; nothing has changed then.
    """
    if not path.exists():
        return
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open(path, "rb"))
        copy: BinaryIO | None = None
        end = place = 0  # of what is kept at the beginning, and of the lines so far
        for line in file:
            found = _parsed(line.decode("utf-8", errors="replace"))
            kept = found is not None and keep(found)
            if kept and copy is None and end < place:  # the first line after a gap
                copy = stack.enter_context(files.replacing(path))
                _copy_beginning(path, end, copy)
            place += len(line)
            if kept and copy is not None:
                copy.write(line)
            elif kept:
                end = place
    if copy is None and end < place:
        files.truncate(path, end)


def _copy_beginning(path: pathlib.Path, size: int, target: BinaryIO) -> None:
    with open(path, "rb") as file:
        while part := file.read(min(size, 1 << 20)):
            target.write(part)
            size -= len(part)
