"""ImageNet as a workload's dataset: the two splits as streams, and what is known of it."""

import dataclasses
import os
from typing import Any

import numpy as np

from rkbench.errors import UserError
from rkbench.workloads.imagenet import preprocess, records
from rkbench.workloads.imagenet.rand_augment import RandAugment
from rkbench.workloads.imagenet.records import Records
from rkbench.workloads.imagenet.source import HostStream

# Of each channel over the training set, in units of the pixels: the constants in common use, which
# AlgoPerf has as well (0.485, 0.456, 0.406 and 0.229, 0.224, 0.225 of the range).
MEANS = 255 * np.array([0.485, 0.456, 0.406])
STANDARD_DEVIATIONS = 255 * np.array([0.229, 0.224, 0.225])


@dataclasses.dataclass(frozen=True, eq=False)
class ImageNet:
    """ImageNet's 224 x 224 crops; `test` is the validation split, as nobody has the test labels.

    The counterpart of `workloads.datasets.ArrayDataset` for data that does not fit in memory.
    """

    train: HostStream
    test: HostStream

    validation = None  # none is held out of a stream
    sha256 = None  # nobody reads 150 GB for it
    name = records.NAME
    version = records.VERSION
    num_classes = records.CLASSES
    max_value = 255
    image_shape = (preprocess.SIZE, preprocess.SIZE, 3)

    @property
    def fingerprint(self) -> str:
        return self.train.records.fingerprint

    @property
    def sizes(self) -> tuple[int, int]:
        return len(self.train), len(self.test)

    @property
    def published(self) -> tuple[int, int]:
        return records.PUBLISHED["train"], records.PUBLISHED["validation"]

    def channel_moments(self) -> tuple[np.ndarray, np.ndarray]:
        return MEANS, STANDARD_DEVIATIONS


def load(config: Any) -> ImageNet:
    """ImageNet as the fields `data_dir`, `input_workers`, `on_corrupt` and `augment` describe it.

    Raises UserError for values out of range, and for data that is not there or not whole.
    """
    if config.input_workers < -1:
        raise UserError(f"input_workers is {config.input_workers}, must be >= -1")
    workers = (os.cpu_count() or 1) if config.input_workers == -1 else config.input_workers
    augment = config.augment
    rand_augment = RandAugment(augment.rand_augment_layers, augment.rand_augment_magnitude)
    folder = records.locate(config.data_dir)
    return ImageNet(
        HostStream(
            Records(folder, "train"),
            rand_augment=rand_augment,
            num_workers=workers,
            on_corrupt=config.on_corrupt,
        ),
        HostStream(Records(folder, "validation"), rand_augment=None, num_workers=workers),
    )
