"""ImageNet's batches: functions of seed and step, sliced, whole epochs; each kind of damage."""

import pathlib
import shutil
import subprocess
import sys
import textwrap

import imagenet_data
import numpy as np
import pytest

from rkbench.errors import UserError
from rkbench.workloads.batches import batch_indices
from rkbench.workloads.imagenet import preprocess, records, source
from rkbench.workloads.imagenet.draws import Draws
from rkbench.workloads.imagenet.rand_augment import RandAugment
from rkbench.workloads.imagenet.records import Records
from rkbench.workloads.imagenet.source import HostStream

EXAMPLES, EVALUATED = 23, 11
_ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    train, validation = imagenet_data.examples(EXAMPLES), imagenet_data.examples(EVALUATED)
    splits = {"train": train, "validation": validation}
    return imagenet_data.write(tmp_path_factory.mktemp("tfds"), splits, per_shard=6)


@pytest.fixture
def copied(folder, tmp_path) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(folder, tmp_path / "copy"))


def take(stream: HostStream, steps: int, *arguments, **options) -> list[dict[str, np.ndarray]]:
    batches = stream.batches(*arguments, **options)
    taken = [next(batches) for _ in range(steps)]
    batches.close()
    return taken


def assert_equal(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys() == {"image", "label"}
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], strict=True)


def test_batch_is_the_examples_of_the_index_stream_with_draws_of_their_own(folder):
    (batch,) = take(HostStream.open(folder, "train"), 1, 4, 2, 5)
    (indices,) = batch_indices(4, 2, 1, 5, EXAMPLES)
    stored = Records(folder, "train")
    assert batch["image"].shape == (5, 224, 224, 3)
    assert batch["image"].dtype == np.uint8
    assert batch["label"].dtype == np.int32
    np.testing.assert_array_equal(batch["label"], indices)  # example i has label i
    for position, index in enumerate(indices):
        expected = preprocess.train_image(
            stored[int(index)].image, Draws(4, 2, position), RandAugment()
        )
        np.testing.assert_array_equal(batch["image"][position], expected)


def test_resuming_equals_going_on(folder):
    stream = HostStream.open(folder, "train")
    assert_equal(take(stream, 6, 1, 0, 7)[4:], take(stream, 2, 1, 4, 7))


def test_seeds_and_visits_differ(folder):
    stream = HostStream.open(folder, "train")
    (one,), (other,) = take(stream, 1, 1, 0, EXAMPLES), take(stream, 1, 2, 0, EXAMPLES)
    (later,) = take(stream, 1, 1, 1, EXAMPLES)
    assert list(one["label"]) != list(other["label"])
    first, again = np.argsort(one["label"]), np.argsort(later["label"])
    differ = [
        np.any(one["image"][i] != later["image"][j]) for i, j in zip(first, again, strict=True)
    ]
    assert all(differ)


def test_slices_of_processes_make_up_the_global_batch(folder, monkeypatch):
    monkeypatch.setattr(source, "CHUNK", 2)  # several, uneven chunks a slice
    stream = HostStream.open(folder, "train")
    whole = take(stream, 2, 0, 3, 10)
    for size in (5, 2):
        slices = [
            take(stream, 2, 0, 3, 10, range(i * size, (i + 1) * size)) for i in range(10 // size)
        ]
        joined = [
            {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}
            for parts in zip(*slices, strict=True)
        ]
        assert_equal(joined, whole)


def test_every_example_once_an_epoch(folder):
    labels = np.concatenate(
        [batch["label"] for batch in take(HostStream.open(folder, "train"), EXAMPLES, 0, 0, 4)]
    )
    assert (np.sort(labels.reshape(4, EXAMPLES)) == np.arange(EXAMPLES)).all()


def test_evaluation_gives_the_split_once_in_order(folder):
    stored = Records(folder, "validation")
    stream = HostStream.open(folder, "validation")
    batches = list(stream.evaluation_batches(4))
    assert [len(batch["label"]) for batch in batches] == [4, 4, 3]
    np.testing.assert_array_equal(np.concatenate([b["label"] for b in batches]), range(EVALUATED))
    images = np.concatenate([b["image"] for b in batches])
    for index in range(EVALUATED):
        expected = preprocess.evaluation_image(stored[index].image)
        np.testing.assert_array_equal(images[index], expected)


def test_evaluation_slices_come_in_equally_many_batches(folder):
    stream = HostStream.open(folder, "validation")
    parts = [[b["label"].tolist() for b in stream.evaluation_batches(4, [i])] for i in range(4)]
    assert parts == [[[0], [4], [8]], [[1], [5], [9]], [[2], [6], [10]], [[3], [7], []]]


def test_worker_processes_change_nothing_and_report_errors(folder, copied, monkeypatch):
    monkeypatch.setattr(source, "CHUNK", 3)
    here, workers = (HostStream.open(folder, "train", num_workers=n) for n in (0, 2))
    assert_equal(take(workers, 3, 5, 1, 8), take(here, 3, 5, 1, 8))
    assert workers.waited > 0
    stream = HostStream.open(copied, "train", num_workers=1)
    shards = list(copied.glob("*train*"))
    for shard in shards:
        shard.unlink()
    with pytest.raises(OSError, match=r"train\S*: record \d cannot be read"):
        take(stream, 1, 0, 0, 4)


def test_reading_does_not_import_tensorflow(folder):
    program = f"""
        import pathlib, sys
        from workloads.imagenet.source import HostStream
        folder = pathlib.Path({str(folder)!r})
        print(next(HostStream.open(folder, "train").batches(0, 0, 2))["image"].shape)
        print(sum(len(b["label"]) for b in HostStream.open(folder, "validation")
                  .evaluation_batches(4)))
        print("tensorflow" in sys.modules)
        """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=_ROOT,
        check=True,
    )
    assert result.stdout.splitlines() == ["(2, 224, 224, 3)", str(EVALUATED), "False"]


# Damage


def with_image(tmp_path, damaged: dict[int, bytes], count: int = 6) -> pathlib.Path:
    written = imagenet_data.examples(count)
    for index, image in damaged.items():
        written[index]["image"] = image
    return imagenet_data.write(
        tmp_path / "damaged", {"train": written, "validation": written}, per_shard=4
    )


@pytest.mark.parametrize(
    "damage", [lambda image: image[: len(image) // 2], lambda image: b"", lambda image: b"GIF89a"]
)
def test_corrupt_image_is_named(tmp_path, damage):
    good = imagenet_data.examples(6)[5]["image"]
    folder = with_image(tmp_path, {5: damage(good)})
    with pytest.raises(UserError, match=r"train\S*-00001: record 1 \(picture_5.jpg\): damaged"):
        take(HostStream.open(folder, "train"), 1, 0, 0, 6)
    with pytest.raises(UserError, match=r"validation\S*-00001: record 1 \(picture_5.jpg\)"):
        list(HostStream.open(folder, "validation", on_corrupt="skip").evaluation_batches(6))


def test_corrupt_image_is_replaced_by_the_next_sound_one_and_counted(tmp_path):
    folder = with_image(tmp_path, {4: b"", 5: b"GIF89a"})
    stream = HostStream.open(folder, "train", on_corrupt="skip")
    (batch,) = take(stream, 1, 3, 0, 6)
    (indices,) = batch_indices(3, 0, 1, 6, 6)
    assert batch["label"].tolist() == [0 if index in (4, 5) else index for index in indices]
    assert stream.replaced == 2
    again = HostStream.open(folder, "train", on_corrupt="skip")
    assert_equal(take(again, 1, 3, 0, 6), [batch])


def test_no_sound_image_at_all(tmp_path):
    folder = with_image(tmp_path, dict.fromkeys(range(6), b""))
    with pytest.raises(UserError, match="no sound image in train"):
        take(HostStream.open(folder, "train", on_corrupt="skip"), 1, 0, 0, 2)


@pytest.mark.parametrize("label", [-1, 1000])
def test_label_out_of_range_is_named_even_when_skipping(tmp_path, label):
    good = imagenet_data.examples(1)[0]["image"]
    folder = imagenet_data.write(
        tmp_path, {"train": [imagenet_data.example(good, label)]}, per_shard=4
    )
    with pytest.raises(UserError, match=rf"-00000: record 0 \(\S+\): label {label} is outside"):
        take(HostStream.open(folder, "train", on_corrupt="skip"), 1, 0, 0, 1)


def test_missing_split_names_those_there_are(folder):
    with pytest.raises(UserError, match="no split 'test' of imagenet2012; there are: train, valid"):
        Records(folder, "test")


def test_missing_file_is_named(copied):
    (copied / "imagenet2012-train.array_record-00002").unlink()
    with pytest.raises(UserError, match="array_record-00002: is missing"):
        Records(copied, "train")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_short_file_is_named(copied, share):
    shard = copied / "imagenet2012-train.array_record-00001"
    content = shard.read_bytes()
    shard.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"array_record-00001: .*short or damaged"):
        Records(copied, "train")


def test_file_with_another_number_of_records_is_named(copied):
    shard = copied / "imagenet2012-train.array_record-00001"
    shutil.copyfile(copied / "imagenet2012-train.array_record-00003", shard)
    with pytest.raises(UserError, match="array_record-00001: has 5 of 6 records"):
        Records(copied, "train")


def test_damaged_record_is_named(copied):
    damaged = Records(copied, "train")  # opening a damaged file would fail
    shard = copied / "imagenet2012-train.array_record-00001"
    content = bytearray(shard.read_bytes())
    for at in range(200, len(content), 50):
        content[at] ^= 0xFF
    shard.write_bytes(content)
    with pytest.raises(OSError, match=r"array_record-00001: record \d cannot be read"):
        [damaged[i] for i in range(EXAMPLES)]


def test_foreign_record_is_named():
    for record in (b"no protobuf", b""):
        with pytest.raises(UserError, match="shard: record 3: not an example of imagenet2012"):
            records.parse(record, "shard: record 3")


def test_bad_options(folder):
    for options in ({"on_corrupt": "skpi"}, {"num_workers": -1}):
        with pytest.raises(UserError, match=next(iter(options))):
            HostStream.open(folder, "train", **options)
    stream = HostStream.open(folder, "train")
    for places in ([], [3, 5], [-1]):
        with pytest.raises(ValueError, match="must lie in a batch of 5"):
            stream.batches(0, 0, 5, places)


def test_locate_finds_the_converted_form_or_says_what_to_do(folder, tmp_path, monkeypatch):
    data_dir = folder.parent.parent
    assert records.locate(str(data_dir)) == folder
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
    assert records.locate() == folder
    with pytest.raises(UserError, match="neither in"):
        records.locate(str(tmp_path))
    prepared = tmp_path / records.NAME / records.VERSION
    prepared.mkdir(parents=True)
    (prepared / records.INFO).write_text('{"fileFormat": "tfrecord"}', encoding="utf-8")
    with pytest.raises(UserError, match="rkbench convert --dataset=imagenet2012"):
        records.locate(str(tmp_path))
    converted = tmp_path / records.CONVERTED / records.NAME / records.VERSION
    shutil.copytree(folder, converted)
    assert records.locate(str(tmp_path)) == converted


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("features.json", "tensorflow_datasets.core.features.text", "evil_module", "evil_module"),
        (records.INFO, '"shardLengths": [', '"shardLengths": ["9999999999", ', "at most 1281167"),
    ],
)
def test_a_folder_that_says_it_is_something_else_is_refused(copied, file, old, new, message):
    text = (copied / file).read_text()
    assert old in text
    (copied / file).write_text(text.replace(old, new))
    with pytest.raises(UserError, match=message):
        Records(copied, "train")


def test_fingerprint_tells_preparations_apart(folder, tmp_path):
    other = imagenet_data.write(tmp_path, {"train": imagenet_data.examples(22)}, per_shard=6)
    assert Records(folder, "train").fingerprint == Records(folder, "train").fingerprint
    assert Records(folder, "train").fingerprint != Records(other, "train").fingerprint
