"""`rkbench report DIR... --output=report.html`: runs as one page that needs no network.

The page holds an overview, a table of all runs, their curves, learning-rate sensitivity,
performance profiles and the differences of their configs. Long curves are thinned to at most
`--max_points` points each, of which the extremes are part.
"""

import argparse
import pathlib
import sys
import time

from rkbench.errors import UserError

MAX_POINTS = 1_000


def run(argv: list[str]) -> None:
    """Writes the report that the command line asks for."""
    parser = argparse.ArgumentParser(
        prog=argv[0], description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folders", nargs="+", type=pathlib.Path, metavar="DIR", help="holds runs, at any depth"
    )
    parser.add_argument("-o", "--output", type=pathlib.Path, default=pathlib.Path("report.html"))
    parser.add_argument(
        "--max_points",
        type=int,
        default=MAX_POINTS,
        help="of a curve, at least 4; less where there are very many curves (default: %(default)s)",
    )
    parser.add_argument("--title", default="rkbench report")
    arguments = parser.parse_args(argv[1:])
    if arguments.max_points < 4:
        raise UserError(f"--max_points={arguments.max_points} must be at least 4")
    begin = time.monotonic()
    page, omitted = write(
        arguments.folders, arguments.output, arguments.max_points, arguments.title
    )
    for line in omitted:
        print(f"left out of all averages: {line}", file=sys.stderr)
    size = page.stat().st_size / 1e6
    print(f"{page} ({size:.1f} MB, made in {time.monotonic() - begin:.1f} s)")


def write(
    folders: list[pathlib.Path],
    output: pathlib.Path,
    max_points: int = MAX_POINTS,
    title: str = "rkbench report",
) -> tuple[pathlib.Path, list[str]]:
    """Writes the report on all runs in or below the folders; the file and what was left out.

    Raises:
      UserError: a folder holds no runs, or the file cannot be written.
    """
    from rkbench.report import content, page

    told = content.content(folders, max_points)
    text = page.html(told, title)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror}") from error
    return output, told["omissions"]
