"""Plain arrays on disk, checked when they are read: what makes the second start of a dataset fast.

An entry is one uncompressed `.npz` whose file name ends with the SHA-256 of its bytes, so data and
checksum appear together in one atomic rename, and a file that was cut short or changed is not used.
"""

import contextlib
import hashlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from absl import logging

from rkbench import files, paths
from rkbench.errors import UserError

Arrays = dict[str, np.ndarray]


def cached(key: str, make: Callable[[], Arrays]) -> Arrays:
    """The arrays kept under `key` (usable in a file name), made by `make()` where there are none.

    An entry that does not match its checksum is removed and made again. A cache that cannot be
    read or written costs only time: the arrays are returned all the same, with a warning. What a
    killed process left half-written is removed.
    """
    folder = paths.cache_folder()
    if folder is None:
        return make()
    files.remove_abandoned(folder)
    for path in folder.glob(f"{key}-*.npz"):
        try:
            arrays = _read(path, checksum=path.stem.removeprefix(f"{key}-"))
            if arrays is not None:
                return arrays
            logging.warning("cached dataset %s is damaged; making it again", path)
            path.unlink(missing_ok=True)
        except OSError as error:
            logging.warning("cannot use the cached dataset %s: %s", path, error)
    arrays = make()
    try:
        _write(folder, key, arrays)
    except (OSError, UserError) as error:
        logging.warning("cannot cache %s, next time will be as slow: %s", key, error)
    return arrays


def remove(key: str) -> None:
    """Removes what is kept under `key`, if it can."""
    folder = paths.cache_folder()
    for path in folder.glob(f"{key}-*.npz") if folder is not None else ():
        with contextlib.suppress(OSError):
            path.unlink()


def _read(path: Path, checksum: str) -> Arrays | None:
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != checksum:
        return None
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as entry:
            return {name: entry[name] for name in entry.files}
    except (ValueError, zipfile.BadZipFile):  # the checksum is right, but of something else
        return None


def _write(folder: Path, key: str, arrays: Arrays) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    data = buffer.getbuffer()
    checksum = hashlib.sha256(data).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    with files.replacing(folder / f"{key}-{checksum}.npz") as file:
        file.write(data)
