"""The examples of a split of ImageNet by number, from TFDS's ArrayRecord files, undecoded.

TFDS finds the files and gives the format of a record; TensorFlow is not imported.
"""

import dataclasses
import functools
import hashlib
import json
from pathlib import Path

from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]
from array_record.python.array_record_data_source import ArrayRecordDataSource

from rkbench import paths
from rkbench.errors import UserError
from rkbench.workloads import tfds_checks

NAME, VERSION, CLASSES = "imagenet2012", "5.1.0", 1000
PUBLISHED = {"train": 1_281_167, "validation": 50_000}  # examples of the whole dataset
CONVERTED = "array_record"  # below a TFDS folder, where `rkbench convert` writes by default
SPLITS = PUBLISHED | {"test": 100_000}
IMAGE_SHAPE = (tfds_checks.ANY, tfds_checks.ANY, 3)
INFO = tfds_checks.INFO


@dataclasses.dataclass(frozen=True)
class Example:
    """`image` is a JPEG as stored, `label` a class (-1 in the unlabelled test split)."""

    image: bytes
    label: int
    file_name: str


def file_format(folder: Path) -> str | None:
    """The "fileFormat" that TFDS wrote into `folder`; None where no dataset is prepared there."""
    try:
        return json.loads((folder / INFO).read_text(encoding="utf-8"))["fileFormat"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / INFO}: not the description of a dataset: {error}") from error


def locate(data_dir: str | None = None) -> Path:
    """The folder with the dataset in ArrayRecord form: in the TFDS folder, or as converted there.

    Raises UserError where there is none, with the remedy.
    """
    root = paths.data_folder(data_dir)
    prepared, converted = (folder / NAME / VERSION for folder in (root, root / CONVERTED))
    for folder in (prepared, converted):
        if file_format(folder) == "array_record":
            return folder
    if file_format(prepared) is None:
        raise UserError(
            f"dataset {NAME} {VERSION} is neither in {prepared} nor in {converted}; it is not "
            "downloadable: prepare it with TFDS from the archives of image-net.org, then run "
            f"rkbench convert --dataset={NAME}"
        )
    raise UserError(
        f"{prepared} is in {file_format(prepared)} form, which cannot be read at random; convert "
        f"it once: rkbench convert --dataset={NAME} --data_dir={root}"
    )


def parse(record: bytes, where: str) -> Example:
    """The example of a serialized tf.train.Example; UserError with `where` if it is not one."""
    from google.protobuf.message import DecodeError
    from tensorflow_datasets.proto import tf_example_pb2

    try:
        parsed = tf_example_pb2.Example.FromString(record)  # pyright: ignore[reportAttributeAccessIssue]
        feature = parsed.features.feature
        (image,) = feature["image"].bytes_list.value
        (label,) = feature["label"].int64_list.value
        (file_name,) = feature["file_name"].bytes_list.value
    except (DecodeError, ValueError) as error:  # no protobuf, or not one value of each
        raise UserError(f"{where}: not an example of {NAME}: {error}") from error
    return Example(image, label, file_name.decode(errors="replace"))


class Records:
    """Random access to the examples of a split, from 0 to len - 1; picklable, read-only.

    Opening looks into every shard: a file that is missing, short or damaged, or holds another
    number of records than dataset_info.json says, is found before the first step.

    Args:
      folder: as `locate` gives it.
      split: "train" or "validation".

    Raises UserError with the file that is wrong, or with the splits there are. A record that cannot
    be read later, because its file was changed or its disk is gone, is an OSError.
    """

    def __init__(self, folder: Path, split: str):
        self.folder, self.split = folder, split
        shards = _shards(folder, split)
        for path, length in shards:
            _check(path, length)
        self._shards = shards
        # The bounds spare the workers counting the records again.
        self._source = ArrayRecordDataSource([f"{path}[0:{length}]" for path, length in shards])

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        try:
            record = self._source[index]
        except Exception as error:  # array_record and riegeli raise what they like
            raise OSError(f"{self.where(index)} cannot be read: {error}") from error
        if not record:  # what array_record gives for a record beyond the end of the file
            raise OSError(f"{self.where(index)} cannot be read: the file is shorter than it was")
        return parse(record, self.where(index))

    def labelled(self, index: int) -> Example:
        """The example, whose label is a class; UserError for any other label."""
        example = self[index]
        if not 0 <= example.label < CLASSES:
            raise UserError(
                f"{self.where(index)} ({example.file_name}): label {example.label} is outside "
                f"0..{CLASSES - 1}"
            )
        return example

    def where(self, index: int) -> str:
        """File and record number within it of an example, for messages."""
        for path, length in self._shards:
            if index < length:
                return f"{path}: record {index}"
            index -= length
        raise IndexError(index)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Tells a subset, or another preparation, from the whole: the shards' names and sizes.

        The content of 150 GB is not read for it.
        """
        digest = hashlib.sha256()
        for path, length in self._shards:
            digest.update(f"{Path(path).name} {length} {Path(path).stat().st_size}\n".encode())
        return digest.hexdigest()[:16]


def _shards(folder: Path, split: str) -> list[tuple[str, int]]:
    import tensorflow_datasets as tfds

    if file_format(folder) != "array_record":
        raise UserError(f"{folder}: no dataset in ArrayRecord form")
    tfds_checks.check(folder, NAME, IMAGE_SHAPE, SPLITS)
    try:
        splits = tfds.builder_from_directory(str(folder)).info.splits
    except Exception as error:  # of TFDS, protobuf or json: all mean a bad folder
        raise UserError(f"{folder}: cannot be read: {error}") from error
    if split not in splits or not splits[split].num_examples:
        there = ", ".join(name for name in splits if splits[name].num_examples) or "none"
        raise UserError(f"{folder}: no split {split!r} of {NAME}; there are: {there}")
    info = splits[split]
    return [(str(p), n) for p, n in zip(info.filepaths, info.shard_lengths, strict=True)]


def _check(path: str, expected: int) -> None:
    if not Path(path).is_file():
        raise UserError(f"{path}: is missing")
    try:
        reader = array_record_module.ArrayRecordReader(path)
        found = reader.num_records()
        reader.close()
    except Exception as error:  # array_record and riegeli raise what they like
        raise UserError(f"{path}: short or damaged: {error}") from error
    if found != expected:
        raise UserError(f"{path}: has {found} of {expected} records; short or damaged")
