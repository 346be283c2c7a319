"""Workloads by name: `create(config)` builds one, `names()` lists them without importing JAX.

To add one, write a factory `(config, dataset or None) -> Workload` here and give it a row in
`_WORKLOADS`; for a dataset that fits in memory, a factory of its model is enough.
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import flax.linen as nn

    from workloads.base import Workload
    from workloads.datasets import ArrayDataset


# Factories of models: (config, number of classes) -> the model, whether it runs XLA's convolution.


def _mlp(config: Any, num_classes: int) -> tuple["nn.Module", bool]:
    from workloads.models.mlp import MLP

    _refuse_dtype_and_remat(config)
    return MLP(tuple(config.model.hidden_sizes), num_classes), False


def _cnn(config: Any, num_classes: int) -> tuple["nn.Module", bool]:
    from workloads.models import convolution
    from workloads.models.cnn import CNN

    _refuse_dtype_and_remat(config)
    convolve = convolution.choose(config.model.convolution)
    model = CNN(tuple(config.model.features), config.model.kernel_size, num_classes, convolve)
    return model, convolve is not convolution.matmul_convolution


def _wide_resnet(config: Any, num_classes: int) -> tuple["nn.Module", bool]:
    from workloads.models.wide_resnet import WideResNet

    model = config.model
    return WideResNet(model.depth, model.width, num_classes, **_residual(config)), True


def _resnet18(config: Any, num_classes: int) -> tuple["nn.Module", bool]:
    from workloads.models.resnet import ResNet18

    return ResNet18(num_classes, features=config.model.features, **_residual(config)), True


def _residual(config: Any) -> dict[str, Any]:
    """What both residual networks take; their strided convolutions are XLA's own in any case."""
    from workloads.image_classification import compute_dtype
    from workloads.models import convolution

    return {
        "convolve": convolution.choose(config.model.convolution),
        "dtype": compute_dtype(config.dtype),
        "remat": config.remat,
    }


def _refuse_dtype_and_remat(config: Any) -> None:
    from rkbench.errors import UserError

    for field, only in (("dtype", "float32"), ("remat", False)):
        if config[field] != only:
            raise UserError(f"{field}={config[field]!r}: {config.workload} has only {only!r}")


def _in_memory(
    own: str,
    model_factory: Callable[[Any, int], tuple["nn.Module", bool]],
    config: Any,
    dataset: "ArrayDataset | None",
) -> "Workload":
    from workloads import datasets
    from workloads.augment import Augmentation
    from workloads.image_classification import ImageClassification, compute_dtype, input_scaling

    augment = Augmentation(**config.augment)
    dtype = compute_dtype(config.dtype)
    dataset = dataset or datasets.load(own, config.data_dir)
    model, convolves = model_factory(config, dataset.num_classes)
    return ImageClassification(
        name=config.workload,
        dataset=dataset,
        model=model,
        scale=input_scaling(config.input_scaling, dataset),
        l2=config.l2,
        label_smoothing=config.label_smoothing,
        convolves=convolves,
        augment=augment,
        dtype=dtype,
    )


_WORKLOADS: dict[str, Callable[[Any, "ArrayDataset | None"], "Workload"]] = {
    "cifar100_wrn": functools.partial(_in_memory, "cifar100", _wide_resnet),
    "cifar10_mlp": functools.partial(_in_memory, "cifar10", _mlp),
    "cifar10_resnet18": functools.partial(_in_memory, "cifar10", _resnet18),
    "cifar10_wrn": functools.partial(_in_memory, "cifar10", _wide_resnet),
    "digits_mlp": functools.partial(_in_memory, "digits", _mlp),
    "fashion_cnn": functools.partial(_in_memory, "fashion_mnist", _cnn),
    "fashion_mlp": functools.partial(_in_memory, "fashion_mnist", _mlp),
    "mnist_cnn": functools.partial(_in_memory, "mnist", _cnn),
    "mnist_mlp": functools.partial(_in_memory, "mnist", _mlp),
}


def names() -> tuple[str, ...]:
    """The names of the workloads, sorted."""
    return tuple(sorted(_WORKLOADS))


def create(config: Any, dataset: "ArrayDataset | None" = None) -> "Workload":
    """The workload `config.workload`, with its data loaded.

    Reads the fields `workload`, `data_dir`, `model`, `input_scaling`, `augment`, `l2`,
    `label_smoothing`, `dtype` and `remat` of `config`. A `dataset` given takes the place of the
    workload's own.

    Raises:
      UserError: an unknown name, a value out of range, or data that is not there and cannot be had.
    """
    if config.workload not in _WORKLOADS:
        from rkbench.errors import unknown

        raise unknown("workload", config.workload, names())
    return _WORKLOADS[config.workload](config, dataset)
