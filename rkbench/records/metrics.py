"""`metrics.jsonl`: the raw log from which every number of a run can be computed again.

One JSON object a line with `step` (updates done), `seed`, `wall_time` (seconds of training so far,
without compilation and evaluation), `grad_evals` (gradients spent so far) and the metrics. A number
that is not finite is written as null, which JSON can hold.

Files are read line by line, however long they are; a line is whole if it fits that description.
"""

import contextlib
import gzip
import hashlib
import json
import math
import os
import pathlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, BinaryIO

import msgspec

from rkbench import errors, files

Line = dict[str, Any]

_LARGEST = 2**53  # every whole number up to it is a float64
_LONGEST = 1 << 20  # bytes of a line: one without an end does not fill the memory
_Name = Annotated[str, msgspec.Meta(max_length=200)]
_Whole = Annotated[int, msgspec.Meta(ge=-_LARGEST, le=_LARGEST)]
_decode = msgspec.json.Decoder(dict[_Name, _Whole | float | None]).decode


class JsonLinesWriter:
    """A CLU `MetricWriter` that appends scalars to a file of JSON lines.

    It has the methods of `clu.metric_writers.MetricWriter`, as which `register_with_clu` registers
    it; it does not inherit from it because importing CLU's writers imports TensorFlow.
    """

    def __init__(self, path: pathlib.Path):
        self._file = files.appending(path)

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Writes one line."""
        self.write_line(line(step, scalars))

    def write_line(self, found: Line) -> None:
        """Writes one line as it is."""
        self._file.write(_text(found))

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


def line(step: int, scalars: Mapping[str, Any]) -> Line:
    """A line of the log: Python numbers, with null for what is not finite."""
    plain = {k: v.item() if hasattr(v, "item") else v for k, v in scalars.items()}
    return {"step": int(step)} | {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in plain.items()
    }


def read(path: pathlib.Path) -> Iterator[Line]:
    """The lines of a metrics file in order, without what a crash left at its end.

    A file whose name ends in .gz is compressed.

    Raises:
      UserError: a line is damaged, and sound ones follow; or the file cannot be read.
    """
    return (found for found, _ in read_with_text(path))


def read_with_text(path: pathlib.Path) -> Iterator[tuple[Line, bytes]]:
    """As `read`, each line with its text in the file."""
    damaged = 0
    for number, (found, text) in enumerate(_lines(path), 1):
        if found is None:
            damaged = damaged or number
        elif damaged:
            raise errors.UserError(
                f"line {damaged} of {path} is damaged; where it is a run's, the command that "
                "trained the run mends it"
            )
        else:
            yield found, text


def sound(path: pathlib.Path) -> Iterator[Line]:
    """The lines that are whole, of a file that may be damaged anywhere."""
    return (found for found, _ in _lines(path) if found is not None)


def _lines(path: pathlib.Path) -> Iterator[tuple[Line | None, bytes]]:
    """Each line as an object, None where it is damaged, and its text."""
    if not os.path.lexists(path):
        return
    if not path.is_file():  # a pipe would make it wait forever
        raise errors.UserError(f"{path} cannot be read: it is not a file")
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with (
            contextlib.suppress(EOFError),  # a compressed file that is cut off
            opener(path, "rb") as file,
        ):
            while line := file.readline(_LONGEST):
                yield _parsed(line), line
    except (OSError, zlib.error) as error:
        raise errors.because(f"{path} cannot be read", error) from error


def _parsed(line: bytes) -> Line | None:
    try:
        found = _decode(line)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return found if line.endswith(b"\n") and _is_whole(found) else None


def _is_whole(found: Line) -> bool:
    """Whether a line of numbers has what every line has, in the range it must have."""
    if not all(isinstance(found.get(name), int) for name in ("step", "seed", "grad_evals")):
        return False
    common = [found.get(name) for name in ("step", "seed", "grad_evals", "wall_time")]
    return all(value is not None and 0 <= value <= _LARGEST for value in common) and all(
        0 <= value <= 1
        for name, value in found.items()
        if name.endswith("/accuracy") and value is not None
    )


class Fingerprint:
    """How many lines there are, and the SHA-256 of their text."""

    def __init__(self, lines: Iterable[Line] = ()):
        self.lines = 0
        self._sha256 = hashlib.sha256()
        for found in lines:
            self.add(found)

    def add(self, found: Line) -> None:
        """Counts one more."""
        self.add_text(_text(found).encode())

    def add_text(self, text: bytes) -> None:
        """Counts one more, given as its text."""
        self.lines += 1
        self._sha256.update(text.rstrip(b"\r\n") + b"\n")

    def to_json(self) -> dict[str, Any]:
        """The fingerprint as a run's record and its checkpoints hold it."""
        return {"lines": self.lines, "sha256": self._sha256.hexdigest()}


def fingerprints(path: pathlib.Path) -> dict[int, dict[str, Any]]:
    """{seed: the fingerprint of its whole lines in a file}, in one pass over the file."""
    found: dict[int, Fingerprint] = {}
    for own, text in _lines(path):
        if own is not None:
            found.setdefault(own["seed"], Fingerprint()).add_text(text)
    return {seed: one.to_json() for seed, one in found.items()}


def _text(found: Line) -> str:
    return json.dumps(found) + "\n"


def keep_only(path: pathlib.Path, keep: Callable[[Line], bool]) -> None:
    """Drops the lines for which `keep` is false, and what is damaged, in one step.

    Where only the end is dropped, which is the rule, the file is cut there: that needs no room on a
    disk that may be full. Memory does not grow with the file.

    Raises:
      OSError: it cannot be written; nothing has changed then.
    """
    if not path.exists():
        return
    with contextlib.ExitStack() as stack:
        copy: BinaryIO | None = None
        end = place = 0  # of what is kept at the beginning, and of the lines so far
        for found, line in _lines(path):
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
