"""The console command `rkbench`: one sub-command a line, each loaded only when it is called."""

import importlib
import sys

from rkbench import __version__, errors
from rkbench.commands import command_line

# name: (module with a `run(argv)`, what it does)
_COMMANDS = {
    "train": ("rkbench.commands.train", "train a config; resumes where it stopped"),
    "list": ("rkbench.commands.listing", "show workloads, optimizers and configs"),
    "quickstart": (
        "rkbench.commands.quickstart",
        "compare Runge-Kutta with Adam on the embedded digits",
    ),
    "table1": ("rkbench.commands.paper", "reproduce Table 1 of the paper"),
    "figure": ("rkbench.commands.paper", "reproduce figures of the paper"),
    "paper": ("rkbench.commands.paper", "reproduce the table and all figures"),
    "study": ("rkbench.commands.paper", "learning rate x input scaling x method, full batch"),
    "sweep": ("rkbench.commands.sweep", "tune optimizers alike, and report what was chosen"),
    "score": ("rkbench.commands.score", "score and compare runs by their logs"),
    "verify": ("rkbench.commands.verify", "compute every published number again from the logs"),
    "compare": ("rkbench.commands.compare", "draw curves, sensitivity, stability and profiles"),
    "report": (
        "rkbench.commands.report",
        "show runs as one page: table, curves, sensitivity, profiles",
    ),
    "archive": (
        "rkbench.commands.archive",
        "keep runs small, joining the seeds of several workdirs",
    ),
    "convert": ("rkbench.commands.convert", "make a TFDS dataset fit for random access, once"),
    "costs": ("rkbench.commands.costs", "show parameters and FLOPs of every workload"),
    "bench": ("rkbench.commands.bench", "measure speed and memory, as ratios within one run"),
}


def _help() -> str:
    lines = [f"  {name:<12}{text}" for name, (_, text) in _COMMANDS.items()]
    return "\n".join(
        [
            "usage: rkbench COMMAND [ARGUMENT ...]",
            "",
            *lines,
            "",
            "rkbench COMMAND --help, or rkbench help COMMAND, says more; rkbench --version which.",
        ]
    )


def main() -> None:
    """Runs the sub-command that the command line names."""
    arguments = sys.argv[1:]
    with command_line.user_errors():
        if not arguments or arguments[0] in ("-h", "--help", "help"):
            if not arguments[1:]:
                print(_help())
                return
            arguments = [arguments[1], "--help"]
        if arguments[0] == "--version":
            print(f"rkbench {__version__}")
            return
        if arguments[0] not in _COMMANDS:
            raise errors.unknown("command", arguments[0], _COMMANDS)
        module, _ = _COMMANDS[arguments[0]]
        importlib.import_module(module).run([f"rkbench {arguments[0]}", *arguments[1:]])


if __name__ == "__main__":
    main()
