"""What a search space is made of.

A space is a file with `get_config()`, which returns {optimizer: {field of the config:
distribution}}; the optimizer "*" stands for all that are not named. For instance

    def get_config():
        return {
            "adam": {"optimizer.learning_rate": LogUniform(1e-5, 1e-1)},
            "*": {"optimizer.learning_rate": LogUniform(1e-3, 10.0), "l2": Choice((0.0, 5e-4))},
        }
"""

from typing import Any, NamedTuple


class LogUniform(NamedTuple):
    """A number between `low` and `high`, both > 0, with a uniform logarithm."""

    low: float
    high: float


class Uniform(NamedTuple):
    """A number between `low` and `high`."""

    low: float
    high: float


class Choice(NamedTuple):
    """One of these values."""

    values: tuple[Any, ...]


class Fixed(NamedTuple):
    """This value instead of the preset's."""

    value: Any
