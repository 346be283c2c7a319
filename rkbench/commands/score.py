"""`rkbench score DIR... [--target=0.95]`: scores and compares runs by nothing but their logs.

Reads every run in or below the folders. Runs that differ in nothing but seeds are averaged, and
nothing else is: methods are compared within a task (data, model and batch), and what is unfinished,
damaged or there twice is left out and named. With a target, times to it are medians over seeds, and
a seed that misses it counts as infinitely slow.
"""

from rkbench.commands import command_line


def run(argv: list[str]) -> None:
    """Prints the tables, and writes them where that is asked for."""
    parser = command_line.Parser(prog=argv[0], description=__doc__)
    parser.add_argument("folders", nargs="+", type=command_line.folder_path, metavar="DIR")
    parser.add_argument("--metric", default="test/accuracy", help="default: test/accuracy")
    parser.add_argument(
        "--target", help="of the metric, as 0.95 or mnist_mlp=0.97,fashion_mlp=0.87"
    )
    parser.add_argument("--reference", help="method to compare with; default: each task's best")
    parser.add_argument(
        "--output",
        type=command_line.folder_path,
        help="folder for the tables, as CSV, JSON and text",
    )
    arguments = parser.parse_args(argv[1:])
    goals = None if arguments.target is None else command_line.targets(arguments.target)

    from rkbench.records.names import namer
    from rkbench.scoring import output
    from rkbench.scoring.collect import collect
    from rkbench.scoring.tables import tabulate

    collection, name = collect(arguments.folders), namer(arguments.folders)
    found = tabulate(collection, arguments.metric, goals, arguments.reference, name)
    print(output.text(found))
    if arguments.output is not None:
        for file in output.write(found, arguments.output):
            print(file)
