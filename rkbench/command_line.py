"""What all commands share: errors as one line and exit code 2, and flags that explain."""

import argparse
import contextlib
import os
import pathlib
import re
import runpy
import select
import sys
from collections.abc import Iterator
from typing import NoReturn

from absl import flags

import configs
from rkbench import errors

EXIT_USER_ERROR = 2
EXIT_IO_ERROR = 74  # EX_IOERR of sysexits.h: the disk is full, a folder has gone
EXIT_INTERRUPTED = 130  # what a shell says of a process that Ctrl-C ended
EXIT_BROKEN_PIPE = 141  # what a shell says of a process that SIGPIPE ended

_LONGEST_MESSAGE = 1000  # characters

_CONFIG = re.compile(r"(--?config=)([^:]+)(:.*)?", re.DOTALL)
_INSTALLED = pathlib.Path(configs.__file__).parent


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Turns a `UserError` into one line on stderr and exit code 2, an `OSError` into 74.

    Where nobody reads stdout any more, as after `| head`, the command ends without a word.
    """
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


def _nobody_reads() -> bool:
    """Whether stdout is a pipe without a reader; what is still to be written there is dropped."""
    stdout = sys.stdout.fileno()
    poll = select.poll()
    poll.register(stdout, 0)  # errors are told without being asked for
    gone = bool(poll.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout)
    return gone


def exit_code(error: Exception) -> int:
    """What a process ends with: 2 for bad input, 74 where a file failed, 1 for anything else."""
    if isinstance(error, errors.UserError):
        return EXIT_USER_ERROR
    return EXIT_IO_ERROR if isinstance(error, OSError) else 1


def _end(error: Exception) -> NoReturn:
    message = " ".join(str(error).split())
    if len(message) > _LONGEST_MESSAGE:
        message = f"{message[:_LONGEST_MESSAGE]} ..."
    print(f"rkbench: error: {message}", file=sys.stderr)
    sys.exit(exit_code(error))


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes are `UserError`s: one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        raise errors.UserError(message)


def folder_path(text: str) -> pathlib.Path:
    """The type of an argument that names a folder, which may have to be made."""
    path = _path(text)
    if os.path.lexists(path) and not path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is not a folder")
    return path


def output_path(text: str) -> pathlib.Path:
    """The type of an argument that names a file to be written, in a folder that is there."""
    path = _path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is not a file in an existing folder")
    return path


def _path(text: str) -> pathlib.Path:
    try:
        with contextlib.suppress(FileNotFoundError):
            os.stat(text)
        if not text:
            raise ValueError("it is empty")
    except (OSError, ValueError) as error:  # too long, below a file, with a null byte
        reason = getattr(error, "strerror", error)
        raise argparse.ArgumentTypeError(f"{text!r} cannot be a file's name: {reason}") from error
    return pathlib.Path(text)


def parse_flags(argv: list[str], values: flags.FlagValues = flags.FLAGS) -> list[str]:
    """Parses absl flags into `values`; what is left over comes back.

    Raises:
      UserError: an unknown flag or config field, or a value of the wrong type.
    """
    if "--config=" in argv or "-config=" in argv:
        raise errors.UserError("--config is empty: it names a file, as configs/mnist_mlp.py:rk4")
    try:
        return values([_find_config(argument) for argument in argv])
    except errors.UserError:
        raise
    except flags.UnrecognizedFlagError as error:
        raise errors.unknown("flag", error.flagname, values) from error
    except (
        Exception
    ) as error:  # config_flags wraps whatever a config file raises, with its traceback
        raise _explained(error, argv) from error


def _find_config(argument: str) -> str:
    """`--config=configs/x.py:variant`, with the installed file where there is none of that path."""
    match = _CONFIG.fullmatch(argument)
    if match is None:
        return argument
    flag, path, variant = match.groups()
    return f"{flag}{_config_file(path)}{variant or ''}"


def _config_file(path: str) -> pathlib.Path:
    return find_file("config", path, "configs", "[a-z]*_*.py")


def find_file(kind: str, path: str, folder: str, pattern: str) -> pathlib.Path:
    """The file of that path, else the one of that name installed in `folder`, below configs.

    Raises:
      UserError: there is neither; it lists the files in `folder` that match `pattern`.
    """
    here = pathlib.Path(path)
    installed = _INSTALLED.parent / folder
    if os.path.isfile(here):  # False also where the name is too long
        return here
    file = installed / f"{here.stem}.py"
    if here.parent in (pathlib.Path(), pathlib.Path(folder)) and file.is_file():
        return file
    valid = [f"{folder}/{file.name}" for file in sorted(installed.glob(pattern))]
    raise errors.unknown(kind, path, valid)


def with_variant(argv: list[str], optimizer: str) -> list[str]:
    """The command line with another optimizer as the first word of the config's variant."""

    def replaced(argument: str) -> str:
        match = _CONFIG.fullmatch(argument)
        if match is None:
            return argument
        flag, path, variant = match.groups()
        _, comma, words = (variant or "").partition(",")
        return f"{flag}{path}:{optimizer}{comma}{words}"

    return [replaced(argument) for argument in argv]


def _explained(error: Exception, argv: list[str]) -> errors.UserError:
    """The one line that says which field or value was wrong."""
    return _unknown_field(argv) or errors.UserError(_last_line(str(error)))


def _unknown_field(argv: list[str]) -> errors.UserError | None:
    """The first override of a field that the config does not have."""
    given = [match for match in map(_CONFIG.fullmatch, argv) if match]
    if not given:
        return None
    _, path, variant = given[-1].groups()
    try:
        get_config = runpy.run_path(str(_config_file(path)))["get_config"]
        fields = _field_names(get_config(variant[1:]) if variant else get_config())
    except Exception:
        return None  # the file or the variant is what is wrong, and the first error says how
    for argument in argv:
        override = re.fullmatch(r"--?config\.([^=]+)(=.*)?", argument)
        if override and override[1] not in fields:
            return errors.unknown("config field", override[1], fields)
    return None


def _field_names(config, prefix: str = "") -> list[str]:
    names = []
    for name, value in config.items():
        names.append(prefix + name)
        if hasattr(value, "items"):
            names += _field_names(value, f"{prefix}{name}.")
    return names


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    last = lines[-1] if lines else "the command line could not be read"
    return re.sub(r"^[\w.]*(Error|Exception): ", "", last)
