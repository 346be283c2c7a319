"""One rule for every path that a user gives: ~ is the home folder, and a bucket is refused."""

import os
import pathlib
import re

from rkbench.errors import UserError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/+")  # as pathlib leaves it: one slash


def local(text: str | os.PathLike[str]) -> pathlib.Path:
    """The path, with `~` and `~user` resolved; nothing is looked up on the disk but the home.

    Raises:
      UserError: it is empty, holds a null byte, is the URL of a bucket, or there is no such home.
    """
    path = os.fspath(text)
    if not path:
        raise UserError("a path is empty")
    if "\0" in path:
        raise UserError(f"{path!r} cannot be a file's name: it has a null byte")
    if _URL.match(path):
        raise UserError(
            f"{path} is no folder of this machine: give a local or mounted one and copy it, as "
            "`python -m scripts.launch` does with a bucket (docs/scaling.md)"
        )
    try:
        return pathlib.Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{path}: no home folder is known here; give the path without ~") from error


def cache_folder() -> pathlib.Path | None:
    """The folder for what can be made again; None where no home folder is known.

    `$RKBENCH_CACHE_DIR`, else `$XDG_CACHE_HOME/rkbench`, else `~/.cache/rkbench`.
    """
    if chosen := os.environ.get("RKBENCH_CACHE_DIR"):
        return local(chosen)
    if caches := os.environ.get("XDG_CACHE_HOME"):
        return local(caches) / "rkbench"
    try:
        return pathlib.Path.home() / ".cache" / "rkbench"
    except RuntimeError:  # neither HOME nor an entry of the user in /etc/passwd, as in containers
        return None


def data_folder(data_dir: str | os.PathLike[str] | None) -> pathlib.Path:
    """The TFDS folder: `data_dir`, else `$TFDS_DATA_DIR`, else TFDS's default."""
    return local(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
