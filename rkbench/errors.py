"""Mistakes of the user's: one clear line on stderr and exit code 2, never a traceback."""

import difflib
from collections.abc import Iterable

from rkbench.records.texts import printable


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
