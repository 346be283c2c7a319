"""How optimizers compare: the settings that stand for them, and pictures of them."""

import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rkbench.errors import because

if TYPE_CHECKING:
    from rkbench.comparison.pictures import Compared


def compare(
    folders: Sequence[pathlib.Path],
    metric: str | None = None,
    goals: Mapping[str, float] | float | None = None,
) -> "Compared":
    """Scores, robustness and profiles of the runs in or below the folders; draws nothing.

    Args:
      folders: with runs.
      metric: None: test/accuracy, or what there is instead.
      goals: of the profiles, one for all or one a task; None: near the best of each task.

    Raises:
      UserError: no runs, no such metric or task.
    """
    from rkbench.comparison.pictures import Compared
    from rkbench.scoring import collect

    return Compared.of(collect(folders), metric, goals)


def draw(
    folders: Sequence[pathlib.Path],
    output: pathlib.Path,
    metric: str | None = None,
    goals: Mapping[str, float] | float | None = None,
) -> Iterator[pathlib.Path]:
    """Draws every picture that the runs in or below the folders allow; yields the files.

    Raises:
      UserError: no runs, no such metric or task, or nothing that can be written.
    """
    from rkbench.comparison.pictures import Compared, pictures
    from rkbench.records.names import namer
    from rkbench.scoring import collect
    from rkbench.scoring.tables import edges, unequal_budgets

    collection = collect(folders)
    compared = Compared.of(collection, metric, goals)
    for warning in (*unequal_budgets(compared.scores), *edges(compared.varied)):
        print(f"warning: {warning}", file=sys.stderr)
    for omission in collection.omissions:
        print(f"left out: {omission}", file=sys.stderr)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise because(f"{output} cannot be written", error) from error
    for picture in pictures(compared, namer(folders)):
        yield from picture.draw(output)
