"""What devices send each other in a compiled program, read from its text."""

import math
import re
from typing import NamedTuple


class Moved(NamedTuple):
    """The collective operations of one kind: how many, and the bytes of their results."""

    operations: int
    bytes: int


_KINDS = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
_COLLECTIVE = re.compile(rf" = (.*?) ({_KINDS})(-start)?\(")
_ARRAY = re.compile(r"([a-z]+\d*)\[([\d,]*)\]")
_BYTES = {"f64": 8, "s64": 8, "f32": 4, "s32": 4, "u32": 4, "bf16": 2, "f16": 2, "u8": 1, "pred": 1}


def moved(compiled_text: str) -> dict[str, Moved]:
    """The collectives of a program by kind, as `jax.stages.Compiled.as_text` shows it.

    Each counts once where it stands: what is in a loop is not multiplied by the loop's length.

    Raises:
      KeyError: an array has a dtype that is not known here.
    """
    found: dict[str, Moved] = {}
    for line in compiled_text.splitlines():
        if match := _COLLECTIVE.search(line):
            before = found.get(match[2], Moved(0, 0))
            size = sum(_size(*array) for array in _ARRAY.findall(match[1]))
            found[match[2]] = Moved(before.operations + 1, before.bytes + size)
    return found


def _size(dtype: str, shape: str) -> int:
    return _BYTES[dtype] * math.prod(int(length) for length in shape.split(",") if length)
