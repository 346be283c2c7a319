"""Reports: runs as one page that needs no network."""

import errno
import pathlib

from rkbench import files
from rkbench.errors import because

MAX_POINTS = 1_000


def write(text: str, output: pathlib.Path) -> None:
    """Writes the page, whole or not at all.

    Raises:
      UserError: a file cannot be made there.
      OSError: the disk is full, or the like.
    """
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(output, text)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        raise because(f"{output} cannot be written", error) from error
