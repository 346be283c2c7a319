"""Reports: runs as one page that needs no network."""

import errno
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from rkbench import files
from rkbench.errors import UserError, because

MAX_POINTS = 1_000


def report(
    folders: Sequence[pathlib.Path | str],
    output: pathlib.Path | str | None = None,
    *,
    max_points: int = MAX_POINTS,
    targets: Mapping[str, float] | float | None = None,
    title: str = "rkbench report",
) -> dict[str, Any]:
    """What `rkbench report` shows of the runs in or below the folders, as plain JSON.

    Args:
      folders: with runs.
      output: the page to write; None: none.
      max_points: of a curve, at least 4.
      targets: of the profiles, one for all or one a task; None: near the best of each task.
      title: of the page.

    Returns:
      Among others `rows` (a run's seed each, with its curves), `settings`, and the `warnings` and
      `omissions` as lines.

    Raises:
      UserError: no runs, no metric, no such task, or a page that cannot be written.
    """
    from rkbench import paths
    from rkbench.report import content, page

    if max_points < 4:
        raise UserError(f"max_points={max_points} must be at least 4")
    told = content.content([paths.local(folder) for folder in folders], max_points, targets)
    if output is not None:
        write(page.html(told, title), paths.local(output))
    return told


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
