"""Commands of other programs: as data, run, or shown."""

import dataclasses
import pathlib
import shlex
import subprocess

from rkbench.errors import UserError


class CommandError(Exception):
    """A command that failed; the message is its last line on stderr, `output` all of it."""

    def __init__(self, command: "Command", output: str, code: int):
        lines = [line.strip() for line in output.splitlines() if line.strip()]
        reason = lines[-1] if lines else f"exit code {code}"
        super().__init__(f"{' '.join(command.arguments[:4])} ...: {reason}")
        self.output = output


@dataclasses.dataclass(frozen=True)
class Command:
    """Arguments (no shell ever splits them), standard input, and the folder it is run in."""

    arguments: tuple[str, ...]
    stdin: str = ""
    folder: pathlib.Path | None = None

    def run(self, timeout: float = 900) -> str:
        """Its standard output.

        Raises:
          CommandError: it fails or takes longer than `timeout` seconds.
          UserError: there is no such program.
        """
        try:
            done = subprocess.run(
                self.arguments,
                input=self.stdin,
                cwd=self.folder,
                capture_output=True,
                text=True,
                timeout=timeout,
                start_new_session=True,  # Ctrl-C is for the launcher, which tidies up
            )
        except FileNotFoundError as error:
            raise UserError(f"{self.arguments[0]} is not installed (not on the PATH)") from error
        except subprocess.TimeoutExpired as error:
            raise CommandError(self, f"no answer within {timeout:.0f} s", -1) from error
        if done.returncode:
            raise CommandError(self, done.stderr, done.returncode)
        return done.stdout

    def __str__(self) -> str:
        line = f"$ {shlex.join(self.arguments)}"
        return f"{line} <<'END'\n{self.stdin.rstrip()}\nEND" if self.stdin else line
