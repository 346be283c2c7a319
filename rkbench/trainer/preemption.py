"""SIGTERM and Ctrl-C: save, say one line and end, so that the same command resumes.

SIGTERM is how batch systems and preemptible machines end a process: it exits with 75. Ctrl-C
(SIGINT) exits with 130, and a second one ends the process at once.

Within `handled()` a signal sets a flag. Where a group of seeds trains (`deferred`), the trainer
looks at it between compiled calls and between the batches of an evaluation (`raise_if_requested`),
saves a checkpoint and lets `Preempted` end the process. Elsewhere there is nothing to save, and
`Preempted` is raised on the spot; only several processes that train together look at the flag there
too, because they have to end together. Python runs signal handlers between bytecodes of the main
thread only, which may compile for minutes: so a thread takes note of the signals, and after SIGTERM
it ends the process itself when the time is over. That loses nothing but the steps since the last
checkpoint.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: the same command again goes on
EXIT_CODE_INTERRUPTED = 130  # what a shell says of a process that SIGINT ended
GRACE_SECONDS = 25.0  # from SIGTERM to the end; clouds and clusters kill after 30

_SIGNALS = {signal.SIGTERM: EXIT_CODE, signal.SIGINT: EXIT_CODE_INTERRUPTED}

_requested = threading.Event()
_code = EXIT_CODE  # of the signal that came
_deferred = 0
_raised = False  # or about to be: what comes again must not disturb the end


class Preempted(SystemExit):
    """The process is to end, with the signal's code; no failure: `except Exception` lets it pass.

    Attributes:
      message: the line that `handled()` prints in the end; "" for none.
    """

    def __init__(self) -> None:
        super().__init__(_code)
        self.message = "interrupted; the same command resumes"

    def saved(self, step: int, tell: bool) -> None:
        """Notes at which step the state was saved, and whether this process tells it."""
        self.message = f"interrupted at step {step}; the same command resumes" if tell else ""


def requested() -> bool:
    """Whether this process has been asked to end."""
    return _requested.is_set()


def raise_if_requested() -> None:
    """Raises `Preempted` where this process, or another of the same run, has been asked to end.

    All processes of a run come here together.
    """
    from rkbench.trainer import distributed  # JAX loads only when it is needed

    global _raised
    if distributed.any_process(requested()):
        _raised = True
        raise Preempted


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Within it a request waits for `raise_if_requested`, so that a checkpoint can be saved."""
    global _deferred
    _deferred += 1
    try:
        yield
    finally:
        _deferred -= 1


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Within it the signals are requests. Does nothing outside the main thread: Python cannot.

    A signal that was ignored before, as Ctrl-C is by what a shell starts in the background, stays
    ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received, noted = socket.socketpair()
    noted.setblocking(False)  # as set_wakeup_fd demands
    wakeup = signal.set_wakeup_fd(noted.fileno(), warn_on_full_buffer=False)
    before = {
        number: signal.signal(number, _on_signal)
        for number in _SIGNALS
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    watcher = threading.Thread(target=_watch, args=(received,), name="preemption", daemon=True)
    watcher.start()
    try:
        yield
    except Preempted as request:
        if request.message:
            print(f"rkbench: {request.message}", file=sys.stderr, flush=True)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        noted.close()  # which ends the thread
        watcher.join()
        _forget()


def _forget() -> None:
    global _code, _raised
    _requested.clear()
    _code, _raised = EXIT_CODE, False


def _on_signal(number: int, frame: object) -> None:
    """Runs in the main thread. The interpreter has written the signal's number to `noted`."""
    global _raised
    del frame
    _note(number)
    if not _raised and not _deferred and not _is_one_of_several():
        _raised = True
        raise Preempted


def _is_one_of_several() -> bool:
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()


def _note(number: int) -> None:
    """Notes a request; the first decides the exit code."""
    global _code
    if not requested():
        _code = _SIGNALS[signal.Signals(number)]
        _requested.set()


def _watch(received: socket.socket) -> None:
    """Waits for the signals; from SIGTERM on the end of `handled()` must come in time."""
    timer = threading.Timer(GRACE_SECONDS, _end, (f"not done after {GRACE_SECONDS:g} s",))
    timer.daemon = True
    waiting = interrupted = False
    with received:
        while signals := received.recv(1):  # until the other end is closed
            if signals[0] not in _SIGNALS:
                continue
            _note(signals[0])
            if signals[0] == signal.SIGINT and interrupted:
                _end("interrupted a second time")
            interrupted |= signals[0] == signal.SIGINT
            if signals[0] == signal.SIGTERM and not waiting:
                waiting = True
                timer.start()
    timer.cancel()


def _end(why: str) -> None:
    print(
        f"rkbench: {why}; the same command resumes from the last checkpoint",
        file=sys.stderr,
        flush=True,
    )
    os._exit(_code)
