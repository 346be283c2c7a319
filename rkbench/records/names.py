"""What runs and pictures are called: nothing of the machine is told."""

import hashlib
import os
import pathlib
import re
from collections.abc import Callable, Sequence

from rkbench.texts import printable

LONGEST = 100  # of a picture's name, without its suffix

Namer = Callable[[pathlib.Path], str]


def namer(folders: Sequence[pathlib.Path]) -> Namer:
    """Names runs by their paths from where all the folders lie."""
    root = os.path.commonpath([folder.resolve().parent for folder in folders])

    def name(folder: pathlib.Path) -> str:
        return printable(pathlib.Path(os.path.relpath(folder.resolve(), root)).as_posix())

    return name


def file_name(kind: str, task: str) -> str:
    """ "curves", "mnist_mlp (batch_size=32)" as curves-mnist_mlp-batch_size-32.

    A long one is cut to `LONGEST` characters, of which the last tell it from others.
    """
    name = f"{kind}-{re.sub(r'[^A-Za-z0-9_.]+', '-', task).strip('-')}"
    if len(name) <= LONGEST:
        return name
    return f"{name[: LONGEST - 9]}-{hashlib.sha256(task.encode()).hexdigest()[:8]}"
