"""Files written in one step, in folders that may hold anything: a workdir is data, whoever made it.

A temporary file gets an unpredictable name beside its target and is made exclusively, so that no
link or file that lies in wait under its name is ever written through. A lock on it, which the
kernel frees when its process dies, tells a file that is being written from one left behind.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import secrets
from collections.abc import Iterator, Mapping
from typing import IO, Any, BinaryIO

from rkbench.errors import UserError

_TEMPORARIES = ".rkbench-*.tmp"


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[BinaryIO]:
    """A new file, open to be written, that takes the place of `path` when the block ends.

    A reader or a crash sees the old content or the new, and where the block or the disk fails, the
    old stays and nothing else is left behind. A link at `path` is replaced; its target stays as it
    is. What killed processes left in the folder is removed.

    Raises:
      UserError: there is something at `path` that is no file (a folder, a device).
      OSError: it cannot be written.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is in the way: it must be a file")
    remove_abandoned(path.parent)
    temporary, file = _exclusive(path.parent)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Replaces the file in one step; see `replacing`."""
    with replacing(path) as file:
        file.write(content)


def write_text(path: pathlib.Path, text: str) -> None:
    """Replaces the file, in UTF-8, in one step; see `replacing`."""
    write_bytes(path, text.encode())


def write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
    """Replaces the file by the object, indented, in one step; see `replacing`."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def appending(path: pathlib.Path) -> IO[str]:
    """The file, made where there is none, open to append text; OSError where `path` is a link."""

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NOFOLLOW, 0o666)

    return open(path, "a", encoding="utf-8", opener=opener)


def truncate(path: pathlib.Path, size: int) -> None:
    """Forgets all but the first `size` bytes, which needs no room; OSError where it is a link."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_NOFOLLOW), "wb") as file:
        file.truncate(size)
        os.fsync(file.fileno())


def remove_abandoned(folder: pathlib.Path) -> None:
    """Removes the temporary files in the folder whose processes have died."""
    for path in folder.glob(_TEMPORARIES):
        with contextlib.suppress(OSError):  # it is being written, or no longer there, or no file
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            finally:
                os.close(descriptor)


def _exclusive(folder: pathlib.Path) -> tuple[pathlib.Path, BinaryIO]:
    """A file of a new name in the folder, locked for as long as it is open."""
    while True:
        temporary = folder / _TEMPORARIES.replace("*", secrets.token_hex(8))
        file = open(temporary, "xb")  # noqa: SIM115 - the caller closes it
        # Another process may take it for an abandoned one until it is locked.
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)  # waits for nobody but `remove_abandoned`
        if os.fstat(file.fileno()).st_nlink:
            return temporary, file
        file.close()
