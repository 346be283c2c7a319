"""`rkbench compare DIR... --output=DIR`: pictures of how optimizers compare, from logs alone.

For each task: curves on the three axes, sensitivity to the learning rate, and a map of where the
methods are stable; and performance profiles over all tasks. Each as PNG, PDF and, with the numbers
that it shows, CSV. Where learning rates were not varied, or a single optimizer ran, the pictures
that would need it are left out.
"""

import argparse
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence

from rkbench.commands.command_line import Parser, folder_path
from rkbench.errors import UserError


def run(argv: list[str]) -> None:
    """Draws the pictures that the command line asks for."""
    parser = Parser(
        prog=argv[0], description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=folder_path, metavar="DIR")
    parser.add_argument("--output", type=folder_path, required=True, help="folder for pictures")
    parser.add_argument("--metric", help="default: test/accuracy, or what there is instead")
    parser.add_argument(
        "--target",
        help="of the profiles, as 0.95 or mnist_mlp=0.97,fashion_mlp=0.87; without one, "
        "1 %% from the best final mean of each task",
    )
    arguments = parser.parse_args(argv[1:])

    from rkbench.scoring import command

    goals = None if arguments.target is None else command.targets(arguments.target)
    for file in draw(arguments.folders, arguments.output, arguments.metric, goals):
        print(file)


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
        raise UserError(f"{output} cannot be written: {error.strerror}") from error
    for picture in pictures(compared, namer(folders)):
        yield from picture.draw(output / picture.name)
