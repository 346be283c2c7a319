"""Workloads by name: `create(config)` builds one, `names()` lists them without importing JAX.

To add one, write a factory `(name, dataset, config) -> Workload` here and give it a row in
`_WORKLOADS`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workloads.base import Workload
    from workloads.datasets import ArrayDataset


def _mlp(name: str, dataset: "ArrayDataset", config: Any) -> "Workload":
    from workloads.image_classification import ImageClassification, input_scaling
    from workloads.models.mlp import MLP

    return ImageClassification(
        name=name,
        dataset=dataset,
        model=MLP(tuple(config.model.hidden_sizes), dataset.num_classes),
        scale=input_scaling(config.input_scaling, dataset),
        l2=config.l2,
        label_smoothing=config.label_smoothing,
        convolves=False,
    )


def _cnn(name: str, dataset: "ArrayDataset", config: Any) -> "Workload":
    from workloads.image_classification import ImageClassification, input_scaling
    from workloads.models import convolution
    from workloads.models.cnn import CNN

    convolve = convolution.choose(config.model.convolution)
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


_WORKLOADS = {  # name: (dataset, factory)
    "digits_mlp": ("digits", _mlp),
    "fashion_cnn": ("fashion_mnist", _cnn),
    "fashion_mlp": ("fashion_mnist", _mlp),
    "mnist_cnn": ("mnist", _cnn),
    "mnist_mlp": ("mnist", _mlp),
}


def names() -> tuple[str, ...]:
    """The names of the workloads, sorted."""
    return tuple(sorted(_WORKLOADS))


def create(config: Any, dataset: "ArrayDataset | None" = None) -> "Workload":
    """The workload `config.workload`, with its data loaded.

    Reads the fields `workload`, `data_dir`, `model`, `input_scaling`, `l2` and `label_smoothing`
    of `config`. A `dataset` given takes the place of the workload's own.

    Raises:
      UserError: an unknown name, a value out of range, or data that is not there and cannot be had.
    """
    if config.workload not in _WORKLOADS:
        from rkbench.errors import unknown

        raise unknown("workload", config.workload, names())
    from workloads import datasets

    own, factory = _WORKLOADS[config.workload]
    return factory(config.workload, dataset or datasets.load(own, config.data_dir), config)
