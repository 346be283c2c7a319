"""ImageNet from TFDS's TFRecord form to its ArrayRecord form, with TFDS's own writer.

The JPEGs are carried over undecoded, in the order of the source. The work goes on in a folder
`<version>.incomplete`, split after split, and takes its final name when all are there and checked:
what has the final name is whole. Of all that concerns ImageNet, only this imports TensorFlow.
"""

import hashlib
import io
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from rkbench import files
from rkbench.errors import UserError
from rkbench.records import read_object
from rkbench.workloads import tfds_checks
from rkbench.workloads.imagenet import records
from rkbench.workloads.imagenet.records import Example, Records

LOG = "conversion.json"  # {split: {"examples": ..., "sha256": ...}} of the splits that are done
_EXAMPLES_PER_SHARD = 4096  # about 450 MB of ImageNet
_EXAMPLES_PER_WRITE = 256  # after each, the writer writes the description of the dataset anew

Log = dict[str, dict[str, Any]]
Watch = Callable[[str, int, Iterable[Example]], Iterable[Example]]
"""(what is going on, number of examples, examples) -> the examples, while showing progress."""


def _unwatched(what: str, total: int, examples: Iterable[Example]) -> Iterable[Example]:
    del what, total
    return examples


def convert(source: Path, target: Path, watch: Watch = _unwatched) -> Log:
    """Writes the dataset in the folder `source` to the folder `target`, in ArrayRecord form.

    A split that an earlier, interrupted call has finished is kept; one that it left half-written is
    replaced; where `target` is there already, nothing is written. Every split is read back, and
    must have the source's number of examples and checksum.

    Args:
      source: a TFDS folder, `<data_dir>/imagenet2012/<version>`, in TFRecord form.
      target: the folder to be made, of the same kind.
      watch: shows progress.

    Returns, by split, the number of examples and the SHA-256 over all (label, JPEG).
    Raises UserError, with file and record, where the source is damaged or not as it says.
    """
    if (target / records.INFO).is_file():
        return _existing(target)
    if records.file_format(source) != "tfrecord":
        raise UserError(f"{source}: no dataset in TFRecord form")
    tfds_checks.check(source, records.NAME, records.IMAGE_SHAPE, records.SPLITS)
    import tensorflow_datasets as tfds

    try:
        info = tfds.builder_from_directory(str(source)).info
    except Exception as error:  # json, protobuf and TFDS, each their own
        raise UserError(f"{source} is not a dataset of TFDS: {error}") from error
    staging = target.with_name(f"{target.name}.incomplete")
    staging.mkdir(parents=True, exist_ok=True)
    for path in (staging, *staging.iterdir()):
        if path.is_symlink():  # TFDS would write through it
            raise UserError(f"{path} is in the way: it must be no link")
    done = _read_log(staging)
    for split, split_info in info.splits.items():
        examples = split_info.num_examples
        if examples and done.get(split, {}).get("examples") != examples:
            done.pop(split, None)
            writer = _writer(info, staging, done)
            done[split] = _convert_split(writer, split_info, staging, watch)
            _write_log(staging, done)
    os.replace(staging, target)
    return done


def _existing(target: Path) -> Log:
    if records.file_format(target) != "array_record":
        raise UserError(f"{target}: holds a dataset in another form; choose another --output_dir")
    done = _read_log(target)
    if not done:
        raise UserError(
            f"{target}: holds a dataset in ArrayRecord form that is not of this command"
        )
    for split in done:
        if len(Records(target, split)) != done[split]["examples"]:
            raise UserError(
                f"{target}: split {split} is not as it was converted; remove the folder"
            )
    return done


def _convert_split(writer: Any, split_info: Any, staging: Path, watch: Watch) -> dict[str, Any]:
    split, total = split_info.name, split_info.num_examples
    digest = _Digest()
    writer.initialize_splits([split])
    examples = digest.over(watch(f"{split}: writing", total, _source_examples(split_info)))
    while part := list(itertools.islice(examples, _EXAMPLES_PER_WRITE)):
        writer.add_examples({split: [_features(example) for example in part]})
    writer.close_splits([split])

    written = Records(staging, split)
    check = _Digest()
    for _ in check.over(watch(f"{split}: checking", total, map(written.__getitem__, range(total)))):
        pass
    if check.result() != digest.result():
        raise UserError(f"{staging}: split {split} does not read as it was written; disk failure?")
    return digest.result()


def _source_examples(split_info: Any) -> Iterator[Example]:
    """The examples of a split in TFRecord form, in order; UserError where a file is not whole."""
    tf = _import_tensorflow()
    for path, expected in zip(split_info.filepaths, split_info.shard_lengths, strict=True):
        count = 0
        try:
            for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
                yield records.parse(record, f"{path}: record {count}")
                count += 1
        except tf.errors.OpError as error:
            reason = str(error).partition("\n")[0]
            raise UserError(f"{path}: record {count} cannot be read: {reason}") from error
        if count != expected:
            raise UserError(f"{path}: has {count} of {expected} records")


def _import_tensorflow() -> Any:
    from rkbench.workloads.tfds_source import quiet_tensorflow

    quiet_tensorflow()
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")  # nothing here needs one
    return tf


def _features(example: Example) -> dict[str, Any]:
    """What TFDS's writer takes: a file of a JPEG is stored as it is."""
    return {
        "image": io.BytesIO(example.image),
        "label": example.label,
        "file_name": example.file_name,
    }


def _writer(info: Any, staging: Path, done: Log) -> Any:
    """A writer that appends to the splits that are `done`; what is left of others is removed."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import dataset_info

    for shard in staging.glob(f"{info.name}-*.array_record-*"):
        if not any(shard.name.startswith(f"{info.name}-{split}.") for split in done):
            shard.unlink()
    identity = dataset_info.DatasetIdentity(
        name=info.name,
        version=info.version,
        data_dir=str(staging),
        module_name=info.module_name,
    )
    new = tfds.core.DatasetInfo(
        builder=identity,
        description=info.description,
        features=info.features,
        supervised_keys=info.supervised_keys,
        homepage=info.homepage,
        citation=info.citation,
    )
    if done:
        new.read_from_directory(str(staging))
        kept: Any = [new.splits[split] for split in done]
        new.set_splits(tfds.core.SplitDict(kept))
        new.write_to_directory(str(staging))
    return tfds.core.SequentialWriter(
        new, _EXAMPLES_PER_SHARD, overwrite=not done, file_format="array_record"
    )


class _Digest:
    """Counts examples, and SHA-256 over their labels and JPEGs, as they pass."""

    def __init__(self):
        self._examples, self._sha256 = 0, hashlib.sha256()

    def over(self, examples: Iterable[Example]) -> Iterator[Example]:
        """The examples, each counted before it is given on."""
        for example in examples:
            self._examples += 1
            self._sha256.update(f"{example.label} {len(example.image)} ".encode())
            self._sha256.update(example.image)
            yield example

    def result(self) -> dict[str, Any]:
        """An entry of the log."""
        return {"examples": self._examples, "sha256": self._sha256.hexdigest()}


def _read_log(folder: Path) -> Log:
    path = folder / LOG
    return read_object(path, "the log of a conversion") if path.exists() else {}


def _write_log(folder: Path, done: Log) -> None:
    """In one step: an interruption leaves the log before or after it, nothing between."""
    files.write_text(folder / LOG, json.dumps(done, indent=2) + "\n")
