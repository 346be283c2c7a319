"""Small image datasets as NumPy arrays: `load("mnist")`."""

import dataclasses
import hashlib
import importlib.metadata
from collections.abc import Callable
from typing import Any

import numpy as np

from rkbench import plugins
from rkbench.errors import UserError, unknown
from rkbench.workloads import array_cache
from rkbench.workloads.tfds_source import TfdsSource

_DIGITS_TEST = 500


@dataclasses.dataclass(frozen=True, eq=False)
class ArrayDataset:
    """A dataset that fits in memory, in a fixed order.

    `train` and `test` are {"image": uint8 [N, H, W, C], "label": int32 [N]} with pixels from 0 to
    `max_value` and labels from 0 to `num_classes` - 1. `fingerprint` tells one preparation of a
    version from another (a subset from the whole). `published` is the number of (training, test)
    examples of the whole dataset; None: these. `validation` is what `hold_out` took, or None.
    `sha256` is over all pixels and labels as they were loaded, before any were left out or held
    out; None: unknown.
    """

    name: str
    version: str
    fingerprint: str
    num_classes: int
    max_value: int
    train: dict[str, np.ndarray]
    test: dict[str, np.ndarray]
    published: tuple[int, int] | None = None
    validation: dict[str, np.ndarray] | None = None
    sha256: str | None = None

    def __post_init__(self):
        splits = {"train": self.train, "test": self.test}
        if self.validation is not None:
            splits["validation"] = self.validation
        for split, arrays in splits.items():
            images, labels = arrays["image"], arrays["label"]
            if len(images) != len(labels) or not len(labels):
                raise self._bad(f"{split} has {len(images)} images and {len(labels)} labels")
            if labels.min() < 0 or labels.max() >= self.num_classes:
                raise self._bad(f"{split} has a label outside 0..{self.num_classes - 1}")
            if images.max() > self.max_value:
                raise self._bad(f"{split} has a pixel over {self.max_value}")

    @property
    def sizes(self) -> tuple[int, int]:
        """The number of (training, test) examples."""
        return len(self.train["label"]), len(self.test["label"])

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Height, width, channels."""
        return self.train["image"].shape[1:]

    def first(self, examples: int) -> "ArrayDataset":
        """The dataset with the first so many training examples only, and the whole test set.

        Raises UserError where there are not so many.
        """
        train, test = self.sizes
        if not 1 <= examples <= train:
            raise UserError(f"train_examples={examples} must lie between 1 and {train} (0: all)")
        return dataclasses.replace(
            self,
            fingerprint=f"{self.fingerprint}-first-{examples}",
            train={name: array[:examples] for name, array in self.train.items()},
            published=self.published or (train, test),
        )

    def hold_out(self, examples: int) -> "ArrayDataset":
        """The dataset with the last so many training examples for validation instead.

        Raises UserError where nothing would be left to train on.
        """
        train, test = self.sizes
        if not 1 <= examples < train:
            raise UserError(
                f"validation_examples={examples} must lie between 1 and {train - 1} (0: none)"
            )
        kept = train - examples
        return dataclasses.replace(
            self,
            fingerprint=f"{self.fingerprint}-without-last-{examples}",
            train={name: array[:kept] for name, array in self.train.items()},
            validation={name: array[kept:] for name, array in self.train.items()},
            published=self.published or (train, test),
        )

    def channel_moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of each channel over the training set: float64 [C] each."""
        images = self.train["image"]
        channels = [moments(images[..., c], self.max_value) for c in range(images.shape[-1])]
        means, deviations = np.array(channels).T
        return means, deviations

    def _bad(self, what: str) -> UserError:
        return UserError(f"dataset {self.name} {self.version} ({self.fingerprint}): {what}")


def subset_of(sizes: tuple[int, int], published: tuple[int, int] | None) -> dict[str, Any]:
    """What a run's record says of a subset; {} where the dataset is whole.

    Both are numbers of (training, test) examples; `published` is None where `sizes` is all.
    """
    train, test = published or sizes
    if sizes[0] >= train and sizes[1] >= test:
        return {}
    return {"subset": True, "full_train_examples": train, "full_test_examples": test}


def moments(pixels: np.ndarray, max_value: int) -> tuple[np.float64, np.float64]:
    """Mean and standard deviation of unsigned integers up to `max_value`, by their counts."""
    counts = sum(
        np.bincount(part.ravel(), minlength=max_value + 1)
        for part in np.array_split(pixels, 64)  # bounds the memory
    )
    values = np.arange(max_value + 1)
    mean = np.average(values, weights=counts)
    return mean, np.sqrt(np.average((values - mean) ** 2, weights=counts))


def load(name: str, data_dir: str | None = None) -> ArrayDataset:
    """The dataset called `name`: "digits", or one of `TFDS`.

    `data_dir` is a TFDS folder (see `TfdsSource.locate`); "digits" comes with scikit-learn and
    needs none. Only the first load of a dataset imports TensorFlow, or scikit-learn: later ones
    read plain arrays from `rkbench.paths.cache_folder()`.

    Raises UserError for an unknown name, for data that is neither there nor downloadable, and for
    data that is damaged.
    """
    if name == "digits":
        return _load_digits()
    if name in TFDS:
        return _load_tfds(TFDS[name], data_dir)
    if (plugged := plugins.DATASETS.find(name)) is not None:
        return plugged.loader(data_dir)
    raise unknown("dataset", name, (*names(), *plugins.DATASETS.names()))


def names() -> tuple[str, ...]:
    """The names of rkbench's own datasets."""
    return (*TFDS, *_OTHERS)


def synthetic(name: str, examples: int) -> ArrayDataset:
    """Noise in the shape of the images of `name`, ImageNet's too: for costs, not for results.

    Training and test set are the same `examples` images of random classes.
    """
    if name in TFDS:
        shape, num_classes, max_value = TFDS[name].image_shape, TFDS[name].num_classes, 255
    elif name in _OTHERS:
        shape, num_classes, max_value = _OTHERS[name][0]
    else:
        shape, num_classes, max_value = _registered(name).shape
    rng = np.random.default_rng(0)
    split = {
        "image": rng.integers(0, max_value + 1, (examples, *shape), np.uint8),
        "label": rng.integers(0, num_classes, examples, np.int32),
    }
    return ArrayDataset(name, "synthetic", "synthetic", num_classes, max_value, split, split)


def published(name: str) -> tuple[int, int]:
    """The number of (training, test) examples of the whole dataset `name`."""
    if name in TFDS:
        return TFDS[name].train_examples, TFDS[name].test_examples
    return _OTHERS[name][1] if name in _OTHERS else _registered(name).published


def _registered(name: str) -> Any:
    """The dataset of a plug-in."""
    if (plugged := plugins.DATASETS.find(name)) is None:
        raise unknown("dataset", name, (*names(), *plugins.DATASETS.names()))
    return plugged


def _load_tfds(source: TfdsSource, data_dir: str | None) -> ArrayDataset:
    prepared = source.locate(data_dir)
    try:
        fingerprint, content = source.fingerprint(prepared), source.content(prepared)
    except OSError as error:
        raise UserError(f"dataset {source.name} cannot be read: {error}") from error
    array_cache.remove(f"{source.name}-{source.version}-{fingerprint}")  # of earlier versions
    return _from_cache(
        source.name,
        source.version,
        fingerprint,
        content,
        num_classes=source.num_classes,
        max_value=255,
        published=(source.train_examples, source.test_examples),
        make=lambda: source.read(prepared),
    )


def _load_digits() -> ArrayDataset:
    version = importlib.metadata.version("scikit-learn")
    return _from_cache(
        "digits", version, "bundled", "bundled", num_classes=10, max_value=16, make=_read_digits
    )


def _from_cache(
    name: str,
    version: str,
    fingerprint: str,
    content: str,
    *,
    num_classes: int,
    max_value: int,
    make: Callable[[], array_cache.Arrays],
    published: tuple[int, int] | None = None,
) -> ArrayDataset:
    def made() -> array_cache.Arrays:
        arrays = make()
        return arrays | {"sha256": np.array(digest_of(arrays))}

    arrays = array_cache.cached(f"{name}-{version}-{content}", made)
    return ArrayDataset(
        name=name,
        version=version,
        fingerprint=fingerprint,
        num_classes=num_classes,
        max_value=max_value,
        train={"image": arrays["train_image"], "label": arrays["train_label"]},
        test={"image": arrays["test_image"], "label": arrays["test_label"]},
        published=published,
        sha256=str(arrays["sha256"]) if "sha256" in arrays else digest_of(arrays),
    )


def digest_of(arrays: array_cache.Arrays) -> str:
    """The SHA-256 of arrays, names, shapes and dtypes: the same however they were stored."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _read_digits() -> array_cache.Arrays:
    """scikit-learn's 1,797 digits, 8x8 pixels of 0 to 16: 1,297 to train on, 500 to test.

    Every 3.6th example of the list sorted by label (then by position) is a test example: each class
    has its share to within one, whatever the versions of the libraries.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = digits.images.astype(np.uint8)[..., np.newaxis]  # type: ignore[attr-defined]
    labels = digits.target.astype(np.int32)  # type: ignore[attr-defined]
    by_label = np.argsort(labels, kind="stable")
    positions = ((np.arange(_DIGITS_TEST) + 0.5) * len(labels) / _DIGITS_TEST).astype(int)
    is_test = np.zeros(len(labels), bool)
    is_test[by_label[positions]] = True
    return {
        "train_image": images[~is_test],
        "train_label": labels[~is_test],
        "test_image": images[is_test],
        "test_label": labels[is_test],
    }


_SOURCES = (
    TfdsSource(
        "mnist",
        "3.0.1",
        "https://storage.googleapis.com/cvdf-datasets/mnist/train-images-idx3-ubyte.gz",
        num_classes=10,
        image_shape=(28, 28, 1),
        train_examples=60_000,
        test_examples=10_000,
    ),
    TfdsSource(
        "fashion_mnist",
        "3.0.1",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/train-images-idx3-ubyte.gz",
        num_classes=10,
        image_shape=(28, 28, 1),
        train_examples=60_000,
        test_examples=10_000,
    ),
    TfdsSource(
        "kmnist",
        "3.0.1",
        "http://codh.rois.ac.jp/kmnist/dataset/kmnist/train-images-idx3-ubyte.gz",
        num_classes=10,
        image_shape=(28, 28, 1),
        train_examples=60_000,
        test_examples=10_000,
    ),
    TfdsSource(
        "cifar10",
        "3.0.2",
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        num_classes=10,
        image_shape=(32, 32, 3),
        train_examples=50_000,
        test_examples=10_000,
    ),
    TfdsSource(  # its "label" is the fine one
        "cifar100",
        "3.0.2",
        "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        num_classes=100,
        image_shape=(32, 32, 3),
        train_examples=50_000,
        test_examples=10_000,
    ),
)
TFDS: dict[str, TfdsSource] = {source.name: source for source in _SOURCES}
"""Datasets that TFDS prepares and memory holds: a row is all that another one needs."""

# (image shape, number of classes, largest pixel), (training, test) examples
_OTHERS = {
    "digits": (((8, 8, 1), 10, 16), (1_297, _DIGITS_TEST)),
    "imagenet2012": (((224, 224, 3), 1000, 255), (1_281_167, 50_000)),
}
