"""`rkbench report DIR... --output=report.html`: runs as one page that needs no network.

The page holds an overview, a table of all runs, their curves, learning-rate sensitivity,
performance profiles and the differences of their configs. Long curves are thinned to at most
`--max_points` points each, of which the extremes are part.
"""

import argparse
import pathlib
import sys
import time

from rkbench import report
from rkbench.commands import command_line


def run(argv: list[str]) -> None:
    """Writes the report that the command line asks for."""
    parser = command_line.Parser(
        prog=argv[0], description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folders",
        nargs="+",
        type=command_line.folder_path,
        metavar="DIR",
        help="holds runs, at any depth",
    )
    parser.add_argument(
        "-o", "--output", type=command_line.file_path, default=pathlib.Path("report.html")
    )
    parser.add_argument(
        "--max_points",
        type=int,
        default=report.MAX_POINTS,
        help="of a curve, at least 4; less where there are very many curves (default: %(default)s)",
    )
    parser.add_argument(
        "--target",
        help="of the profiles, as 0.95 or mnist_mlp=0.97,fashion_mlp=0.87; without one, "
        "1 %% from the best final mean of each workload",
    )
    parser.add_argument("--title", default="rkbench report")
    arguments = parser.parse_args(argv[1:])

    targets = None if arguments.target is None else command_line.targets(arguments.target)
    begin = time.monotonic()
    told = report.report(
        arguments.folders,
        arguments.output,
        max_points=arguments.max_points,
        targets=targets,
        title=arguments.title,
    )
    for kind, lines in (("warning", told["warnings"]), ("left out", told["omissions"])):
        for line in lines:
            print(f"{kind}: {line}", file=sys.stderr)
    size, seconds = arguments.output.stat().st_size / 1e6, time.monotonic() - begin
    print(f"{arguments.output} ({size:.1f} MB, made in {seconds:.1f} s)")
