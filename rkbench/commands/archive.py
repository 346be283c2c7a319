"""`rkbench archive RUN... --output=DIR`: keeps runs small, joining the seeds of several workdirs.

What is kept is `run.json` and the compressed log. A run's seeds may come from several machines and
days: the parts must agree in everything that decides a seed's numbers, and each keeps its command,
commit, versions and devices. A single folder that is no run but holds some, as that of a sweep, is
archived as it is: every run in its place, and `sweep.json`.
"""

from rkbench import records
from rkbench.commands.command_line import Parser, folder_path
from rkbench.records import archive


def run(argv: list[str]) -> None:
    """Archives the runs that the command line names."""
    parser = Parser(prog=argv[0], description=__doc__)
    parser.add_argument("runs", nargs="+", type=folder_path, metavar="RUN", help="a workdir")
    parser.add_argument("--output", required=True, type=folder_path, help="the record's folder")
    arguments = parser.parse_args(argv[1:])
    if len(arguments.runs) == 1 and not (arguments.runs[0] / "run.json").is_file():
        count = archive.archive_all(arguments.runs[0], arguments.output)
        print(f"{arguments.output}: {count} runs")
        return
    record = archive.archive([records.Run(folder) for folder in arguments.runs], arguments.output)
    seeds = ", ".join(str(entry["seed"]) for entry in record["seeds"])
    print(f"{arguments.output}: seeds {seeds}")
