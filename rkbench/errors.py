"""Mistakes of the user's: one clear line on stderr and exit code 2, never a traceback."""

import difflib
from collections.abc import Iterable

from rkbench.texts import printable

EXIT_USER_ERROR = 2
EXIT_IO_ERROR = 74  # EX_IOERR of sysexits.h: the disk is full, a folder has gone


class UserError(ValueError):
    """A mistake in what the user gave (a name, a value, a folder); the message is one line."""

    def __str__(self) -> str:
        return printable(super().__str__())


def nearest(name: str, valid: Iterable[str], limit: int = 5) -> list[str]:
    """The `limit` names of `valid` most like `name`, the most alike first."""

    def likeness(candidate: str) -> float:
        return difflib.SequenceMatcher(None, str(name).lower(), candidate.lower()).ratio()

    return sorted(valid, key=likeness, reverse=True)[:limit]


def unknown(kind: str, name: object, valid: Iterable[str]) -> UserError:
    """The error for a name that is not among the `valid` ones, which it lists, nearest first."""
    candidates = nearest(str(name), valid)
    if not candidates:
        return UserError(f"unknown {kind} {name!r}: there are none")
    return UserError(f"unknown {kind} {name!r}; nearest: {', '.join(candidates)}")


def because(what: str, error: Exception) -> UserError:
    """The error for what an operating system call refused: "what: reason", in the system's words.

    `error` is an OSError, or a ValueError for a path that cannot be one (with a null byte).
    """
    return UserError(f"{what}: {getattr(error, 'strerror', None) or error}")


def exit_code(error: Exception) -> int:
    """What a process ends with: 2 for bad input, 74 where a file failed, 1 for anything else."""
    if isinstance(error, UserError):
        return EXIT_USER_ERROR
    return EXIT_IO_ERROR if isinstance(error, OSError) else 1
