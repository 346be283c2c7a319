"""CIFAR-10, three hidden layers of 500 relu units, batch 1024 for 50,000 steps.

Reference: Figure 17 (Appendix E.2).
Expected: RK4 with either preconditioner about as good as Adam, RK4 alone behind (Figure 17).
Cost on 2 CPU cores, shared with other jobs: 0.2 s a step with Adam, 0.75 s with RK4, so 3 and
10 hours.
Command: `python -m rkbench.main --config=configs/cifar10_mlp.py:rk4_adagrad --workdir=DIR`;
five trials: `--config.seeds="(0,1,2,3,4)"`.

Where the paper is silent:
- Input scaling: [0, 1], the ordinary choice; no study of its own. With raw pixels
  both preconditioned methods were at NaN within 15 steps at the paper's learning rates (batch 256,
  seed 0); with [0, 1], and with each channel standardised, their loss fell (AdaGrad's from 2.30 to
  2.24 and 2.10).
- AdaGrad's eps: 0.1, optax's initial accumulator, as in the full-batch presets of MNIST.
- Augmentation, L2 and schedule: none, as E.3 says of the experiments beside this one.
- Evaluation: every 100 steps.
- Learning rates of methods the paper does not run stand below with their reasons.

`smoke`: two hidden layers of 64, 40 steps of batch 64, to see that all works.
"""

from ml_collections import ConfigDict

from rkbench.configs import common, default

PRESETS = {
    "adam": {"learning_rate": 0.002},  # E.2
    "rk4": {"learning_rate": 0.001},  # E.2
    "rk4_adagrad": {"learning_rate": 0.008, "eps": 0.1},  # E.2
    "rk4_modified_adagrad": {"learning_rate": 0.004},  # E.2
    # RK4's learning rate, so that only the method differs
    "runge_kutta": {"learning_rate": 0.001},
    "rk": {"learning_rate": 0.001, "tableau": "rk4"},
    "sgd": {"learning_rate": 0.001},
    "rk4_natural": {"learning_rate": 0.001},
    # the same effective rate, learning_rate / (1 - momentum)
    "momentum": {"learning_rate": 0.0001, "momentum": 0.9},
    "rk4_momentum": {"learning_rate": 0.0001, "momentum": 0.9},
    # Adam's relatives
    "adamw": {"learning_rate": 0.002},
    "nadamw": {"learning_rate": 0.002},
    # the full batch's of Fashion-MNIST (D.3)
    "rk4_dalr": {"c": 1.0, "p": 0.8},
}

SMOKE = {
    "model.hidden_sizes": (64, 64),
    "batch_size": 64,
    "total_steps": 40,
    "eval_every_steps": 20,
    "checkpoint_every_steps": 10,
    "log_every_steps": 5,
    "train_eval_size": 500,
}
VARIANTS = {"smoke": common.Variant(SMOKE)}


def get_config(variant: str = "adam") -> ConfigDict:
    """The preset for `variant`: `<optimizer>[,smoke][,key=value...]`, see `configs/common.py`."""
    config = default.get_config()
    config.workload = "cifar10_mlp"
    config.model = ConfigDict({"hidden_sizes": (500, 500, 500)})
    config.input_scaling = "unit"
    config.batch_size = 1_024  # E.2
    config.total_steps = 50_000  # E.2
    config.eval_every_steps = 100
    config.log_every_steps = 100
    return common.with_variant(config, variant, PRESETS, VARIANTS)
