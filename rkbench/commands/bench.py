"""`rkbench bench [NAME ...]`: speed and memory, as ratios measured within one run.

Ratios rather than times, each from calls of both sides in turn, so that a slow or busy machine
slows both. Nothing here passes or fails a test: it prints a table, with the machine.
"""

import sys

from rkbench import bench, errors, files
from rkbench.bench import row
from rkbench.commands.command_line import Parser, output_path


def run(argv: list[str]) -> None:
    """Measures what is asked for, or everything, and prints (and writes) the table."""
    parser = Parser(prog=argv[0], description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(bench.BENCHMARKS))
    parser.add_argument("--output", type=output_path, help="also write the table to this .md file")
    arguments = parser.parse_args(argv[1:])
    for name in arguments.names:
        if name not in bench.BENCHMARKS:
            raise errors.unknown("benchmark", name, bench.BENCHMARKS)
    rows = []
    for name in arguments.names or bench.BENCHMARKS:
        for measured in row.measure(*bench.BENCHMARKS[name]):
            print(f"  {measured.what}: {measured.value}", file=sys.stderr, flush=True)
            rows.append(measured)
    table = f"{bench.machine()}\n\n{row.table(rows)}"
    print(table)
    if arguments.output is not None:
        files.write_text(arguments.output, f"# Speed\n\n{table}")
