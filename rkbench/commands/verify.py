"""`rkbench verify [RESULTS]`: computes every number of the results again from the raw logs.

Every seed's entry in every record, every cell of the tables and every point of every figure, the
comparison's as well; any difference is named, and the exit code is 1.
"""

import pathlib
import sys

from rkbench import verify
from rkbench.commands.command_line import Parser, folder_path
from rkbench.errors import UserError


def run(argv: list[str]) -> None:
    """Prints what was checked; exits with 1 where something differs."""
    parser = Parser(prog=argv[0], description=__doc__)
    parser.add_argument("results", type=folder_path, nargs="?", default=pathlib.Path("results"))
    results = parser.parse_args(argv[1:]).results
    if not results.is_dir():
        raise UserError(f"{results} is not a folder with results")
    differences = list(verify.verify(results))
    for difference in differences:
        print(f"rkbench: {difference}", file=sys.stderr)
    records, files = verify.counts(results)
    if not records and not files:
        raise UserError(f"{results} holds no results: no record, no manifest.json, no comparison")
    print(
        f"{results}: {records} records, {files} tables and figures computed again from the logs, "
        f"{len(differences)} differences"
    )
    if differences:
        sys.exit(1)
