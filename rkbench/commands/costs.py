"""`rkbench costs [--output=FILE]`: parameters and FLOPs of every workload, without its data.

The FLOPs are XLA's own count (`Lowered.cost_analysis`) of one gradient with XLA's convolution,
before any optimization: a product of matrices [m, k] and [k, n] counts as 2 m k n. A step takes
(gradient evaluations of the optimizer) x (batch size) of them; what the optimizer adds, a few
operations a parameter, is left out.
"""

import pathlib

from rkbench import errors, files
from rkbench.commands.command_line import Parser, output_path
from rkbench.trainer import costs


def run(argv: list[str]) -> None:
    """Prints the table, or puts it into a document between its two marks."""
    parser = Parser(prog=argv[0], description=__doc__)
    parser.add_argument(
        "--output",
        type=output_path,
        help="a document with a table of costs to replace",
    )
    arguments = parser.parse_args(argv[1:])
    if arguments.output is None:
        print(costs.table())
    else:
        document = _document(arguments.output)
        files.write_text(arguments.output, costs.with_table(document, costs.table()))


def _document(path: pathlib.Path) -> str:
    try:
        document = path.read_text(encoding="utf-8")
        costs.with_table(document, "")  # whether it has the marks, before anything is computed
    except (OSError, UnicodeDecodeError, errors.UserError) as error:
        raise errors.UserError(f"{path} cannot take the table: {error}") from error
    return document
