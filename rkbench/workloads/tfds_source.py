"""Image datasets from a TFDS folder as plain arrays; TensorFlow is imported only to read them."""

import dataclasses
import hashlib
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from rkbench import paths
from rkbench.errors import UserError
from rkbench.workloads import tfds_checks

_PROBE_SECONDS = 10


@dataclasses.dataclass(frozen=True)
class TfdsSource:
    """A TFDS dataset with the features "image" (uint8) and "label", at a pinned version.

    `origin` is a URL that TFDS downloads from: it is asked first, because TFDS itself waits without
    a limit for a network that swallows packets. `num_classes`, `image_shape` (height, width,
    channels), `train_examples` and `test_examples` are those of the dataset as published: a folder
    with fewer examples is a subset.
    """

    name: str
    version: str
    origin: str
    num_classes: int
    image_shape: tuple[int, int, int]
    train_examples: int
    test_examples: int

    def locate(self, data_dir: str | None) -> Path:
        """The folder `<data_dir>/<name>/<version>`, prepared by TFDS if it is not there.

        `data_dir` is the one given, else `$TFDS_DATA_DIR`, else TFDS's default. Raises UserError
        where the data is neither there nor downloadable.
        """
        root = paths.data_folder(data_dir)
        prepared = root / self.name / self.version
        if not (prepared / "dataset_info.json").is_file():
            self._prepare(root)
        return prepared

    def fingerprint(self, prepared: Path) -> str:
        """Tells preparations apart: by dataset_info.json, and the shards' names and sizes.

        A subset of the same version has another fingerprint; see `content` too.
        """
        digest = hashlib.sha256((prepared / "dataset_info.json").read_bytes())
        for shard in sorted(prepared.glob(f"{self.name}-*")):
            digest.update(f"{shard.name} {shard.stat().st_size}\n".encode())
        return digest.hexdigest()[:16]

    def content(self, prepared: Path) -> str:
        """16 digits of the SHA-256 over the bytes of all files from which `read` makes arrays.

        They are read at each call: a rewritten file may have the size and the time of the old one.
        Raises OSError where one cannot be read.
        """
        digest = hashlib.sha256()
        shards = sorted(prepared.glob(f"{self.name}-*"))
        for path in (prepared / tfds_checks.INFO, prepared / tfds_checks.FEATURES, *shards):
            digest.update(f"{path.name}\n".encode())
            with open(path, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()[:16]

    def read(self, prepared: Path) -> dict[str, np.ndarray]:
        """Both splits, in the order of the shards, as one flat dict of arrays.

        train_image, test_image: uint8 [N, H, W, C]; train_label, test_label: int32 [N].
        Raises UserError where the folder is damaged, is of another dataset, or holds fewer examples
        than it says.
        """
        tfds_checks.check(
            prepared,
            self.name,
            self.image_shape,
            {"train": self.train_examples, "test": self.test_examples},
        )
        logging.info("reading %s through TFDS once; it is kept as plain arrays", prepared)
        tfds = _import_tfds()
        arrays = {}
        try:
            builder = tfds.builder_from_directory(str(prepared))
            for split in ("train", "test"):
                examples = _read_split(tfds, builder, split)
                expected = builder.info.splits[split].num_examples
                if len(examples["label"]) != expected:
                    raise ValueError(f"{split}: {len(examples['label'])} of {expected} examples")
                arrays[f"{split}_image"] = examples["image"].astype(np.uint8, casting="no")
                arrays[f"{split}_label"] = examples["label"].astype(np.int32)
        except Exception as error:  # of TensorFlow, TFDS, protobuf or json: all mean a bad folder
            raise UserError(
                f"dataset {self.name} {self.version}: cannot read {prepared}: "
                f"{_first_line(error)}; remove that folder and let TFDS prepare it again"
            ) from error
        return arrays

    def _prepare(self, root: Path) -> None:
        try:
            urllib.request.urlopen(
                urllib.request.Request(self.origin, method="HEAD"), timeout=_PROBE_SECONDS
            ).close()
        except urllib.error.HTTPError:
            pass  # it answered: there is a network, and TFDS will say what is wrong
        except OSError as error:  # no name, no route, refused, timed out
            raise self._missing(root, f"no download from {self.origin}: {error}") from error
        logging.info("preparing %s %s in %s with TFDS", self.name, self.version, root)
        tfds = _import_tfds()
        try:
            builder = tfds.builder(f"{self.name}:{self.version}", data_dir=str(root))
            builder.download_and_prepare()
        except Exception as error:  # requests, TFDS, TensorFlow and the file system, each their own
            raise self._missing(root, f"TFDS failed: {_first_line(error)}") from error

    def _missing(self, root: Path, reason: str) -> UserError:
        others = "" if "TFDS_DATA_DIR" in os.environ else " (TFDS_DATA_DIR is not set)"
        return UserError(
            f"dataset {self.name} {self.version} is not in {root}{others} and cannot be prepared "
            f"there ({reason}); point --config.data_dir or TFDS_DATA_DIR at a TFDS folder that has "
            f"{self.name}/{self.version}, or run once where there is a network"
        )


def _import_tfds() -> Any:
    quiet_tensorflow()
    import tensorflow as tf
    import tensorflow_datasets as tfds

    tf.config.set_visible_devices([], "GPU")  # they are JAX's
    tfds.disable_progress_bar()
    return tfds


def _read_split(tfds: Any, builder: Any, split: str) -> dict[str, np.ndarray]:
    in_order = tfds.ReadConfig(interleave_cycle_length=1)
    return tfds.as_numpy(
        builder.as_dataset(split=split, batch_size=-1, shuffle_files=False, read_config=in_order)
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def quiet_tensorflow() -> None:
    """Silences what TensorFlow says when it is imported; to be called before that."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # else it announces the default, on
