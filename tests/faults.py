"""Faults that a process injects into itself, at a named moment: see `test_faults.py`."""

import hashlib
import os
import resource
import signal
import threading
import time

from rkbench import files
from rkbench.records import metrics, workdir
from rkbench.records.run_log import RunLog
from rkbench.step.program import Program
from rkbench.trainer import preemption
from rkbench.trainer.checkpoint import Checkpoints
from rkbench.trainer.evaluate import Evaluator

ANYBODY = 65534  # "nobody": a user who owns nothing


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def interrupt_twice():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGINT)


def at_call(owner, name, call, before=None, after=None):
    """The `call`-th call of `owner.name` does `before` or `after` as well."""
    original = getattr(owner, name)
    left = [call]

    def patched(*arguments, **keywords):
        left[0] -= 1
        if left[0] == 0 and before is not None:
            before()
        result = original(*arguments, **keywords)
        if left[0] == 0 and after is not None:
            after()
        return result

    setattr(owner, name, patched)


def tear_last_line(call):
    """Kills when a flush has written all but the end of its last line."""
    flush = metrics.JsonLinesWriter.flush
    left = [call]

    def torn(self):
        flush(self)
        left[0] -= 1
        if left[0] == 0:
            size = os.fstat(self._file.fileno()).st_size
            os.ftruncate(self._file.fileno(), max(0, size - 9))
            kill()

    metrics.JsonLinesWriter.flush = torn


def later(seconds):
    """Kills while the main thread and Orbax's threads go on."""

    def wait_and_kill():
        time.sleep(seconds)
        kill()

    threading.Thread(target=wait_and_kill, daemon=True).start()


def terminate_in_native_code():
    """SIGTERM in the middle of a native call, as a compilation is: handlers wait for its end."""
    threading.Timer(0.05, terminate).start()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 100_000_000)  # a minute, without the interpreter lock


def as_anybody():
    """From the first look at the workdir on, root may not write everywhere either."""
    at_call(workdir, "_check_entries", 1, before=lambda: os.geteuid() or os.setuid(ANYBODY))


def full_disk():
    """No file can grow any more."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))


def terminate_in_compilation(call, grace):
    preemption.GRACE_SECONDS = grace
    at_call(Program, "lower", call, after=terminate_in_native_code)


KILLS = {
    "before a log flush": lambda call: at_call(metrics.JsonLinesWriter, "flush", call, kill),
    "in a log line": tear_last_line,
    "between log and checkpoint": lambda call: at_call(Checkpoints, "save", call, kill),
    "when a checkpoint has begun": lambda call: at_call(Checkpoints, "save", call, None, kill),
    "in the commit of a checkpoint": lambda call: at_call(os, "rename", call, kill),
    "after a rename in a checkpoint": lambda call: at_call(os, "rename", call, None, kill),
    "before a file is replaced": lambda call: at_call(os, "replace", call, kill),
    "after a file is replaced": lambda call: at_call(os, "replace", call, None, kill),
    "before the record is written": lambda call: at_call(files, "write_json", call, kill),
    "in an evaluation": lambda call: at_call(Evaluator, "__call__", call, kill),
    "between steps": lambda call: at_call(Program, "advance", call, kill),
    "when the log is truncated": lambda call: at_call(RunLog, "truncate", call, None, kill),
}

FAULTS = KILLS | {
    "while a checkpoint is written": lambda call, seconds: at_call(
        Checkpoints, "save", call, None, lambda: later(seconds)
    ),
    "SIGTERM between steps": lambda call: at_call(Program, "advance", call, terminate),
    "Ctrl-C twice between steps": lambda call: at_call(Program, "advance", call, interrupt_twice),
    "SIGTERM while a checkpoint is written": lambda call: at_call(
        Checkpoints, "save", call, None, terminate
    ),
    "SIGTERM in compilation": terminate_in_compilation,
    "no privileges": as_anybody,
    "full disk": lambda call: at_call(Checkpoints, "save", call, full_disk),
}
