"""Datasets of users' projects, by name."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from rkbench import plugins
from rkbench.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from rkbench.workloads.datasets import ArrayDataset


class Dataset(NamedTuple):
    """A dataset that was registered.

    Attributes:
      loader: (config.data_dir) -> the dataset.
      shape: of an image, the number of classes, the largest pixel.
      published: the number of (training, test) examples.
    """

    loader: "Callable[[str | None], ArrayDataset]"
    shape: tuple[tuple[int, ...], int, int]
    published: tuple[int, int]


def register_dataset(
    name: str,
    read: "Callable[[str | None], Mapping[str, np.ndarray]]",
    *,
    image_shape: tuple[int, int, int],
    num_classes: int,
    train_examples: int,
    test_examples: int,
    max_value: int = 255,
    version: str = "1",
) -> None:
    """Adds a dataset of images of one's own, which a workload then names.

    Args:
      name: letters, digits, _ and -; none of rkbench's own.
      read: (config.data_dir) -> "train_image", "test_image": uint8 [N, height, width, channels]
        with values up to `max_value`, and "train_label", "test_label": int32 [N] from 0 to
        `num_classes` - 1. It is called whenever a run starts, and must give the same each time:
        a run's record has the SHA-256 of the arrays, and no run resumes on others.
      image_shape: height, width and channels.
      num_classes: how many there are.
      train_examples: the size of the training set, which costs and budgets are computed from.
      test_examples: that of the test set.
      max_value: the pixel that input scaling "unit" maps to 1.
      version: of the data, for the record.

    The same plug-in may register a name again. See `rkbench.plugins`.

    Raises:
      UserError: the name is taken or no name.
    """
    from rkbench.workloads import datasets

    def loader(data_dir: str | None) -> "ArrayDataset":
        arrays = _checked(name, read(data_dir), image_shape, published)
        digest = datasets.digest_of(arrays)
        train, test = (
            {field: arrays[f"{split}_{field}"] for field in ("image", "label")}
            for split in ("train", "test")
        )
        return datasets.ArrayDataset(
            name, version, digest[:16], num_classes, max_value, train, test, sha256=digest
        )

    published = (train_examples, test_examples)
    plugged = Dataset(loader, (tuple(image_shape), num_classes, max_value), published)
    plugins.DATASETS.add(name, plugged, datasets.names())


def _checked(
    name: str,
    arrays: "Mapping[str, np.ndarray]",
    image_shape: tuple[int, ...],
    sizes: tuple[int, int],
) -> "dict[str, np.ndarray]":
    """The arrays that a plug-in has read, if they are what it said of them."""
    expected = {}
    for split, size in zip(("train", "test"), sizes, strict=True):
        expected[f"{split}_image"] = "uint8", (size, *image_shape)
        expected[f"{split}_label"] = "int32", (size,)
    for key, (dtype, shape) in expected.items():
        array = arrays.get(key)
        found = str(getattr(array, "dtype", None)), getattr(array, "shape", None)
        if found != (dtype, shape):
            raise UserError(
                f"dataset {name!r}: {key} must be {dtype} of shape {shape}, and is {found[0]} of "
                f"shape {found[1]}"
            )
    return {key: arrays[key] for key in expected}
