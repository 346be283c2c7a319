"""Every field of a config, with its meaning: what all presets start from.

Not a preset itself: `configs/<workload>.py` set the fields, and a run takes nothing from elsewhere.
This table is the one place that a field stands in: `rkbench.configs.fields` says what its range,
choices and role are, and checks, hashes, compilation and scores follow from them.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict, FieldReference

from rkbench.configs.fields import PRESET, Field, Role

METHOD, RUN, AROUND = Role.METHOD, Role.RUN, Role.AROUND  # all others make up the task

FIELDS: dict[str, Field] = {
    # Data and model
    "workload": Field("digits_mlp"),  # see `rkbench list`
    # the TFDS folder; None: $TFDS_DATA_DIR, else TFDS's default
    "data_dir": Field(None, AROUND, kind=str),
    "train_examples": Field(0),  # train on the first so many examples only, a subset; 0: on all
    # of these the last so many are held out, never trained on, and evaluated as "validation"
    "validation_examples": Field(0),
    "model": Field({}),  # the model's own fields, set by the preset
    # [0, 1]; "raw": as stored; mean 0, std 1: "standardized", "channel_standardized" (each channel)
    "input_scaling": Field("unit"),
    # Augmentation of the training images, anew in every step
    "augment.crop_padding": Field(0, most=1024),  # pixels of black around, a random window kept
    "augment.flip": Field(False),  # mirror half of the images left to right
    "augment.cutout": Field(0, most=2**15),  # side of a random black square, in pixels
    "augment.mixup_alpha": Field(0.0),  # mix pairs by a share from Beta(alpha, alpha); 0: none
    # RandAugment (ImageNet only): operations on an image, and their strength, 0 to 10
    "augment.rand_augment_layers": Field(0, most=100),
    "augment.rand_augment_magnitude": Field(10.0, most=10),
    # Of streamed datasets (ImageNet): a damaged image is an error ("raise"), or the next sound one
    # takes its place and is counted ("skip")
    "on_corrupt": Field("raise", RUN, choices=("raise", "skip")),
    # worker processes that prepare images; 0: a thread of this process, -1: one a core
    "input_workers": Field(0, AROUND, least=-1, most=1024),
    "l2": Field(0.0, METHOD),  # factor of the penalty 0.5 * l2 * ||w||^2, parameters of rank >= 2
    # mass of the target spread evenly over all classes, in [0, 1)
    "label_smoothing": Field(0.0, METHOD, most=1),
    # what the model computes in: "float32", "bfloat16"; parameters and optimizer stay float32
    "dtype": Field("float32"),
    # compute blocks again in the backward pass instead of keeping them
    "remat": Field(False, RUN),
    # where running statistics of batch norm come from: "first_stage" or "last_stage" of a step, or
    # "recompute": from a few batches before each evaluation, as always where that is not at the
    # parameters that are trained (schedule-free)
    "batch_norm_update": Field(
        "first_stage", METHOD, choices=("first_stage", "last_stage", "recompute")
    ),
    # Optimizer
    "optimizer": Field({}, METHOD),  # name, learning_rate and the optimizer's own keywords
    "optimizer.learning_rate": Field(PRESET, METHOD, kind=float),
    # Schedule, which multiplies the learning rate: "constant", "cosine" or "warmup_cosine"
    "schedule.name": Field("constant", METHOD, compiled=False),
    # steps of linear warm-up ("warmup_cosine"); its first has rate 0
    "schedule.warmup_steps": Field(0, METHOD, compiled=False),
    # learning rate over its peak at step total_steps, one after the last step (both cosines)
    "schedule.end_factor": Field(0.0, METHOD, compiled=False),
    "grad_clip_norm": Field(0.0, METHOD),  # largest norm of the Runge-Kutta gradient; 0: any
    "grad_clip_stages": Field(False, METHOD),  # clip the gradient of each stage instead
    # Training
    # optimizer steps, whatever an optimizer spends on each; schedules of optax count in float32
    "total_steps": Field(10_000, RUN, least=1, most=2**24, compiled=False),
    # gradient evaluations of a seed, which ends with the last step that stays within them; 0: any
    "max_grad_evals": Field(0, RUN, newer=True),
    "batch_size": Field(16, kind=object),  # examples a step, or "full"
    # examples in memory at once; 0: the whole batch. Same gradient
    "physical_batch_size": Field(0, RUN),
    # one run each: initial parameters and order of the data
    "seeds": Field((0,), AROUND, compiled=False),
    # Events, in steps; 0: never, or only at the end
    "eval_every_steps": Field(10, RUN, compiled=False),
    "checkpoint_every_steps": Field(1_000, RUN, compiled=False),
    # training loss, gradient norm and learning rate of the step
    "log_every_steps": Field(10, RUN, compiled=False),
    "train_eval_size": Field(2_000, RUN, least=1),  # training examples to evaluate; of others all
    # False: the test set is not looked at, as while tuning
    "eval_test": Field(True, RUN, compiled=False),
    # examples at once: small batches stay in a CPU's cache
    "eval_batch_size": Field(250, AROUND, least=1),
    "tensorboard": Field(True, AROUND, compiled=False),  # also write TensorBoard event files
    # Execution: changes speed, not what is computed
    "mesh.seed": Field(1, AROUND, least=1),  # seeds side by side on different devices
    # shares of a batch; 0: all devices that the others leave over
    "mesh.data": Field(0, AROUND),
    # shares of a batch that also hold pieces of parameters and optimizer state
    "mesh.fsdp": Field(1, AROUND, least=1),
    # steps between events in one compiled loop: "on", "off"
    "compiled_loops": Field("auto", RUN),
    # seeds side by side (vmap) or one after the other: "on", "off"
    "vectorize_seeds": Field("auto", RUN),
}


def get_config() -> Any:
    """The fields with neutral values, a ConfigDict; presets set the rest.

    (Its type is given as Any: a type checker knows nothing of a ConfigDict's fields.)
    """
    config: Any = ConfigDict()
    for path, field in FIELDS.items():
        *groups, name = path.split(".")
        holder = config
        for group in groups:
            if group not in holder:
                holder[group] = ConfigDict()
            holder = holder[group]
        if field.default is not PRESET:
            holder[name] = _value(field)
    return config


def _value(field: Field) -> Any:
    if isinstance(field.default, Mapping):
        return ConfigDict(field.default)
    if field.kind is not None:
        return FieldReference(field.default, field_type=field.kind)
    return field.default


def names(**said: Any) -> frozenset[str]:
    """The names at the config's top of which the table says all this, as in `role=Role.METHOD`."""
    return frozenset(
        path.split(".")[0]
        for path, field in FIELDS.items()
        if all(getattr(field, what) == value for what, value in said.items())
    )
