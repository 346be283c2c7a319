"""`rkbench convert` on the real ImageNet examples, whole, interrupted, and with damaged sources."""

import importlib
import pathlib
import shutil
from typing import Any

import pytest

from rkbench.commands import convert as command
from rkbench.errors import UserError
from rkbench.workloads.imagenet import convert as conversion
from rkbench.workloads.imagenet import records
from rkbench.workloads.imagenet.records import Records
from rkbench.workloads.imagenet.source import HostStream

DATASET = pathlib.Path(records.NAME, records.VERSION)


@pytest.fixture(scope="session")
def tfrecords(tfds_dir) -> pathlib.Path:
    folder = pathlib.Path(tfds_dir) / DATASET
    if not folder.is_dir():
        pytest.skip(f"no {DATASET} prepared by TFDS in {tfds_dir} (set TFDS_DATA_DIR)")
    return folder


@pytest.fixture(scope="session")
def converted(tfrecords, tmp_path_factory) -> pathlib.Path:
    target = tmp_path_factory.mktemp("converted") / DATASET
    conversion.convert(tfrecords, target)
    return target


@pytest.fixture
def copied(tfrecords, tmp_path) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(tfrecords, tmp_path / "source" / DATASET))


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_all_examples_come_over_as_they_were(tfrecords, converted):
    tfds: Any = importlib.import_module("tensorflow_datasets")
    builder = tfds.builder_from_directory(str(tfrecords))
    config = tfds.ReadConfig(interleave_cycle_length=1)
    decoders = {"image": tfds.decode.SkipDecoding()}
    for split, count in (("train", 400), ("validation", 100)):
        stored = Records(converted, split)
        source = builder.as_dataset(
            split=split, shuffle_files=False, read_config=config, decoders=decoders
        )
        examples = [
            records.Example(e["image"], int(e["label"]), e["file_name"].decode())
            for e in tfds.as_numpy(source)
        ]
        assert len(stored) == count
        assert [stored[i] for i in range(count)] == examples


def test_tfds_reads_the_result_as_the_same_dataset(tfrecords, converted):
    tfds: Any = importlib.import_module("tensorflow_datasets")
    before, after = (tfds.builder_from_directory(str(f)).info for f in (tfrecords, converted))
    for name in ("name", "version", "citation", "description", "homepage", "supervised_keys"):
        assert getattr(after, name) == getattr(before, name), name
    assert after.features["label"].names == before.features["label"].names
    source = tfds.builder_from_directory(str(converted)).as_data_source("validation")
    assert len(source) == 100
    assert source[3]["image"].shape[-1] == 3


def test_real_batches(converted):
    stream = HostStream.open(converted, "train")
    batch = next(stream.batches(0, 0, 16))
    assert batch["image"].shape == (16, 224, 224, 3)
    assert 40 < batch["image"].mean() < 215
    evaluated = list(HostStream.open(converted, "validation").evaluation_batches(64))
    assert [len(b["label"]) for b in evaluated] == [64, 36]


@pytest.mark.parametrize("what", ["train: writing", "train: checking", "validation: writing"])
def test_interrupted_conversion_goes_on(tfrecords, converted, tmp_path, monkeypatch, what):
    monkeypatch.setattr(conversion, "_EXAMPLES_PER_SHARD", 30)
    monkeypatch.setattr(conversion, "_EXAMPLES_PER_WRITE", 10)
    target = tmp_path / DATASET
    written = []

    def interrupted(now, total, examples):
        for number, example in enumerate(examples):
            if now == what and number == 77:
                raise KeyboardInterrupt
            yield example

    def watched(now, total, examples):
        written.append(now)
        return examples

    with pytest.raises(KeyboardInterrupt):
        conversion.convert(tfrecords, target, interrupted)
    assert not target.exists()
    with pytest.raises(UserError):
        records.locate(str(tmp_path))
    done = conversion.convert(tfrecords, target, watched)
    again = ["train: writing", "train: checking", "validation: writing", "validation: checking"]
    assert written == (again[2:] if what.startswith("validation") else again)
    assert done == conversion.convert(tfrecords, converted)
    assert len(list(target.glob("*train*"))) == 14
    assert len(Records(target, "train")) == 400
    assert [Records(target, "validation")[i] for i in (0, 99)] == [
        Records(converted, "validation")[i] for i in (0, 99)
    ]
    assert not list(tmp_path.rglob("*.incomplete"))


def test_converted_dataset_is_left_alone(tfrecords, converted):
    before = contents(converted)
    conversion.convert(tfrecords, converted, lambda *_: pytest.fail("read again"))
    assert contents(converted) == before


def test_command(tfrecords, tmp_path, capsys):
    data_dir = tmp_path / "tfds"
    shutil.copytree(tfrecords, data_dir / DATASET)
    command.run(["rkbench convert", "--dataset=imagenet2012", f"--data_dir={data_dir}"])
    printed = capsys.readouterr()
    assert "train: 400 examples, SHA-256" in printed.out
    assert "100%" in printed.err
    assert records.locate(str(data_dir)) == data_dir / "array_record" / DATASET


def test_command_names_what_it_does_not_know(tmp_path):
    with pytest.raises(UserError, match="unknown dataset 'imagenet'; nearest: imagenet2012"):
        command.run(["rkbench convert", "--dataset=imagenet", f"--data_dir={tmp_path}"])
    with pytest.raises(UserError, match="no dataset in TFRecord form"):
        command.run(["rkbench convert", "--dataset=imagenet2012", f"--data_dir={tmp_path}"])


def test_target_with_another_form_is_refused(tfrecords, copied):
    before = contents(copied)
    with pytest.raises(UserError, match="another form"):
        conversion.convert(tfrecords, copied)
    assert contents(copied) == before


def test_damaged_result_is_not_taken_for_done(tfrecords, converted, tmp_path):
    target = pathlib.Path(shutil.copytree(converted, tmp_path / DATASET))
    shard = target / "imagenet2012-train.array_record-00000"
    shard.write_bytes(shard.read_bytes()[:100_000])
    with pytest.raises(UserError, match="short or damaged"):
        conversion.convert(tfrecords, target)


def test_nothing_is_written_through_a_link_in_an_unfinished_target(tfrecords, tmp_path):
    staging = tmp_path / f"{DATASET.name}.incomplete"
    staging.mkdir()
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (staging / records.INFO).symlink_to(victim)
    with pytest.raises(UserError, match="it must be no link"):
        conversion.convert(tfrecords, tmp_path / DATASET.name)
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("damage", ["short", "changed"])
def test_damaged_source_is_named(copied, tmp_path, damage):
    shard = copied / "imagenet2012-validation.tfrecord-00000-of-00001"
    content = bytearray(shard.read_bytes())
    if damage == "short":
        del content[len(content) // 2 :]
    else:
        content[len(content) // 2] ^= 0xFF
    shard.write_bytes(content)
    with pytest.raises(UserError, match=r"validation.tfrecord-00000-of-00001: record \d+ cannot"):
        conversion.convert(copied, tmp_path / "target" / DATASET)


def test_source_with_fewer_records_than_it_says_is_named(copied, tmp_path):
    shard = copied / "imagenet2012-validation.tfrecord-00000-of-00001"
    content = shard.read_bytes()
    length = int.from_bytes(content[:8], "little")
    shard.write_bytes(content[: 8 + 4 + length + 4])  # the first record, whole
    with pytest.raises(UserError, match=r"tfrecord-00000-of-00001: has 1 of 100 records"):
        conversion.convert(copied, tmp_path / "target" / DATASET)


def test_result_that_reads_differently_is_refused(tfrecords, tmp_path):
    def changed(now, total, examples):
        for number, example in enumerate(examples):
            spoilt = now.endswith("checking") and number == 50
            yield records.Example(b"", example.label, "") if spoilt else example

    with pytest.raises(UserError, match="does not read as it was written"):
        conversion.convert(tfrecords, tmp_path / DATASET, changed)
    assert not (tmp_path / DATASET).exists()
