"""Workloads by name: `create(config)` builds one, `names()` lists them without importing JAX.

To add one that classifies images, give it a row in `_IMAGE_CLASSIFICATION`: the name of its
dataset and a factory of its model. For another kind, write a factory `(config, dataset or None,
batch axes) -> Workload` and give it a row in `_WORKLOADS`. From outside, `register` adds one
of either kind.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from rkbench import plugins
from rkbench.workloads.registered import register_dataset

__all__ = ["create", "dataset_name", "names", "own_names", "register", "register_dataset"]

if TYPE_CHECKING:
    import flax.linen as nn
    import jax.numpy as jnp

    from rkbench.workloads.base import Workload
    from rkbench.workloads.image_classification import Dataset


# Factories of models: (config, number of classes) -> the model, whether it runs XLA's convolution.


def _mlp(config: Any, num_classes: int) -> tuple["nn.Module", bool]:
    from rkbench.workloads.models.mlp import MLP

    return MLP(tuple(config.model.hidden_sizes), num_classes, _without_blocks(config)), False


def _cnn(config: Any, num_classes: int) -> tuple["nn.Module", bool]:
    from rkbench.workloads.models import convolution
    from rkbench.workloads.models.cnn import CNN

    features, size = tuple(config.model.features), config.model.kernel_size
    convolve = convolution.choose(config.model.convolution)
    model = CNN(features, size, num_classes, convolve, _without_blocks(config))
    return model, convolve is not convolution.matmul_convolution


def _wide_resnet(config: Any, num_classes: int) -> tuple["nn.Module", bool]:
    from rkbench.workloads.models.wide_resnet import WideResNet

    settings, convolves = _residual(config)
    return WideResNet(config.model.depth, config.model.width, num_classes, **settings), convolves


def _resnet18(config: Any, num_classes: int) -> tuple["nn.Module", bool]:
    from rkbench.workloads.models.resnet import ResNet18

    settings, convolves = _residual(config)
    return ResNet18(num_classes, features=config.model.features, **settings), convolves


def _vit(config: Any, num_classes: int) -> tuple["nn.Module", bool]:
    from rkbench.workloads.image_classification import compute_dtype
    from rkbench.workloads.models.vit import ViT

    dtype = compute_dtype(config.dtype)
    return ViT(num_classes=num_classes, dtype=dtype, remat=config.remat, **config.model), False


def _residual(config: Any) -> tuple[dict[str, Any], bool]:
    """What both residual networks take, and whether they run XLA's convolution."""
    from rkbench.workloads.image_classification import compute_dtype
    from rkbench.workloads.models import convolution

    convolve = convolution.choose(config.model.convolution)
    dtype = compute_dtype(config.dtype)
    settings = {"convolve": convolve, "dtype": dtype, "remat": config.remat}
    return settings, convolve is not convolution.matmul_convolution


def _without_blocks(config: Any) -> "jnp.dtype":
    """The dtype of a model that has no blocks whose activations could be computed again."""
    from rkbench.errors import UserError
    from rkbench.workloads.image_classification import compute_dtype

    if config.remat:
        raise UserError(f"remat=True: the model of {config.workload} has no blocks; valid: False")
    return compute_dtype(config.dtype)


def _load(name: str, config: Any) -> "Dataset":
    from rkbench.errors import UserError

    if name == "imagenet2012":
        from rkbench.workloads.imagenet import dataset

        for field in ("train_examples", "validation_examples"):
            if config[field]:
                raise UserError(
                    f"{field}={config[field]} needs a dataset in memory; {name} is streamed"
                )
        return dataset.load(config)
    from rkbench.workloads import datasets

    if layers := config.augment.rand_augment_layers:
        raise UserError(f"augment.rand_augment_layers={layers}: only ImageNet has RandAugment")
    loaded = datasets.load(name, config.data_dir)
    if config.train_examples:
        loaded = loaded.first(config.train_examples)
    return loaded.hold_out(config.validation_examples) if config.validation_examples else loaded


_LARGEST = 2**20  # of a model's sizes


def _check_sizes(model: Any) -> None:
    """Widths, depths and the like are whole numbers from 1; UserError for others."""
    from rkbench.errors import UserError

    for name, value in model.items():
        sizes = value if isinstance(value, tuple) else (value,) if type(value) is int else ()
        if not all(type(size) is int and 1 <= size <= _LARGEST for size in sizes):
            raise UserError(
                f"model.{name}={value!r}: whole numbers from 1 to {_LARGEST} are needed"
            )


def _image_classification(
    dataset_name: str,
    model_factory: Callable[[Any, int], tuple["nn.Module", bool]],
    config: Any,
    dataset: "Dataset | None",
    batch_axes: tuple[str, ...],
) -> "Workload":
    from rkbench.workloads.augment import Augmentation
    from rkbench.workloads.image_classification import (
        ImageClassification,
        compute_dtype,
        input_scaling,
    )

    on_device = [field.name for field in dataclasses.fields(Augmentation)]
    augment = Augmentation(**{name: config.augment[name] for name in on_device})
    dtype = compute_dtype(config.dtype)
    _check_sizes(config.model)
    dataset = dataset or _load(dataset_name, config)
    model, convolves = model_factory(config, dataset.num_classes)
    if hasattr(model, "batch_axes"):  # batch norm: the one layer that looks at other examples
        model = model.clone(batch_axes=batch_axes)
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
        drops=getattr(model, "dropout", 0) > 0,
    )


# name: (dataset, model)
_IMAGE_CLASSIFICATION = {
    "cifar100_wrn": ("cifar100", _wide_resnet),
    "cifar10_mlp": ("cifar10", _mlp),
    "cifar10_resnet18": ("cifar10", _resnet18),
    "cifar10_wrn": ("cifar10", _wide_resnet),
    "digits_mlp": ("digits", _mlp),
    "fashion_cnn": ("fashion_mnist", _cnn),
    "fashion_mlp": ("fashion_mnist", _mlp),
    "imagenet_vit": ("imagenet2012", _vit),
    "kmnist_mlp": ("kmnist", _mlp),
    "mnist_cnn": ("mnist", _cnn),
    "mnist_mlp": ("mnist", _mlp),
}

_Factory = Callable[[Any, "Dataset | None", tuple[str, ...]], "Workload"]

# Those of other kinds.
_WORKLOADS: dict[str, _Factory] = {}


def names() -> tuple[str, ...]:
    """The names of the workloads, sorted: rkbench's own, then those of plug-ins."""
    return *own_names(), *sorted(plugins.WORKLOADS.names())


def own_names() -> tuple[str, ...]:
    """The names of rkbench's own workloads, sorted: each has a config of the same name."""
    return tuple(sorted({*_IMAGE_CLASSIFICATION, *_WORKLOADS}))


def dataset_name(workload: str) -> str:
    """The dataset of a workload that classifies images, by TFDS's name.

    Raises:
      UserError: it is of another kind, or there is no such workload.
    """
    if workload in _IMAGE_CLASSIFICATION:
        return _IMAGE_CLASSIFICATION[workload][0]
    plugged = plugins.WORKLOADS.find(workload)
    if plugged is None or plugged.dataset is None:
        from rkbench.errors import UserError

        raise UserError(f"the dataset of workload {workload!r} is not known")
    return plugged.dataset


class _Plugged(NamedTuple):
    """A workload that was registered: its factory, and its dataset where it classifies images."""

    factory: _Factory
    dataset: str | None


def register(
    name: str,
    factory: _Factory | None = None,
    *,
    dataset: str | None = None,
    model: Callable[[Any, int], "nn.Module"] | None = None,
    convolves: bool = True,
) -> None:
    """Adds a workload of one's own, which `config.workload` then names.

    Either a workload that classifies images, by `dataset` and `model`, or any other by `factory`.

    Args:
      name: letters, digits, _ and -; none of rkbench's own.
      factory: (config, dataset or None, mesh axes of a batch) -> a `workloads.base.Workload`.
      dataset: the name of rkbench's dataset, or of one that `register_dataset` has added.
      model: (config, number of classes) -> a Flax module that is called with (images, train=bool).
        Its sizes come from the config's group `model`.
      convolves: whether the model runs XLA's convolution, which on CPUs is slow in compiled loops.

    The same plug-in may register a name again. See `rkbench.plugins`.

    Raises:
      UserError: the name is taken or no name, or neither kind is given whole.
    """
    from rkbench.errors import UserError

    classifies = dataset is not None and model is not None
    if classifies == (factory is not None) or (dataset is None) != (model is None):
        raise UserError(f"workload {name!r}: give either a factory, or a dataset and a model")
    if dataset is not None and model is not None:
        factory = functools.partial(
            _image_classification,
            dataset,
            lambda config, classes: (model(config, classes), convolves),
        )
    assert factory is not None
    plugins.WORKLOADS.add(name, _Plugged(factory, dataset), own_names())


def create(
    config: Any, dataset: "Dataset | None" = None, batch_axes: tuple[str, ...] = ()
) -> "Workload":
    """The workload `config.workload`, with its data loaded.

    Reads the fields `workload`, `data_dir`, `train_examples`, `validation_examples`,
    `input_workers`, `on_corrupt`, `model`, `input_scaling`, `augment`, `l2`, `label_smoothing`,
    `dtype` and `remat` of `config`. A `dataset` given takes the place of the workload's own;
    `batch_axes` are the mesh axes over which the statistics of a batch are averaged.

    Raises:
      UserError: an unknown name, a value out of range, or data that is not there and cannot be had.
    """
    if row := _IMAGE_CLASSIFICATION.get(config.workload):
        return _image_classification(*row, config, dataset, batch_axes)
    factory = _WORKLOADS.get(config.workload)
    if factory is None and (plugged := plugins.WORKLOADS.find(config.workload)) is not None:
        factory = plugged.factory
    if factory is None:
        from rkbench.errors import unknown

        raise unknown("workload", config.workload, names())
    return factory(config, dataset, batch_axes)
