"""The console command, called in this process."""

import sys

from rkbench.commands import cli


def rkbench(monkeypatch, *arguments):
    """Runs the command; its exit code."""
    monkeypatch.setattr(sys, "argv", ["rkbench", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as stop:
        return stop.code
    return 0
