"""`rkbench compare DIR... --output=DIR`: pictures of how optimizers compare, from logs alone.

For each task: curves on the three axes, sensitivity to the learning rate, and a map of where the
methods are stable; and performance profiles over all tasks. Each as PNG, PDF and, with the numbers
that it shows, CSV. Where learning rates were not varied, or a single optimizer ran, the pictures
that would need it are left out.
"""

import argparse

from rkbench.commands import command_line


def run(argv: list[str]) -> None:
    """Draws the pictures that the command line asks for."""
    parser = command_line.Parser(
        prog=argv[0], description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=command_line.folder_path, metavar="DIR")
    parser.add_argument(
        "--output", type=command_line.folder_path, required=True, help="folder for pictures"
    )
    parser.add_argument("--metric", help="default: test/accuracy, or what there is instead")
    parser.add_argument(
        "--target",
        help="of the profiles, as 0.95 or mnist_mlp=0.97,fashion_mlp=0.87; without one, "
        "1 %% from the best final mean of each task",
    )
    arguments = parser.parse_args(argv[1:])

    from rkbench import comparison

    goals = None if arguments.target is None else command_line.targets(arguments.target)
    for file in comparison.draw(arguments.folders, arguments.output, arguments.metric, goals):
        print(file)
