"""Every field of a config, with its meaning: what all presets start from.

Not a preset itself: `configs/<workload>.py` set the fields, and a run takes nothing from elsewhere.
"""

from typing import Any

from ml_collections import ConfigDict, FieldReference, config_dict


def get_config() -> Any:
    """The fields with neutral values, a ConfigDict; presets set the rest.

    (Its type is given as Any: a type checker knows nothing of a ConfigDict's fields.)
    """
    config: Any = ConfigDict()

    # Data and model
    config.workload = "digits_mlp"  # see `rkbench list`
    # the TFDS folder; None: $TFDS_DATA_DIR, else TFDS's default
    config.data_dir = config_dict.placeholder(str)
    config.train_examples = 0  # train on the first so many examples only, a subset; 0: on all
    # of these the last so many are held out, never trained on, and evaluated as "validation"
    config.validation_examples = 0
    config.model = ConfigDict()  # the model's own fields, set by the preset
    # [0, 1]; "raw": as stored; mean 0, std 1: "standardized", "channel_standardized" (each channel)
    config.input_scaling = "unit"
    config.augment = ConfigDict()  # of the training images, anew in every step
    config.augment.crop_padding = 0  # pixels of black around the image, a random window of it kept
    config.augment.flip = False  # mirror half of the images left to right
    config.augment.cutout = 0  # side of a random black square, in pixels
    config.augment.mixup_alpha = 0.0  # mix pairs by a share from Beta(alpha, alpha); 0: none
    config.augment.rand_augment_layers = 0  # RandAugment (ImageNet only): operations on an image
    config.augment.rand_augment_magnitude = 10.0  # and their strength, 0 to 10
    # Of streamed datasets (ImageNet): a damaged image is an error ("raise"), or the next sound one
    # takes its place and is counted ("skip")
    config.on_corrupt = "raise"
    # worker processes that prepare images; 0: a thread of this process, -1: one a core
    config.input_workers = 0
    config.l2 = 0.0  # factor of the penalty 0.5 * l2 * ||w||^2 over parameters of rank >= 2
    config.label_smoothing = 0.0  # mass of the target spread evenly over all classes, in [0, 1)
    # what the model computes in: "float32", "bfloat16"; parameters and optimizer stay float32
    config.dtype = "float32"
    config.remat = False  # compute blocks again in the backward pass instead of keeping them
    # where running statistics of batch norm come from: "first_stage" or "last_stage" of a step, or
    # "recompute": from a few batches before each evaluation, as always where that is not at the
    # parameters that are trained (schedule-free)
    config.batch_norm_update = "first_stage"

    # Optimizer
    config.optimizer = ConfigDict()  # name, learning_rate and the optimizer's own keywords
    config.schedule = ConfigDict()  # multiplies the learning rate
    config.schedule.name = "constant"  # "constant", "cosine" or "warmup_cosine"
    config.schedule.warmup_steps = 0  # of linear warm-up ("warmup_cosine"); its first has rate 0
    # learning rate over its peak at step total_steps, one after the last step (both cosines)
    config.schedule.end_factor = 0.0

    config.grad_clip_norm = 0.0  # largest norm of the Runge-Kutta gradient; 0: any
    config.grad_clip_stages = False  # clip the gradient of each stage instead

    # Training
    config.total_steps = 10_000  # optimizer steps, whatever an optimizer spends on each
    # gradient evaluations of a seed, which ends with the last step that stays within them; 0: any
    config.max_grad_evals = 0
    config.batch_size = FieldReference(16, field_type=object)  # examples a step, or "full"
    config.physical_batch_size = 0  # examples in memory at once; 0: the whole batch. Same gradient
    config.seeds = (0,)  # one run each: initial parameters and order of the data

    # Events, in steps; 0: never, or only at the end
    config.eval_every_steps = 10
    config.checkpoint_every_steps = 1_000
    config.log_every_steps = 10  # training loss, gradient norm and learning rate of the step
    config.train_eval_size = 2_000  # training examples to evaluate; of the others all
    config.eval_test = True  # False: the test set is not looked at, as while tuning
    config.eval_batch_size = 250  # examples at once: small batches stay in a CPU's cache
    config.tensorboard = True  # also write TensorBoard event files

    # Execution: changes speed, not what is computed
    config.mesh = ConfigDict()  # devices along each axis
    config.mesh.seed = 1  # seeds side by side on different devices
    config.mesh.data = 0  # shares of a batch; 0: all devices that the others leave over
    config.mesh.fsdp = (
        1  # shares of a batch that also hold pieces of parameters and optimizer state
    )
    config.compiled_loops = "auto"  # steps between events in one compiled loop: "on", "off"
    config.vectorize_seeds = "auto"  # seeds side by side (vmap) or one after the other: "on", "off"

    return config
