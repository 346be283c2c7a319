"""Workloads by name: `create(config)` builds one, `names()` lists them without importing JAX.

To add one, write a factory `(name, config) -> Workload` here and give it a row in `_FACTORIES`.
"""

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workloads.base import Workload


def _mlp(dataset_name: str, name: str, config: Any) -> "Workload":
    from workloads import datasets
    from workloads.image_classification import ImageClassification, input_scaling
    from workloads.models.mlp import MLP

    dataset = datasets.load(dataset_name, config.data_dir)
    return ImageClassification(
        name=name,
        dataset=dataset,
        model=MLP(tuple(config.model.hidden_sizes), dataset.num_classes),
        scale=input_scaling(config.input_scaling, dataset),
        l2=config.l2,
        label_smoothing=config.label_smoothing,
        convolves=False,
    )


def _cnn(dataset_name: str, name: str, config: Any) -> "Workload":
    from workloads import datasets
    from workloads.image_classification import ImageClassification, input_scaling
    from workloads.models import convolution
    from workloads.models.cnn import CNN

    convolve = convolution.choose(config.model.convolution)
    dataset = datasets.load(dataset_name, config.data_dir)
    return ImageClassification(
        name=name,
        dataset=dataset,
        model=CNN(
            tuple(config.model.features), config.model.kernel_size, dataset.num_classes, convolve
        ),
        scale=input_scaling(config.input_scaling, dataset),
        l2=config.l2,
        label_smoothing=config.label_smoothing,
        convolves=convolve is not convolution.matmul_convolution,
    )


_FACTORIES = {
    "digits_mlp": functools.partial(_mlp, "digits"),
    "fashion_cnn": functools.partial(_cnn, "fashion_mnist"),
    "fashion_mlp": functools.partial(_mlp, "fashion_mnist"),
    "mnist_cnn": functools.partial(_cnn, "mnist"),
    "mnist_mlp": functools.partial(_mlp, "mnist"),
}


def names() -> tuple[str, ...]:
    """The names of the workloads, sorted."""
    return tuple(sorted(_FACTORIES))


def create(config: Any) -> "Workload":
    """The workload `config.workload`, with its data loaded.

    Reads the fields `workload`, `data_dir`, `model`, `input_scaling`, `l2` and `label_smoothing`
    of `config`. Raises `rkbench.errors.UserError` for an unknown name, a value out of range, or
    data that is not there and cannot be had.
    """
    if config.workload not in _FACTORIES:
        from rkbench.errors import unknown

        raise unknown("workload", config.workload, names())
    return _FACTORIES[config.workload](config.workload, config)
