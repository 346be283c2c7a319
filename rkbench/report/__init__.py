"""`rkbench report DIR... --output=report.html`: runs as one page that needs no network.

The page holds an overview, a table of all runs, their curves, learning-rate sensitivity,
performance profiles and the differences of their configs. Long curves are thinned to at most
`--max_points` points each, of which the extremes are part.
"""

import argparse
import errno
import pathlib
import sys
import time

from rkbench import files
from rkbench.commands.command_line import Parser, file_path, folder_path
from rkbench.errors import UserError

MAX_POINTS = 1_000


def run(argv: list[str]) -> None:
    """Writes the report that the command line asks for."""
    parser = Parser(
        prog=argv[0], description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folders", nargs="+", type=folder_path, metavar="DIR", help="holds runs, at any depth"
    )
    parser.add_argument("-o", "--output", type=file_path, default=pathlib.Path("report.html"))
    parser.add_argument(
        "--max_points",
        type=int,
        default=MAX_POINTS,
        help="of a curve, at least 4; less where there are very many curves (default: %(default)s)",
    )
    parser.add_argument(
        "--target",
        help="of the profiles, as 0.95 or mnist_mlp=0.97,fashion_mlp=0.87; without one, "
        "1 %% from the best final mean of each workload",
    )
    parser.add_argument("--title", default="rkbench report")
    arguments = parser.parse_args(argv[1:])

    from rkbench.report import content, page
    from rkbench.scoring import command

    if arguments.max_points < 4:
        raise UserError(f"--max_points={arguments.max_points} must be at least 4")
    targets = None if arguments.target is None else command.targets(arguments.target)
    begin = time.monotonic()
    told = content.content(arguments.folders, arguments.max_points, targets)
    write(page.html(told, arguments.title), arguments.output)
    for kind, lines in (("warning", told["warnings"]), ("left out", told["omissions"])):
        for line in lines:
            print(f"{kind}: {line}", file=sys.stderr)
    size, seconds = arguments.output.stat().st_size / 1e6, time.monotonic() - begin
    print(f"{arguments.output} ({size:.1f} MB, made in {seconds:.1f} s)")


def write(text: str, output: pathlib.Path) -> None:
    """Writes the page, whole or not at all.

    Raises:
      UserError: there can be no such file.
      OSError: the disk is full, or the like.
    """
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(output, text)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        raise UserError(f"{output} cannot be written: {error.strerror}") from error
