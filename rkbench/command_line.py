"""What all commands share: errors as one line and exit code 2, and flags that explain."""

import argparse
import contextlib
import os
import pathlib
import re
import runpy
import sys
from collections.abc import Iterator
from typing import NoReturn

from absl import flags

from rkbench import errors

EXIT_USER_ERROR = 2
EXIT_IO_ERROR = 74  # EX_IOERR of sysexits.h: the disk is full, a folder has gone

_LONGEST_MESSAGE = 1000  # characters

_CONFIG = re.compile(r"(--?config=)([^:]+)(:.*)?", re.DOTALL)


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Turns a `UserError` into one line on stderr and exit code 2, an `OSError` into 74."""
    try:
        yield
    except errors.UserError as error:
        _end(error, EXIT_USER_ERROR)
    except OSError as error:
        _end(error, EXIT_IO_ERROR)


def _end(error: Exception, code: int) -> NoReturn:
    message = " ".join(str(error).split())
    if len(message) > _LONGEST_MESSAGE:
        message = f"{message[:_LONGEST_MESSAGE]} ..."
    print(f"rkbench: error: {message}", file=sys.stderr)
    sys.exit(code)


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


def parse_flags(argv: list[str]) -> list[str]:
    """Parses absl flags; what is left over comes back.

    Raises:
      UserError: an unknown flag or config field, or a value of the wrong type.
    """
    if "--config=" in argv or "-config=" in argv:
        raise errors.UserError("--config is empty: it names a file, as configs/mnist_mlp.py:rk4")
    try:
        return flags.FLAGS([_find_config(argument) for argument in argv])
    except errors.UserError:
        raise
    except flags.UnrecognizedFlagError as error:
        raise errors.unknown("flag", error.flagname, flags.FLAGS) from error
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
    file = _config_file(path)
    return f"{flag}{file}{variant or ''}"


def _config_file(path: str) -> pathlib.Path:
    import configs

    here = pathlib.Path(path)
    folder = pathlib.Path(configs.__file__).parent
    installed = folder / f"{here.stem}.py"
    if os.path.isfile(here):  # False also where the name is too long
        return here
    if here.parent in (pathlib.Path(), pathlib.Path("configs")) and installed.is_file():
        return installed
    valid = [f"configs/{file.name}" for file in sorted(folder.glob("[a-z]*_*.py"))]
    raise errors.unknown("config", path, valid)


def _explained(error: Exception, argv: list[str]) -> errors.UserError:
    """The one line that says which field or value was wrong."""
    return _unknown_field(argv) or errors.UserError(_last_line(str(error)))


def _unknown_field(argv: list[str]) -> errors.UserError | None:
    """The first override of a field that the config does not have."""
    configs = [match for match in map(_CONFIG.fullmatch, argv) if match]
    if not configs:
        return None
    _, path, variant = configs[-1].groups()
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
