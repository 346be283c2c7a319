"""CIFAR-10, ResNet-18 (11,173,962 parameters), batch 8192 for 3,000 steps.

Reference: Figure 18 (Appendix E.3); `batch1` and `batch8192`: Figure 16 left and right, the time of
1,000 steps (Appendix E.1).
Expected: RK4 with momentum and with DALR about as good as Adam, RK4 alone behind (Figure 18); a
step of RK4 as long as Adam's at batch 1, more than twice as long at batch 8192 (Figure 16).
Cost: 2.9 GFLOP an image and gradient, so 24 TFLOP a step with Adam and 95 with RK4 at batch 8192:
for accelerators.
Command: `python -m rkbench.main --config=configs/cifar10_resnet18.py:rk4 --workdir=DIR`;
the paper's five trials: `--config.seeds="(0,1,2,3,4)"`.

"No regularization, augmentation, or schedule" (E.3). Where the paper is silent:
- The model: the form customary for CIFAR, with a 3x3 stem and without max pooling.
- Input scaling: each channel standardised, as in the CIFAR pipeline of init2winit, from which the
  baselines of Table 1 come.
- Batch norm: chunks of 1,024, each normalised by its own statistics, as 8,192 examples on the 8
  cores of the paper's TPU v3 are where each core has its own.
- DALR's c and p: the 1.0 and 0.8 of Fashion-MNIST (D.3).
- Learning rates of methods the paper does not run stand below with their reasons.

`smoke`: 8 instead of 64 features, 20 steps of batch 64, to see that all works.
"""

from ml_collections import ConfigDict

from rkbench.configs import common, default

PRESETS = {
    "adam": {"learning_rate": 0.001},  # E.1, E.3
    "rk4": {"learning_rate": 0.004},  # E.1, E.3
    "rk4_momentum": {"learning_rate": 0.004, "momentum": 0.99},  # E.3
    "rk4_dalr": {"c": 1.0, "p": 0.8},
    # RK4's learning rate, so that only the method differs
    "runge_kutta": {"learning_rate": 0.004},
    "rk": {"learning_rate": 0.004, "tableau": "rk4"},
    "sgd": {"learning_rate": 0.004},
    "rk4_natural": {"learning_rate": 0.004},
    # rk4_momentum's
    "momentum": {"learning_rate": 0.004, "momentum": 0.99},
    # Adam's relatives
    "adamw": {"learning_rate": 0.001},
    "nadamw": {"learning_rate": 0.001},
    # those of the MLP on CIFAR-10 (E.2)
    "rk4_adagrad": {"learning_rate": 0.008, "eps": 0.1},
    "rk4_modified_adagrad": {"learning_rate": 0.004},
}

FIGURE_16 = {"total_steps": 1_000, "log_every_steps": 1}  # E.1
SMOKE = {
    "model.features": 8,
    "batch_size": 64,
    "total_steps": 20,
    "eval_every_steps": 10,
    "checkpoint_every_steps": 10,
    "log_every_steps": 5,
    "train_eval_size": 500,
}
VARIANTS = {
    "batch1": common.Variant({**FIGURE_16, "batch_size": 1}),
    "batch8192": common.Variant(FIGURE_16),
    "smoke": common.Variant(SMOKE),
}


def get_config(variant: str = "adam") -> ConfigDict:
    """The preset for `variant`: `<optimizer>[,batch1|batch8192][,smoke][,key=value...]`.

    See `configs/common.py`.
    """
    config = default.get_config()
    config.workload = "cifar10_resnet18"
    config.model["features"] = 64
    config.model["convolution"] = "auto"  # "xla", "matmul"; auto: matmul on a CPU
    config.input_scaling = "channel_standardized"
    config.batch_size = 8_192  # E.3
    config.physical_batch_size = 1_024
    config.total_steps = 3_000  # E.3
    config.checkpoint_every_steps = 100
    return common.with_variant(config, variant, PRESETS, VARIANTS)
