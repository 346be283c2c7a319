"""What each field of a config may be, checked before anything is loaded or made."""

from typing import Any

from ml_collections import ConfigDict

from rkbench import errors
from rkbench.configs import default
from rkbench.rk.checks import LARGEST
from rkbench.step import sharding
from rkbench.workloads.base import ON_CORRUPT
from rkbench.workloads.batches import FULL, resolve_batch_size

_MOST = 2**31 - 1  # the device counts in int32

# (least, most) of each number; a model's and an optimizer's own are theirs to check.
_RANGES = {
    "total_steps": (1, 2**24),  # schedules of optax count in float32
    "max_grad_evals": (0, _MOST),
    "physical_batch_size": (0, _MOST),
    "eval_every_steps": (0, _MOST),
    "checkpoint_every_steps": (0, _MOST),
    "log_every_steps": (0, _MOST),
    "train_eval_size": (1, _MOST),
    "eval_batch_size": (1, _MOST),
    "train_examples": (0, _MOST),
    "validation_examples": (0, _MOST),
    "mesh.seed": (1, _MOST),
    "mesh.data": (0, _MOST),
    "mesh.fsdp": (1, _MOST),
    "input_workers": (-1, 1024),
    "l2": (0, LARGEST),
    "label_smoothing": (0, 1),
    "grad_clip_norm": (0, LARGEST),
    "optimizer.learning_rate": (0, LARGEST),
    "schedule.warmup_steps": (0, _MOST),
    "schedule.end_factor": (0, LARGEST),
    "augment.crop_padding": (0, 1024),
    "augment.cutout": (0, 2**15),
    "augment.mixup_alpha": (0, LARGEST),
    "augment.rand_augment_layers": (0, 100),
    "augment.rand_augment_magnitude": (0, 10),
}

# `batch_norm_update` says from which stage of a step batch-norm statistics are updated. With
# "recompute" it is the first, and they are estimated anew for every evaluation.
_CHOICES = {
    "batch_norm_update": ("first_stage", "last_stage", "recompute"),
    "on_corrupt": ON_CORRUPT,
}


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
    for name, (least, most) in _RANGES.items():
        value = _field(config, name)
        if value is not None and not least <= value <= most:
            raise errors.UserError(f"{name}={value} must lie between {least} and {most:.8g}")
    for name, choices in _CHOICES.items():
        if config[name] not in choices:
            raise errors.unknown(name, config[name], choices)
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
