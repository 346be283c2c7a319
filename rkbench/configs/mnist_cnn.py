"""MNIST, two 3x3 convolutions (20 and 10 filters) and a dense layer, 10,000 steps.

Reference: Table 1 "MNIST, Simple CNN" (Appendix D.5).
Expected: best test accuracy 98.64 % +- 0.02 with momentum, 98.53 % +- 0.01 with RK4 (paper).
Cost on 2 CPU cores: 2 to 3 minutes of training a seed with momentum, 10 with RK4.
Command: `python -m rkbench.main --config=configs/mnist_cnn.py:rk4 --workdir=DIR`;
the paper's five trials: `--config.seeds="(0,1,2,3,4)"`.

Where the paper is silent:
- The model: init2winit's `simple_cnn`, from which the baselines come: stride 1, SAME padding, relu,
  no pooling.
- "Weight decay factor": an L2 penalty in the loss over parameters of rank >= 2, as in init2winit.
- Input scaling: [0, 1], as in init2winit's pipeline.
- Evaluation: every 100 steps (the paper: every 10; one costs about 50 steps of SGD on a CPU).
- Batch size and L2 of the methods the paper does not run: RK4's, 64 and none, for the Runge-Kutta
  methods; the baseline's for the others. Their learning rates stand below with their reasons.
"""

from ml_collections import ConfigDict

from rkbench.configs import common, default

_BASELINE = {"l2": 0.002, "batch_size": 64}  # D.5

PRESETS = {
    "momentum": {"learning_rate": 0.01, "momentum": 0.9, **_BASELINE},  # D.5
    "rk4": {"learning_rate": 0.1},  # D.5
    # RK4's learning rate, so that only the method differs
    "runge_kutta": {"learning_rate": 0.1},
    "rk": {"learning_rate": 0.1, "tableau": "rk4"},
    # the same effective rate, learning_rate / (1 - momentum)
    "rk4_momentum": {"learning_rate": 0.01, "momentum": 0.9},
    "sgd": {"learning_rate": 0.1, **_BASELINE},
    # optax's customary 0.001
    "adam": {"learning_rate": 0.001, **_BASELINE},
    "adamw": {"learning_rate": 0.001, **_BASELINE, "l2": 0.0},  # its own weight decay instead
    "nadamw": {"learning_rate": 0.001, **_BASELINE, "l2": 0.0},
    # not run by the paper and not tuned here
    "rk4_adagrad": {"learning_rate": 0.03, "eps": 0.1},
    "rk4_modified_adagrad": {"learning_rate": 0.03},
    "rk4_natural": {"learning_rate": 0.1},
    "rk4_dalr": {"c": 1.0, "p": 0.8},
}


def get_config(variant: str = "momentum") -> ConfigDict:
    """The preset for `variant`: `<optimizer>[,key=value...]`, see `configs/common.py`.

    The paper has no full-batch run of this workload, so there is no variant `full`.
    """
    config = default.get_config()
    config.workload = "mnist_cnn"
    config.model = ConfigDict()
    config.model["features"] = (20, 10)
    config.model["kernel_size"] = 3
    config.model["convolution"] = "auto"  # "xla", "matmul"; auto: matmul on a CPU, faster there
    config.input_scaling = "unit"
    config.batch_size = 64
    config.eval_batch_size = 50  # on a CPU faster than larger ones
    config.eval_every_steps = 100
    config.log_every_steps = 100
    return common.with_variant(config, variant, PRESETS)
