"""A process that has imported everything and forks a child for each trial of `test_faults.py`.

Starting Python, JAX and Orbax takes seconds, a fork milliseconds. The backend of JAX, whose threads
would not survive a fork, is started in the children only. Trials come as JSON lines on stdin.
"""

import json
import os
import sys
import traceback

import faults
from jax._src import xla_bridge

import rkbench.train
import rkbench.workloads.image_classification
import rkbench.workloads.models.mlp  # noqa: F401
from rkbench.commands import cli


def child(trial):
    """Runs the trial's command with its fault; returns the command's exit code."""
    try:
        if trial["fault"] is not None:
            faults.FAULTS[trial["fault"]](**trial["arguments"])
        sys.argv = ["rkbench", *trial["command"]]
        cli.main()
    except SystemExit as error:
        return int(error.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def run(trial):
    """(the exit code of a child, or less a signal's number; what it printed)."""
    output, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(theirs, 1)
        os.dup2(theirs, 2)
        # Streams know whether they can seek: those of this process could, a pipe cannot.
        sys.stdout = open(1, "w", 1, "utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", 1, "utf-8", closefd=False)  # noqa: SIM115
        code = child(trial)
        sys.stdout.flush()
        os._exit(code)
    os.close(theirs)
    with open(output, encoding="utf-8") as file:
        printed = file.read()
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), printed


def main():
    for line in sys.stdin:
        assert not xla_bridge.backends_are_initialized()
        print(json.dumps(run(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
