"""Search spaces: loaded from a file, checked against a config."""

import math
import pathlib
from collections.abc import Mapping
from typing import Any, TypeGuard

from rkbench import errors
from rkbench.configs import default
from rkbench.configs.fields import Role
from rkbench.configs.sweeps.distributions import Choice, Fixed, LogUniform, Uniform
from rkbench.plugins import project
from rkbench.scoring.collect import flat

Range = LogUniform | Uniform
Distribution = Range | Choice | Fixed
Space = Mapping[str, Distribution]
"""{field of the config, as "optimizer.learning_rate": its distribution}."""

ANY = "*"
EXTENSION = 10.0  # by which a logarithmic range is extended; a linear one by half of its width


def load(path: pathlib.Path) -> Mapping[str, Space]:
    """{optimizer: its space} as the file's `get_config()` says. The file is code: trust it.

    Raises:
      UserError: the file fails, has no `get_config`, or returns something else or nothing.
    """
    try:
        get_config = project.run(path)["get_config"]
    except KeyError as error:
        raise errors.UserError(f"{path} has no get_config()") from error
    except Exception as error:  # whatever the user's code raises
        raise errors.UserError(f"{path}: {type(error).__name__}: {error}") from error
    spaces = get_config()
    if not hasattr(spaces, "items") or not spaces:
        raise errors.UserError(f"{path}: the search space is empty")
    for optimizer, space in spaces.items():
        if not hasattr(space, "items") or not space:
            raise errors.UserError(f"{path}: the search space of {optimizer!r} is empty")
    return {name: dict(space.items()) for name, space in spaces.items()}


def of_optimizer(spaces: Mapping[str, Space], config: Any) -> Space:
    """The space of the config's optimizer, checked.

    Raises:
      UserError: there is none, a range is empty, a field does not exist or cannot be tuned.
    """
    name = config.optimizer.name
    if name not in spaces and ANY not in spaces:
        raise errors.unknown("optimizer of the search space", name, spaces)
    space = spaces.get(name, spaces.get(ANY, {}))
    for field, distribution in space.items():
        _check_field(field, config)
        _check_distribution(field, distribution)
    if all(isinstance(distribution, Fixed) for distribution in space.values()):
        raise errors.UserError(f"the search space of {name!r} fixes every field: nothing to tune")
    return space


def _check_field(field: str, config: Any) -> None:
    fields = flat(config.to_dict())
    of_method = default.names(role=Role.METHOD)
    tunable = [f for f in fields if f.split(".")[0] in of_method and f != "optimizer.name"]
    if field in tunable:
        return
    if field not in fields:
        raise errors.unknown("config field in the search space", field, tunable)
    raise errors.UserError(
        f"{field} cannot be tuned: it is part of the task, the budget or the protocol, which are "
        f"equal for all; what can: {', '.join(tunable)}"
    )


def _check_distribution(field: str, distribution: Any) -> None:
    match distribution:
        case LogUniform(low, high) | Uniform(low, high):
            for number in (low, high):
                if isinstance(number, bool) or not isinstance(number, int | float):
                    raise errors.UserError(f"{field}: {number!r} in {distribution} is not a number")
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise errors.UserError(f"{field}: {distribution} is empty: low < high is needed")
            if isinstance(distribution, LogUniform) and low <= 0:
                raise errors.UserError(f"{field}: {distribution} needs low > 0")
        case Choice(values):
            if not isinstance(values, tuple | list) or not values:
                raise errors.UserError(f"{field}: {distribution} has nothing to choose from")
            if len({repr(value) for value in values}) < len(values):
                raise errors.UserError(f"{field}: {distribution} names a value twice")
        case Fixed():
            pass
        case _:
            raise errors.UserError(
                f"{field}: {distribution!r} is not a distribution; there are "
                "LogUniform(low, high), Uniform(low, high), Choice(values) and Fixed(value)"
            )


def is_range(distribution: Distribution) -> TypeGuard[Range]:
    """Whether it has a lowest and a highest value."""
    return isinstance(distribution, Range)


def value_at(distribution: Distribution, u: float) -> Any:
    """The value at u in [0, 1], the share of the distribution below it; ranges to 6 digits."""
    match distribution:
        case LogUniform(low, high):
            return float(f"{low * (high / low) ** u:.6g}")
        case Uniform(low, high):
            return float(f"{low + (high - low) * u:.6g}")
        case Choice(values):
            return values[min(int(u * len(values)), len(values) - 1)]
        case Fixed(value):
            return value


def extended(distribution: Range, upwards: bool) -> Range:
    """A range that goes on beyond its highest value, or below its lowest."""
    match distribution:
        case LogUniform(low, high):
            ends = (low, high * EXTENSION) if upwards else (low / EXTENSION, high)
            return LogUniform(*(float(f"{end:.6g}") for end in ends))
        case Uniform(low, high):
            more = (high - low) / 2
            return Uniform(low, high + more) if upwards else Uniform(low - more, high)
