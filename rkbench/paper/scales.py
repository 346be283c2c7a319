"""How large each kind of run is: `paper` as published, `cpu` for two cores, `smoke` for a look.

A scale changes settings of a preset and the seeds, and says so: `says` stands in the caption of
every figure and under the table.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

FIVE_SEEDS = (0, 1, 2, 3, 4)


@dataclasses.dataclass(frozen=True)
class Size:
    """What a scale makes of one kind of run.

    Attributes:
      settings: fields of the config, {"group.field": value}.
      seeds: one run each.
      says: the reduction, for captions; "" for none.
      runs: whether it is run at all at this scale.
    """

    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seeds: tuple[int, ...] = FIVE_SEEDS
    says: str = ""
    runs: bool = True


_NOT_RUN = Size(runs=False)
_QUIET = {"tensorboard": False}
_TIMED = {**_QUIET, "eval_every_steps": 0, "checkpoint_every_steps": 0}

PAPER = {
    "small_batch": Size({"eval_every_steps": 1}),
    "full_batch": Size({"eval_every_steps": 1}),
    "cnn": Size({"eval_every_steps": 10}),
    "fashion_cnn": Size({"eval_every_steps": 10}),
    "large": Size(),
    "shrunken": _NOT_RUN,
    "cifar10_mlp": Size(),
    "resnet18": Size(),
    "study": Size({**_QUIET, "eval_every_steps": 100}),
    "timing_small": Size(_TIMED),
    "timing_full": Size(_TIMED),
    "timing_batch1": Size(_TIMED),
    "timing_batch8192": Size(_TIMED),
}

CPU = {
    "small_batch": Size(_QUIET, says="evaluated every 10 steps"),
    "full_batch": Size(
        {
            **_QUIET,
            "train_examples": 500,
            "train_eval_size": 500,
            "total_steps": 300,
            "physical_batch_size": 0,
            "eval_every_steps": 10,
            "log_every_steps": 10,
            "checkpoint_every_steps": 100,
        },
        seeds=(0, 1, 2),
        says="reduced: the first 500 of 60,000 training images as the full batch, 300 steps",
    ),
    "cnn": Size({**_QUIET, "eval_every_steps": 100}, (0, 1), "evaluated every 100 steps"),
    # Chunks of 16 are for two runs side by side, a core each; the same gradient.
    "fashion_cnn": Size(
        {**_QUIET, "eval_every_steps": 100, "physical_batch_size": 16},
        (0, 1),
        "evaluated every 100 steps",
    ),
    "large": _NOT_RUN,
    "shrunken": Size(_QUIET, (0,), "a shrunken model for a few steps on the real data"),
    "cifar10_mlp": Size(
        {**_QUIET, "total_steps": 200, "eval_every_steps": 10, "log_every_steps": 10},
        seeds=(0, 1),
        says="reduced: 200 of 50,000 steps",
    ),
    "resnet18": Size(
        {
            **_QUIET,
            "model.features": 8,
            "batch_size": 256,
            "physical_batch_size": 0,
            "total_steps": 60,
            "eval_every_steps": 10,
            "log_every_steps": 5,
            "checkpoint_every_steps": 20,
            "train_eval_size": 500,
        },
        seeds=(0, 1),
        says="reduced: 8 instead of 64 features, batch 256 instead of 8,192, 60 of 3,000 steps",
    ),
    "study": Size(
        {
            **_QUIET,
            "train_examples": 500,
            "train_eval_size": 500,
            "total_steps": 200,
            "physical_batch_size": 0,
            "eval_every_steps": 100,
            "log_every_steps": 20,
            "checkpoint_every_steps": 0,
        },
        seeds=(0,),
        says="Reduced: the first 500 of 60,000 training images as the full batch, 200 steps, one "
        "seed",
    ),
    "timing_small": Size({**_TIMED, "total_steps": 500}, (0, 1, 2), "500 of 10,000 steps"),
    "timing_full": Size(
        {**_TIMED, "total_steps": 3, "log_every_steps": 1}, (0, 1), "3 of 10,000 steps"
    ),
    "timing_batch1": Size(
        {**_TIMED, "total_steps": 20, "model.features": 16},
        (0, 1, 2),
        "reduced: 16 instead of 64 features, 20 of 1,000 steps",
    ),
    "timing_batch8192": Size(
        {**_TIMED, "total_steps": 4, "model.features": 4, "physical_batch_size": 256}
        | {"batch_size": 1_024},
        (0, 1, 2),
        "reduced: 4 instead of 64 features, batch 1,024 instead of 8,192, 4 of 1,000 steps",
    ),
}

_FEW = {**_QUIET, "total_steps": 4, "eval_every_steps": 2, "log_every_steps": 1}
_FEW |= {"checkpoint_every_steps": 2, "train_eval_size": 200}
_SMALL_MLP = {**_FEW, "model.hidden_sizes": (32,)}
_SAYS = "smoke: a few steps of a small model"

SMOKE = {
    "small_batch": Size(_SMALL_MLP, (0, 1), _SAYS),
    "full_batch": Size(
        {**_SMALL_MLP, "train_examples": 200, "physical_batch_size": 0}, (0, 1), _SAYS
    ),
    "cnn": Size({**_FEW, "model.features": (2, 2), "batch_size": 8}, (0, 1), _SAYS),
    "fashion_cnn": Size({**_FEW, "model.features": (2, 2), "batch_size": 8}, (0, 1), _SAYS),
    "large": _NOT_RUN,
    "shrunken": _NOT_RUN,
    "cifar10_mlp": Size({**_SMALL_MLP, "batch_size": 64}, (0, 1), _SAYS),
    "resnet18": Size(
        {**_FEW, "model.features": 2, "batch_size": 8, "physical_batch_size": 0}, (0,), _SAYS
    ),
    "study": Size({**_SMALL_MLP, "train_examples": 200, "physical_batch_size": 0}, (0,), _SAYS),
    "timing_small": Size({**_SMALL_MLP, **_TIMED}, (0,), _SAYS),
    "timing_full": Size(
        {**_SMALL_MLP, **_TIMED, "train_examples": 200, "physical_batch_size": 0}, (0,), _SAYS
    ),
    "timing_batch1": Size({**_FEW, **_TIMED, "model.features": 2}, (0,), _SAYS),
    "timing_batch8192": Size(
        {**_FEW, **_TIMED, "model.features": 2, "batch_size": 8, "physical_batch_size": 0},
        (0,),
        _SAYS,
    ),
}

SCALES = {"paper": PAPER, "cpu": CPU, "smoke": SMOKE}
