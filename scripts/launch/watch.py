"""A machine for each run: starts it, looks after it, starts it again, and deletes it in the end.

Everything that has to outlive the launcher is in the bucket or with the cloud. Started again, it
passes over runs that are finished and takes over machines that are there.
"""

import concurrent.futures
import dataclasses
import enum
import pathlib
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from rkbench.errors import UserError
from scripts.launch.bucket import Bucket, read_json
from scripts.launch.jobs import Job
from scripts.launch.shell import Command, CommandError

EXIT_BAD_INPUT = 2
EXIT_AGAIN = 75  # EX_TEMPFAIL: the state is saved, and the same command goes on


class State(enum.Enum):
    """What a cloud says of a run's machine."""

    ABSENT = "is not there"
    WAITING = "waits for a machine"
    RUNNING = "runs"
    PREEMPTED = "was taken away"
    FAILED = "failed"
    DONE = "is done"


class Place(Protocol):
    """A kind of machine, as `TPU` and `GKE` describe it."""

    @property
    def bucket(self) -> Bucket: ...
    @property
    def restarts(self) -> bool: ...

    def files(self, job: Job) -> dict[str, bytes]: ...
    def start(self, job: Job, folder: pathlib.Path) -> list[Command]: ...
    def describe(self, job: Job) -> Command: ...
    def look(self, job: Job) -> State: ...
    def delete(self, job: Job) -> Command: ...


@dataclasses.dataclass(frozen=True)
class Limits:
    """When to give up, and how often to look.

    Attributes:
      at_once: machines side by side.
      attempts: failures after which a run is given up.
      preemptions: how often a machine may be taken away.
      poll_seconds: between two looks.
      silent_seconds: a machine that reports nothing for so long has failed.
    """

    at_once: int = 4
    attempts: int = 3
    preemptions: int = 100
    poll_seconds: float = 30
    silent_seconds: float = 1800


class Stopped(Exception):
    """The launcher was told to stop."""


class _Preempted(Exception):
    """The machine is no more, and the run is to go on on another."""


class _Failed(Exception):
    """The attempt failed; another may not."""


class _Hopeless(Exception):
    """No further attempt is to be made."""


def run_all(
    jobs: Sequence[Job],
    place: Place,
    limits: Limits,
    say: Callable[[str], None],
    stop: threading.Event,
) -> dict[str, str]:
    """Sees all jobs through; returns {name: why} of those that are not finished."""

    def see_through(job: Job) -> str | None:
        if stop.is_set():
            return "stopped"
        watch = _Watch(job, place, limits, lambda text: say(f"{job.name}: {text}"), stop)
        try:
            return watch.see_through()
        except Stopped:
            return "stopped"
        except (CommandError, UserError) as error:
            return str(error)

    with concurrent.futures.ThreadPoolExecutor(limits.at_once) as pool:
        ends = list(pool.map(see_through, jobs))
    return {job.name: end for job, end in zip(jobs, ends, strict=True) if end is not None}


class _Watch:
    """One run."""

    def __init__(
        self,
        job: Job,
        place: Place,
        limits: Limits,
        say: Callable[[str], None],
        stop: threading.Event,
    ):
        self._job, self._place, self._limits = job, place, limits
        self._say, self._stop = say, stop
        self._failures = self._preemptions = 0

    def see_through(self) -> str | None:
        """Why the run is not finished; None where it is."""
        while not self._is_finished():
            try:
                self._attempt()
            except _Hopeless as problem:
                return str(problem)
            except _Preempted as event:
                self._preemptions += 1
                self._say(f"{event}; starting again (preemption {self._preemptions})")
                if self._preemptions >= self._limits.preemptions:
                    return f"given up after {self._preemptions} preemptions"
            except _Failed as problem:
                self._failures += 1
                self._say(f"attempt {self._failures} of {self._limits.attempts} failed: {problem}")
                if self._failures >= self._limits.attempts:
                    return f"given up: {problem}"
                self._sleep(2**self._failures)
        return None

    def _is_finished(self) -> bool:
        record = self._patiently(lambda: read_json(self._place.bucket.record(self._job)))
        if not self._job.is_finished(record):
            return False
        self._say(f"finished: {record['status']}")
        return True

    def _attempt(self) -> None:
        """Returns when the run has ended well; the machine is gone then, however it ended."""
        state = self._patiently(lambda: self._place.look(self._job))
        if state in (State.PREEMPTED, State.FAILED, State.DONE):  # left behind by another launcher
            self._delete()
            state = State.ABSENT
        stays = False
        try:
            if state is State.ABSENT:
                self._start()
            else:
                self._say(f"taking over a machine that {state.value}")
            self._look_after()
        except Stopped:
            stays = self._place.restarts
            self._say("goes on by itself" if stays else "stopped")
            raise
        finally:
            if not stays:
                self._delete()

    def _start(self) -> None:
        try:
            with tempfile.TemporaryDirectory(prefix="rkbench-launch-") as folder:
                for name, content in self._place.files(self._job).items():
                    (pathlib.Path(folder) / name).write_bytes(content)
                for command in self._place.start(self._job, pathlib.Path(folder)):
                    command.run()
        except CommandError as error:
            raise _Failed(str(error)) from error
        self._say("machine asked for")

    def _look_after(self) -> None:
        """Returns when the run has ended well."""
        last, heard, seen = None, time.monotonic(), None
        while True:
            self._sleep()
            state, status = self._look(), self._status()
            if state not in (last, None):
                self._say(state.value)
                last = state
            code = status.get("exit")
            if state is State.DONE:
                code = 0
            if state is State.DONE or (code is not None and not self._place.restarts):
                return self._judge(code, state)
            if state is State.PREEMPTED:
                raise _Preempted("the machine was taken away")
            if state is State.FAILED and self._place.restarts:
                raise _Hopeless(self._words(code))
            if state in (State.FAILED, State.ABSENT):
                raise _Failed(f"the machine {state.value}")
            if status != seen or state is State.WAITING:
                seen, heard = status, time.monotonic()
            elif time.monotonic() - heard > self._limits.silent_seconds:
                raise _Failed(f"no report for {self._limits.silent_seconds:.0f} s")

    def _look(self) -> State | None:
        """The state; None where the cloud cannot say now."""
        try:
            return self._place.look(self._job)
        except CommandError as error:
            self._say(str(error))
            return None

    def _status(self) -> dict[str, Any]:
        """The machine's latest report; {} where there is none or the bucket does not answer."""
        try:
            status = read_json(self._place.bucket.status(self._job))
        except CommandError:
            return {}
        return status if isinstance(status, dict) else {}

    def _judge(self, code: Any, state: State | None) -> None:
        """Raises what the exit code of a run that is over means."""
        if code == EXIT_BAD_INPUT:
            raise _Hopeless(self._words(code))
        if code == EXIT_AGAIN:
            raise _Preempted("the run was told to stop, and has saved")
        if code:
            # One host that is taken away ends the run on the others, before the cloud says so.
            if state is not State.PREEMPTED:
                self._sleep()
                state = self._look()
            if state is State.PREEMPTED:
                raise _Preempted("the machine was taken away")
            raise _Failed(self._words(code))
        record = self._patiently(lambda: read_json(self._place.bucket.record(self._job)))
        if not self._job.is_finished(record):
            raise _Failed("the run ended well, but the bucket has no record of a finished run")

    def _words(self, code: int | None) -> str:
        kind = "bad input, not tried again" if code == EXIT_BAD_INPUT else "failed"
        logs = f"{self._place.bucket.launch(self._job)}/logs/"
        return f"{kind} (exit code {code}); what it printed: {logs}"

    def _delete(self) -> None:
        """Deletes the machine; says loudly where that does not succeed: it costs money."""
        command = self._place.delete(self._job)
        for attempt in range(1, 6):
            try:
                command.run()
            except CommandError as error:
                if "NOT_FOUND" in error.output:
                    return
                self._say(f"not deleted: {error}")
                time.sleep(self._limits.poll_seconds * attempt)  # even when told to stop
            else:
                self._say("machine deleted")
                return
        raise UserError(f"THE MACHINE IS STILL THERE and may cost money; delete it: {command}")

    def _patiently(self, ask: Callable[[], Any]) -> Any:
        """The answer, asking again where the bucket does not answer."""
        for attempt in range(1, 5):
            try:
                return ask()
            except CommandError as error:
                self._say(str(error))
                self._sleep(attempt)
        return ask()

    def _sleep(self, times: float = 1) -> None:
        if self._stop.wait(self._limits.poll_seconds * times):
            raise Stopped
