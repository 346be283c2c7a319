"""What all commands share: errors as one line and exit code 2, and flags that explain."""

import argparse
import contextlib
import io
import math
import os
import pathlib
import re
import select
import sys
import textwrap
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any, NoReturn

from absl import flags, logging

from rkbench import errors, paths
from rkbench.commands import config_flag

EXIT_INTERRUPTED = 130  # what a shell says of a process that Ctrl-C ended
EXIT_BROKEN_PIPE = 141  # what a shell says of a process that SIGPIPE ended

_LONGEST_MESSAGE = 1000  # characters


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Turns a `UserError` into one line on stderr and exit code 2, an `OSError` into 74.

    Where nobody reads stdout any more, as after `| head`, the command ends without a word. That a
    stream is closed or knows only ASCII is no error, nor is a drawing backend for notebooks.
    """
    _open_streams()
    os.environ["MPLBACKEND"] = "agg"  # files are all that is drawn; Matplotlib refuses some others
    try:
        try:
            yield
        except SystemExit:  # as --help ends
            sys.stdout.flush()
            raise
        sys.stdout.flush()
    except KeyboardInterrupt:  # where nothing is trained that could be saved
        print("rkbench: interrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    except (errors.UserError, OSError) as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            sys.exit(EXIT_BROKEN_PIPE)
        _end(error)


def _open_streams() -> None:
    """Opens what is closed of the standard streams, and lets the others print any text.

    Else the next files that are opened would take the numbers 1 and 2, and get what libraries
    print.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:  # the lowest number that is free
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _nobody_reads() -> bool:
    """Whether stdout is a pipe without a reader; what is still to be written there is dropped."""
    stdout = sys.stdout.fileno()
    poll = select.poll()
    poll.register(stdout, 0)  # errors are told without being asked for
    gone = bool(poll.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout)
    return gone


def _end(error: Exception) -> NoReturn:
    message = " ".join(str(error).split())
    if len(message) > _LONGEST_MESSAGE:
        message = f"{message[:_LONGEST_MESSAGE]} ..."
    print(f"rkbench: error: {message}", file=sys.stderr)
    sys.exit(errors.exit_code(error))


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes are `UserError`s: one line, without the usage.

    Its flags have underscores, as absl's and the fields of configs; `--draw-only` is `--draw_only`.
    """

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        given = sys.argv[1:] if args is None else args
        return super().parse_known_args(spelled(given, self._option_string_actions), namespace)

    def error(self, message: str) -> NoReturn:
        raise errors.UserError(message)


def spelled(arguments: Iterable[str], names: Container[str], prefix: str = "") -> list[str]:
    """The arguments, in which a flag with dashes stands as the one with underscores.

    Args:
      arguments: of a command line; what comes after `--` stays.
      names: of the flags there are.
      prefix: what the names lack of "--".
    """
    found, flags_end = [], False
    for argument in arguments:
        flags_end = flags_end or argument == "--"
        flag, equals, value = argument.partition("=")
        own = f"--{flag[2:].replace('-', '_')}"
        is_flag = not flags_end and flag.startswith("--") and own.removeprefix(prefix) in names
        found.append(f"{own}{equals}{value}" if is_flag else argument)
    return found


def folder_path(text: str) -> pathlib.Path:
    """The type of an argument that names a folder, which may have to be made."""
    path = _path(text)
    if os.path.lexists(path) and not path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is not a folder")
    return path


def file_path(text: str) -> pathlib.Path:
    """The type of an argument that names a file to be written, whose folder may have to be made."""
    path = _path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a folder")
    return path


def output_path(text: str) -> pathlib.Path:
    """The type of an argument that names a file to be written, in a folder that is there."""
    path = file_path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is not a file in an existing folder")
    return path


def _path(text: str) -> pathlib.Path:
    try:
        path = paths.local(text)
        with contextlib.suppress(FileNotFoundError):
            os.stat(path)
    except errors.UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    except OSError as error:  # too long, below a file
        reason = f"{text!r} cannot be a file's name: {error.strerror}"
        raise argparse.ArgumentTypeError(reason) from error
    return path


class _HelpFlag(flags.BooleanFlag):
    """Prints the help and ends the process, where it stands on the command line."""

    def __init__(self, values: flags.FlagValues, module: str, about: str | None):
        self._values, self._module, self._about = values, module, about
        super().__init__("help", False, "Show this", short_name="h")

    def parse(self, argument: Any) -> None:
        super().parse(argument)
        if self.value:
            own = self._values.module_help(self._module).partition(":\n")[2]
            absls = flags.FLAGS.flags_by_module_dict().get("absl.logging", [])
            inherited = sorted(f"--{name}" for name in ("flagfile", *(f.name for f in absls)))
            more = textwrap.fill(f"absl's own: {', '.join(inherited)}", break_on_hyphens=False)
            print(f"{self._about}\nflags:\n{own}\n\n{more}")
            sys.exit(0)


def flag_values(module: str) -> flags.FlagValues:
    """`--config`, `--help` and absl's own flags, as those of logging, for a module's command.

    Further flags are defined in the module itself. Every call has values of its own, but for absl's
    flags, which belong to the process.
    """
    values, about = flags.FlagValues(), sys.modules[module].__doc__
    module = sys.argv[0] if module == "__main__" else module  # as absl names it
    config_flag.define(values, module)
    flags.DEFINE_flag(_HelpFlag(values, module, about), values, module)
    for owner in ("absl.logging", "absl.app"):
        for flag in flags.FLAGS.flags_by_module_dict().get(owner, []):
            if flag.name not in values:
                values[flag.name] = flag
    return values


def parse_flags(argv: list[str], values: flags.FlagValues) -> None:
    """Parses a command line with the program's name first into `flag_values`.

    Raises:
      UserError: an unknown flag or config field, a value of the wrong type, or what is no flag.
    """
    try:
        # Here rather than by absl, which looks for flag files up to the first `--flag value` only.
        arguments = values.read_flags_from_files(argv[1:], force_gnu=True)
        arguments = spelled(arguments, values, "--")
        rest = values([argv[0], *arguments])[1:]
    except errors.UserError:
        raise
    except flags.UnrecognizedFlagError as error:
        raise config_flag.unknown_flag(error.flagname, values) from error
    except (flags.Error, ValueError) as error:
        raise errors.UserError(_last_line(str(error))) from error
    if rest:
        raise errors.UserError(
            f"unexpected argument {rest[0]!r}; overrides are --config.FIELD=VALUE"
        )
    flags.FLAGS.mark_as_parsed()  # for libraries that look at absl's own
    if not values["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # JAX, TFDS and Orbax narrate at INFO


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    last = lines[-1] if lines else "the command line could not be read"
    return re.sub(r"^(ERROR:: |[\w.]*(Error|Exception): )", "", last)


def targets(text: str) -> Mapping[str, float] | float:
    """What --target says: one number for all, or {task or workload: number}."""
    try:
        if "=" not in text:
            return _finite(text)
        pairs = (part.rsplit("=", 1) for part in text.split(","))
        return {name.strip(): _finite(number) for name, number in pairs}
    except ValueError as error:
        raise errors.UserError(
            f"--target={text}: a number, or task=number,... is needed"
        ) from error


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not finite")
    return number
