"""SIGTERM, by which batch systems and preemptible machines end a process: save and exit with 75.

Within `handled()` the signal sets a flag. The trainer looks at it between compiled calls and
between the batches of an evaluation (`raise_if_requested`), saves a checkpoint and lets `Preempted`
end the process. Python runs signal handlers between bytecodes of the main thread only, which may
compile for minutes: so a thread takes note of the signal, and it ends the process itself when the
time is over. That loses nothing but the steps since the last checkpoint.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: the same command again goes on
GRACE_SECONDS = 25.0  # from the signal to the end; clouds and clusters kill after 30

_requested = threading.Event()


class Preempted(SystemExit):
    """The process is to end, with `EXIT_CODE`; no failure, so `except Exception` lets it pass."""

    def __init__(self) -> None:
        super().__init__(EXIT_CODE)


def requested() -> bool:
    """Whether this process has been asked to end."""
    return _requested.is_set()


def raise_if_requested() -> None:
    """Raises `Preempted` where this process, or another of the same run, has been asked to end.

    All processes of a run come here together.
    """
    from rkbench import distributed  # JAX loads only when it is needed

    if distributed.any_process(requested()):
        raise Preempted


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Within it SIGTERM is a request. Does nothing outside the main thread, where Python cannot."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received, noted = socket.socketpair()
    noted.setblocking(False)  # as set_wakeup_fd demands
    wakeup = signal.set_wakeup_fd(noted.fileno(), warn_on_full_buffer=False)
    handler = signal.signal(signal.SIGTERM, lambda *_: None)  # the interpreter writes to `noted`
    threading.Thread(target=_watch, args=(received,), name="preemption", daemon=True).start()
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
        signal.set_wakeup_fd(wakeup)
        noted.close()
        _requested.clear()


def _watch(received: socket.socket) -> None:
    """Waits for the signal; from then on the end of `handled()` must come in time."""
    timer = threading.Timer(GRACE_SECONDS, _end)
    timer.daemon = True
    with received:
        while signals := received.recv(1):  # until the other end is closed
            if signals[0] == signal.SIGTERM and not requested():
                _requested.set()
                timer.start()
    timer.cancel()


def _end() -> None:
    print(
        f"rkbench: SIGTERM: not done after {GRACE_SECONDS:g} s; the next start goes on from the "
        "last checkpoint",
        file=sys.stderr,
        flush=True,
    )
    os._exit(EXIT_CODE)
