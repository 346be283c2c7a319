"""What all commands share: errors as one line and exit code 2, and flags that explain."""

import contextlib
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
    print(f"rkbench: error: {' '.join(str(error).split())}", file=sys.stderr)
    sys.exit(code)


def parse_flags(argv: list[str]) -> list[str]:
    """Parses absl flags; what is left over comes back.

    Raises:
      UserError: an unknown flag or config field, or a value of the wrong type.
    """
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
    if here.is_file():
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
    get_config = runpy.run_path(str(_config_file(path)))["get_config"]
    try:
        fields = _field_names(get_config(variant[1:]) if variant else get_config())
    except ValueError:
        return None  # the variant is what is wrong, and the first error says how
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
