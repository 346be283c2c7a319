"""Every field of a config, with its meaning: what all presets start from.

Not a preset itself: `configs/<workload>.py` set the fields, and a run takes nothing from elsewhere.
"""

from ml_collections import ConfigDict, FieldReference, config_dict


def get_config() -> ConfigDict:
    """The fields with neutral values; presets set the rest."""
    config = ConfigDict()

    # Data and model
    config.workload = "digits_mlp"  # see `rkbench list`
    # the TFDS folder; None: $TFDS_DATA_DIR, else TFDS's default
    config.data_dir = config_dict.placeholder(str)
    config.model = ConfigDict()  # the model's own fields, set by the preset
    config.input_scaling = "unit"  # [0, 1]; "raw": as stored; "standardized": mean 0, std 1
    config.l2 = 0.0  # factor of the penalty 0.5 * l2 * ||w||^2 over parameters of rank >= 2
    config.label_smoothing = 0.0  # mass of the target spread evenly over all classes, in [0, 1)

    # Optimizer
    config.optimizer = ConfigDict()  # name, learning_rate and the optimizer's own keywords
    config.schedule = ConfigDict()  # multiplies the learning rate
    config.schedule.name = "constant"  # "constant", "cosine" or "warmup_cosine"
    config.schedule.warmup_steps = 0  # steps of linear warm-up ("warmup_cosine")
    config.schedule.end_factor = 0.0  # learning rate at the last step over its peak (both cosines)

    # Training
    config.total_steps = 10_000  # optimizer steps, whatever an optimizer spends on each
    config.batch_size = FieldReference(16, field_type=object)  # examples a step, or "full"
    config.physical_batch_size = 0  # examples in memory at once; 0: the whole batch. Same gradient
    config.seeds = (0,)  # one run each: initial parameters and order of the data

    # Events, in steps; 0: never, or only at the end
    config.eval_every_steps = 10
    config.checkpoint_every_steps = 1_000
    config.log_every_steps = 10  # training loss, gradient norm and learning rate of the step
    config.train_eval_size = 2_000  # training examples to evaluate; of the test set all
    config.eval_batch_size = 250  # examples at once: small batches stay in a CPU's cache
    config.tensorboard = True  # also write TensorBoard event files

    # Execution: changes speed, not what is computed
    config.compiled_loops = "auto"  # steps between events in one compiled loop: "on", "off"
    config.vectorize_seeds = "auto"  # seeds side by side (vmap) or one after the other: "on", "off"

    return config
