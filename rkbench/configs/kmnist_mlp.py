"""Kuzushiji-MNIST, MNIST's network and hyperparameters: a harder task of the same size.

Reference: none in the paper. Data: Clanuwat et al., "Deep Learning for Classical Japanese
Literature", 2018, arXiv:1812.01718.
Expected: not measured here.
Cost: that of `mnist_mlp`.
Command: `python -m rkbench.main --config=configs/kmnist_mlp.py:rk4 --workdir=DIR`.

Nothing is tuned for this dataset: every preset is MNIST's, small batch and `full`.
"""

from ml_collections import ConfigDict

from rkbench.configs import common, default
from rkbench.configs.mnist_mlp import PRESETS, VARIANTS


def get_config(variant: str = "adam") -> ConfigDict:
    """The preset for `variant`: `<optimizer>[,full][,key=value...]`, see `configs/common.py`."""
    config = default.get_config()
    config.workload = "kmnist_mlp"
    config.model = ConfigDict({"hidden_sizes": (500, 500, 500)})
    config.input_scaling = "raw"
    return common.with_variant(config, variant, PRESETS, VARIANTS)
