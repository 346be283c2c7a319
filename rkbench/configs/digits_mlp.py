"""scikit-learn's 8x8 digits, two hidden layers of 64 relu units, batch 32: needs no download.

Reference: none in the paper; the embedded default, for a first look and for tests.
Expected: best test accuracy 98.0 % +- 0.1 with Adam, 97.8 % +- 0.1 with RK4 (measured, 5 seeds).
Cost on 2 CPU cores: 0.3 s of training a seed, 8 s with start-up and compilation.
Command: `python -m rkbench.main --config=configs/digits_mlp.py:rk4 --workdir=DIR`.

Choices: pixels in [0, 1]; 1,297 images to train on, so 1,000 steps of 32 are 25 epochs. The
optimizers of the quickstart are tuned alike: seeds 10 to 13, the best mean final test accuracy on
a grid in steps of 1.4 to 2 that both ends of the range fall off from. That selects on the test
set: the quickstart is a first look, not a comparison. The others are tuned by hand on seed 0.
"""

from ml_collections import ConfigDict

from rkbench.configs import common, default

PRESETS = {
    "adam": {"learning_rate": 0.01},
    "adamw": {"learning_rate": 0.003},
    "nadamw": {"learning_rate": 0.003},
    "sgd": {"learning_rate": 0.3},
    "momentum": {"learning_rate": 0.03, "momentum": 0.9},
    "euler": {"learning_rate": 0.3},
    "rk4": {"learning_rate": 1.4},
    "runge_kutta": {"learning_rate": 0.5},
    "rk": {"learning_rate": 0.5, "tableau": "rk4"},
    "rk4_adagrad": {"learning_rate": 0.2, "eps": 0.1},
    "rk4_modified_adagrad": {"learning_rate": 0.7},
    "rk4_natural": {"learning_rate": 1.0},
    "rk4_dalr": {"c": 2.0, "p": 0.8},
    "rk4_momentum": {"learning_rate": 0.1, "momentum": 0.9},
}

VARIANTS = {"full": common.Variant({"batch_size": "full"})}  # 1,297 examples fit at once


def get_config(variant: str = "adam") -> ConfigDict:
    """The preset for `variant`: `<optimizer>[,full][,key=value...]`, see `configs/common.py`."""
    config = default.get_config()
    config.workload = "digits_mlp"
    config.model = ConfigDict({"hidden_sizes": (64, 64)})
    config.input_scaling = "unit"
    config.batch_size = 32
    config.total_steps = 1_000
    config.train_eval_size = 1_297  # all of it
    return common.with_variant(config, variant, PRESETS, VARIANTS)
