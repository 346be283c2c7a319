"""Whether each field of a config is what `configs/default.py` says, before anything is made."""

from typing import Any

from ml_collections import ConfigDict

from rkbench import errors
from rkbench.configs import default
from rkbench.configs.fields import Field
from rkbench.step import sharding
from rkbench.workloads.batches import FULL, resolve_batch_size


def check(config: Any) -> None:
    """Checks what can be checked of a config alone.

    Raises:
      UserError: a number out of range, an unknown choice, or seeds or a batch size of a wrong kind.
    """
    _check_fields(config, default.get_config())
    for name in ("name", "learning_rate"):
        if name not in config.optimizer:
            raise errors.UserError(f"the config lacks optimizer.{name}: see configs/common.py")
    _check_none_is_missing(config)
    for name, field in default.FIELDS.items():
        _check_value(name, _field(config, name), field)
    _check_batch_size(config.batch_size)
    check_seeds(config.seeds)


def _check_fields(config: Any, expected: Any, prefix: str = "") -> None:
    """A config has the fields of `configs/default.py`, neither fewer nor others."""
    if not isinstance(config, ConfigDict):
        raise errors.UserError(f"{prefix or 'the config'} is no ConfigDict, but {config!r}")
    for name, value in expected.items():
        if name not in config:
            raise errors.UserError(f"the config lacks {prefix}{name}: see configs/default.py")
        if isinstance(value, ConfigDict) and name not in ("model", "optimizer"):
            _check_fields(config[name], value, f"{prefix}{name}.")
    for name in config:
        if name not in expected:
            raise errors.unknown("config field", f"{prefix}{name}", expected)


def _check_none_is_missing(config, prefix: str = "") -> None:
    for name, value in config.items():
        if hasattr(value, "items") and name != "optimizer":  # whose keywords may well be None
            _check_none_is_missing(value, f"{prefix}{name}.")
        elif value is None and name != "data_dir":
            raise errors.UserError(f"{prefix}{name}=None: it needs a value")


def _check_value(name: str, value: Any, field: Field) -> None:
    if field.limits and value is not None:
        least, most = field.limits
        if not least <= value <= most:
            raise errors.UserError(f"{name}={value} must lie between {least} and {most:.8g}")
    if field.choices and value not in field.choices:
        raise errors.unknown(name, value, field.choices)


def _field(config, name: str):
    for part in name.split("."):
        config = config[part]
    return config


def _check_batch_size(batch_size) -> None:
    if batch_size != FULL and not _is_whole(batch_size):
        raise errors.UserError(f"batch_size={batch_size!r} must be a whole number or 'full'")


def check_seeds(seeds) -> None:
    """Raises a UserError unless these are different whole numbers that a key can be made of."""
    if not seeds:
        raise errors.UserError("seeds=() must name at least one seed")
    for seed in seeds:
        if not _is_whole(seed) or not 0 <= seed < 2**32:
            raise errors.UserError(f"seed {seed!r} must be a whole number from 0 to 2**32 - 1")
    if len(set(seeds)) < len(seeds):
        raise errors.UserError(f"seeds={tuple(seeds)} names a seed twice")


def _is_whole(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def check_chunk(chunk: int, batch_size: int, streamed: bool, layout: sharding.Layout) -> None:
    """Checks that devices get equal shares of every chunk, and that a streamed batch fills its own.

    Raises:
      UserError: naming the nearest sizes that would.
    """
    if not 0 < chunk < batch_size:
        sharding.check_divides("batch_size", batch_size, layout)
        return
    sharding.check_divides("physical_batch_size", chunk, layout)
    if streamed and batch_size % chunk:
        raise errors.UserError(
            f"physical_batch_size={chunk} does not divide batch_size={batch_size}, "
            "as it must where data is streamed"
        )


def resolved_batch_size(batch_size: int | str, examples: int, streamed: bool) -> int:
    """The examples a step that `batch_size` asks for.

    Raises:
      UserError: there are not so many, or "full" where data is streamed.
    """
    if batch_size == FULL and streamed:
        raise errors.UserError("batch_size='full' needs a dataset in memory; this one is streamed")
    size = resolve_batch_size(batch_size, examples)
    if not 1 <= size <= examples:
        raise errors.UserError(
            f"batch_size={batch_size} must lie between 1 and the {examples} training examples "
            "(or be 'full')"
        )
    return size
