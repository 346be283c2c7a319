"""What is said of a field of a config: its default, what it may be, and what it is for."""

import dataclasses
import enum
from typing import Any

from rkbench.rk.checks import LARGEST

MOST = 2**31 - 1  # the device counts in int32


class Role(enum.Enum):
    """What a field is for: by it runs are told apart, averaged and compared."""

    TASK = enum.auto()  # what is learned from what: runs that differ in it are not compared
    METHOD = enum.auto()  # what a method may choose, and a sweep may search
    RUN = enum.auto()  # how long a run is, what it reports and how it is executed
    # Where the data lies and who prepares it, how a run is reported, in which pieces it is
    # evaluated, over which devices it is spread (rounding of sums) and which other seeds there are:
    # what a seed learns depends on none of these, and so does the config's hash.
    AROUND = enum.auto()


PRESET = object()  # the default of a field that has none: the preset sets it


@dataclasses.dataclass(frozen=True)
class Field:
    """A field of a config.

    Attributes:
      default: its neutral value; {} for a group of fields that the preset sets, `PRESET` for one of
        them that every preset sets.
      role: what it is for.
      least: of a number, 0 by default.
      most: of a number; by default what the device holds.
      choices: of a name, where they are few and stand nowhere else.
      kind: the type of its values, where the default does not tell.
      compiled: whether compiled programs depend on it; False where it is data to them, or unseen.
      newer: the field is younger than the first published records, and its default changes nothing:
        with that it is left out of the config's hash.
    """

    default: Any
    role: Role = Role.TASK
    least: float = 0
    most: float | None = None
    choices: tuple[str, ...] | None = None
    kind: type | None = None
    compiled: bool = True
    newer: bool = False

    @property
    def limits(self) -> tuple[float, float] | None:
        """(least, most) of a number; None for any other field."""
        largest = {int: MOST, float: LARGEST}.get(self.kind or type(self.default))
        most = largest if self.most is None else self.most
        return None if most is None else (self.least, most)
