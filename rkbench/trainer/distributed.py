"""Several processes, one run: how they find each other, and how they agree.

JAX's own runtime does the work. Every process runs the same program on its own devices and reads
its own share of each batch; only the first writes logs and records, and all write checkpoints. What
a process decides by its clock, its files or a signal, it must decide as the others do, or they
would wait for each other: such decisions go through `from_primary` and `any_process`.
"""

import contextlib
import json
import os
import pathlib
import sys
import time
import zlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from rkbench import errors

# A process that has been silent for so long is taken for dead, and the others end.
HEARTBEAT_TIMEOUT_SECONDS = 60
# How long the processes wait for each other at the start and at the end.
START_TIMEOUT_SECONDS = 300
END_TIMEOUT_SECONDS = 30
# Network file systems may show what another machine wrote a while later.
SHARED_TIMEOUT_SECONDS = 30


def initialize(
    coordinator: str | None = None, processes: int | None = None, process_id: int | None = None
) -> None:
    """Joins the processes of a run. To be called before anything asks JAX for devices.

    Without arguments JAX finds the processes by its environment, as on TPU VMs, under SLURM and on
    GKE.

    Args:
      coordinator: HOST:PORT where the first process listens.
      processes: how many there are.
      process_id: which one this is, from 0.

    Raises:
      UserError: arguments that contradict each other, or no such environment.
    """
    given = (coordinator, processes, process_id)
    if any(value is not None for value in given) and None in given:
        raise errors.UserError(
            "--coordinator, --processes and --process_id belong together: "
            f"got {coordinator!r}, {processes!r}, {process_id!r}"
        )
    if coordinator is not None and not coordinator.rpartition(":")[2].isdecimal():
        raise errors.UserError(f"--coordinator={coordinator!r} must be HOST:PORT")
    if processes is not None and processes < 1:
        raise errors.UserError(f"--processes={processes} must be at least 1")
    if process_id is not None and not 0 <= process_id < (processes or 0):
        raise errors.UserError(f"--process_id={process_id} must lie from 0 to {processes} - 1")
    try:
        jax.distributed.initialize(
            coordinator,
            processes,
            process_id,
            initialization_timeout=START_TIMEOUT_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_SECONDS,
            shutdown_timeout_seconds=END_TIMEOUT_SECONDS,
        )
    except ValueError as error:
        raise errors.UserError(
            f"no cluster was found here ({error}); give --coordinator, --processes and --process_id"
        ) from error


def is_primary() -> bool:
    """Whether this is the process that writes logs and records."""
    return jax.process_index() == 0


def from_primary(value: Any) -> np.ndarray:
    """The first process's value in all of them; a number, a boolean or an array of fixed shape."""
    if jax.process_count() == 1:
        return np.asarray(value)
    return np.asarray(multihost_utils.broadcast_one_to_all(np.asarray(value)))


def plain_from_primary(content: Any) -> Any:
    """The first process's content, of what JSON can hold, in all of them."""
    if jax.process_count() == 1:
        return content
    text = np.frombuffer(json.dumps(content).encode(), np.uint8)
    sent = np.zeros(int(from_primary(len(text))), np.uint8)
    if is_primary():
        sent = text
    return json.loads(from_primary(sent).tobytes())


def any_process(flag: bool) -> bool:
    """Whether `flag` is true in some process."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


def check_shared(path: pathlib.Path) -> None:
    """Makes sure that every process sees the file that the first has just written.

    Raises:
      UserError: in all of them, where one does not within `SHARED_TIMEOUT_SECONDS`: they would wait
        for each other's checkpoints forever.
    """
    if jax.process_count() == 1:
        return
    wait_for_all(f"{path.name} is written")
    expected = from_primary(np.uint32(_checksum(path)))
    end = time.monotonic() + SHARED_TIMEOUT_SECONDS
    while (seen := _checksum(path)) != expected and time.monotonic() < end:
        time.sleep(0.2)
    if any_process(seen != expected):
        raise errors.UserError(
            f"{path.parent} is not one folder that all {jax.process_count()} processes see"
        )


def _checksum(path: pathlib.Path) -> int:
    return zlib.crc32(path.read_bytes()) if path.is_file() else 0


@contextlib.contextmanager
def failing_at_once() -> Iterator[None]:
    """Ends this process, if it is one of several, at the first exception.

    The ordinary end would wait for the others, and they wait for this one.
    """
    try:
        yield
    except Exception as error:
        if jax.process_count() == 1:
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        print(
            f"rkbench: error: process {jax.process_index()} of {jax.process_count()} ends: "
            f"{reason[:500]}",
            file=sys.stderr,
            flush=True,
        )
        if not isinstance(error, errors.UserError):
            print(
                "rkbench: maybe another process has ended; the same commands again resume",
                file=sys.stderr,
                flush=True,
            )
        os._exit(errors.exit_code(error))


def wait_for_all(where: str) -> None:
    """Returns when all processes have come to `where`."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(where)
