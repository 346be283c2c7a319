"""Checks of numbers that users give; a traced number has no value yet and is let through.

Tableaus and configs are read without JAX, so it is imported only where something is checked.
"""

from collections.abc import Callable
from typing import Any

from rkbench.errors import UserError

LARGEST = (2 - 2**-23) * 2.0**127  # of float32: more is infinite on the device

Range = tuple[str, Callable[[float], bool]]

FINITE: Range = ("a finite number", lambda x: True)
NON_NEGATIVE: Range = ("a finite number >= 0", lambda x: x >= 0)
POSITIVE: Range = ("a finite number > 0", lambda x: x > 0)
DECAY: Range = ("a number in [0, 1)", lambda x: 0 <= x < 1)
HALF_OPEN_UNIT: Range = ("a number in (0, 1]", lambda x: 0 < x <= 1)


def is_traced(value: Any) -> bool:
    """Whether `value` is known only inside a compiled function."""
    from jax.core import Tracer

    return isinstance(value, Tracer)


def is_any_traced(tree: Any) -> bool:
    """Whether any leaf of a pytree is."""
    import jax

    return any(map(is_traced, jax.tree.leaves(tree)))


def check_number(name: str, value: Any, valid: Range) -> None:
    """Raises `UserError` naming `name` unless `value` is a finite scalar in the range `valid`."""
    import numpy as np

    if is_traced(value):
        return
    requirement, within = valid
    error = UserError(f"{name} must be {requirement}, not {value!r}")
    if isinstance(value, (str, bool)) or np.ndim(value) != 0:
        raise error
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise error from None
    if not (abs(number) <= LARGEST and within(number)):  # false for NaN
        raise error
