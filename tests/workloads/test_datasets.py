import dataclasses
import hashlib
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from rkbench.errors import UserError
from rkbench.records import identity
from rkbench.workloads import array_cache, datasets, tfds_checks, tfds_source
from rkbench.workloads.tfds_source import TfdsSource


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder of the test's own."""
    monkeypatch.setenv("RKBENCH_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def same(first, second):
    return first.keys() == second.keys() and all(
        np.array_equal(first[key], second[key]) and first[key].dtype == second[key].dtype
        for key in first
    )


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_real_data_is_complete(name, tfds_dir):
    dataset = datasets.load(name, tfds_dir)
    assert (dataset.name, dataset.version) == (name, "3.0.1")
    for split, size in ((dataset.train, 60_000), (dataset.test, 10_000)):
        assert split["image"].shape == (size, 28, 28, 1)
        assert split["image"].max() == dataset.max_value
        assert sorted(np.unique(split["label"])) == list(range(dataset.num_classes))
    counts = np.bincount(dataset.test["label"])
    assert counts[1] == (1_135 if name == "mnist" else 1_000)


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_real_cifar_is_balanced_and_a_subset_of_it_is_known_as_one(name, classes, tfds_dir):
    folder = pathlib.Path(tfds_dir) / name / "3.0.2"
    if not folder.is_dir():
        pytest.skip(f"no {name} 3.0.2 prepared by TFDS in {tfds_dir}")
    dataset = datasets.load(name, tfds_dir)
    assert (dataset.version, dataset.num_classes, dataset.max_value) == ("3.0.2", classes, 255)
    assert dataset.published == (50_000, 10_000)
    info = json.loads((folder / "dataset_info.json").read_text())
    sizes = {split["name"]: sum(map(int, split["shardLengths"])) for split in info["splits"]}
    for split in ("train", "test"):
        arrays = getattr(dataset, split)
        assert arrays["image"].shape == (sizes[split], 32, 32, 3)
        assert arrays["label"].dtype == np.int32
        counts = np.bincount(arrays["label"], minlength=classes)  # cifar100: the fine labels
        assert set(counts) == {sizes[split] // classes}
    whole = (sizes["train"], sizes["test"]) == dataset.published
    assert datasets.subset_of(dataset.sizes, dataset.published).get("subset", False) is not whole


def test_second_load_is_the_same_and_imports_neither_tensorflow_nor_scikit_learn(tfds_dir):
    first = {name: datasets.load(name, tfds_dir) for name in ("mnist", "digits")}
    program = f"""
        import hashlib, sys
        from workloads import datasets
        for name in ("mnist", "digits"):
            dataset = datasets.load(name, {tfds_dir!r})
            print(hashlib.sha256(dataset.train["image"].tobytes()).hexdigest())
        print({{"tensorflow", "tensorflow_datasets", "sklearn", "jax"}} & set(sys.modules))
    """
    output = subprocess.check_output([sys.executable, "-c", textwrap.dedent(program)], text=True)
    expected = [
        hashlib.sha256(first[name].train["image"].tobytes()).hexdigest()
        for name in ("mnist", "digits")
    ]
    assert output.split("\n")[:-1] == [*expected, "set()"]


def test_digits_are_split_once_and_for_all(cache):
    from sklearn.datasets import load_digits

    images, target = load_digits(return_X_y=True)
    dataset = datasets.load("digits")
    assert (dataset.num_classes, dataset.max_value) == (10, 16)
    assert dataset.train["image"].shape == (1_297, 8, 8, 1)
    assert dataset.test["image"].shape == (500, 8, 8, 1)
    together = np.concatenate([dataset.train["image"], dataset.test["image"]])[..., 0]
    original = np.asarray(images).astype(np.uint8)
    assert sorted(map(bytes, together)) == sorted(map(bytes, original))
    share = np.bincount(dataset.test["label"]) / np.bincount(target)
    np.testing.assert_allclose(share, 500 / 1797, atol=1 / 170)
    digest = hashlib.sha256(dataset.test["image"].tobytes() + dataset.test["label"].tobytes())
    assert digest.hexdigest()[:16] == "6354faef471b0595"
    assert same(datasets.load("digits").train, dataset.train)


def test_a_cache_entry_is_used_as_long_as_it_is_whole(cache):
    made = []

    def make():
        made.append(None)
        return {"a": np.arange(6, dtype=np.uint8).reshape(2, 3), "b": np.ones(2, np.int32)}

    first = array_cache.cached("key", make)
    assert same(array_cache.cached("key", make), first)
    assert len(made) == 1
    array_cache.cached("ke", make)  # a prefix of another key
    assert len(made) == 2
    (entry,) = cache.glob("key-*.npz")
    content = entry.read_bytes()
    for damaged in (content[:-7], content[:100] + b"?" + content[101:], b""):
        entry.write_bytes(damaged)
        assert same(array_cache.cached("key", make), first)
        assert entry.read_bytes() == content  # made again, the damaged one gone
    assert len(made) == 5
    assert [path for path in cache.iterdir() if path.suffix != ".npz"] == []


def test_what_killed_processes_left_in_the_cache_is_removed(cache):
    cache.mkdir()
    (cache / ".rkbench-0123456789abcdef.tmp").write_bytes(b"half")
    array_cache.cached("key", lambda: {"a": np.ones(2)})
    (entry,) = cache.iterdir()
    (cache / ".rkbench-0123456789abcdef.tmp").write_bytes(b"half")
    array_cache.cached("key", lambda: pytest.fail("it is there"))
    assert list(cache.iterdir()) == [entry]


def test_a_cache_that_cannot_be_read_only_costs_time(cache):
    (cache / "key-0.npz").mkdir(parents=True)  # root may read any file, but no folder
    assert same(array_cache.cached("key", lambda: {"a": np.ones(3)}), {"a": np.ones(3)})
    assert len(list(cache.glob("key-*.npz"))) == 2


def test_a_cached_pickle_is_not_loaded(cache):
    buffer = io.BytesIO()
    np.savez(buffer, a=np.array([object()], dtype=object))
    checksum = hashlib.sha256(buffer.getvalue()).hexdigest()
    cache.mkdir()
    (cache / f"key-{checksum}.npz").write_bytes(buffer.getvalue())
    assert same(array_cache.cached("key", lambda: {"a": np.zeros(1)}), {"a": np.zeros(1)})


def test_a_cache_that_cannot_be_written_only_costs_time(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RKBENCH_CACHE_DIR", str(tmp_path / "file" / "cache"))
    assert same(array_cache.cached("key", lambda: {"a": np.ones(2)}), {"a": np.ones(2)})


# Port 9: nobody listens.
OFFLINE = TfdsSource(
    "mnist", "3.0.1", "http://127.0.0.1:9/mnist.gz", 10, (28, 28, 1), 60_000, 10_000
)


def test_missing_data_is_one_clear_error_and_quick(tmp_path):
    start = time.monotonic()
    with pytest.raises(UserError) as caught:
        OFFLINE.locate(str(tmp_path))
    assert time.monotonic() - start < 5
    message = str(caught.value)
    for part in ("mnist 3.0.1", str(tmp_path), "--config.data_dir", "TFDS_DATA_DIR", "network"):
        assert part in message
    assert "\n" not in message
    assert list(tmp_path.iterdir()) == []


def test_where_data_is_looked_for(tmp_path, monkeypatch):
    for place in ("given", "environment", "home/tensorflow_datasets"):
        folder = tmp_path / place / "mnist" / "3.0.1"
        folder.mkdir(parents=True)
        (folder / "dataset_info.json").write_text("{}")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "environment"))
    ending = os.path.join("mnist", "3.0.1")
    assert OFFLINE.locate(str(tmp_path / "given")) == tmp_path / "given" / ending
    assert OFFLINE.locate(None) == tmp_path / "environment" / ending
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert OFFLINE.locate(None) == tmp_path / "home/tensorflow_datasets" / ending
    with pytest.raises(UserError):  # another version is not taken for this one
        dataclasses.replace(OFFLINE, version="9.9.9").locate(None)


def test_a_subset_has_another_fingerprint(tmp_path):
    def folder(name, info="{}", shard=b"1234", shard_name="mnist-train.tfrecord-00000-of-00001"):
        path = tmp_path / name
        path.mkdir()
        (path / "dataset_info.json").write_text(info)
        (path / shard_name).write_bytes(shard)
        return OFFLINE.fingerprint(path)

    assert folder("whole") == folder("copy")
    others = [
        folder("shorter", shard=b"123"),
        folder("info", info='{"examples": 1}'),
        folder("renamed", shard_name="mnist-train.tfrecord-00000-of-00002"),
    ]
    assert len({folder("again"), *others}) == 4


def test_a_damaged_folder_is_named(tmp_path, tfds_dir, cache):
    damaged = copied(tfds_dir, tmp_path / "data")
    (shard,) = damaged.glob("mnist-train*")
    shard.write_bytes(shard.read_bytes()[:1_000_000])
    with pytest.raises(UserError, match=f"cannot read {damaged}"):
        datasets.load("mnist", str(tmp_path / "data"))
    assert not list(cache.glob("*.npz"))


def copied(tfds_dir, target, name="mnist"):
    """A copy of the folder that may be changed."""
    folder = target / name / "3.0.1"
    shutil.copytree(os.path.join(tfds_dir, name, "3.0.1"), folder, copy_function=shutil.copyfile)
    os.chmod(folder, 0o755)
    return folder


def test_data_of_other_content_are_other_data_though_names_and_sizes_are_the_same(
    tmp_path, tfds_dir, cache
):
    """One image is stored in the place of another, with the old times."""
    before = datasets.load("mnist", tfds_dir)
    folder = copied(tfds_dir, tmp_path / "data")
    same_content = datasets.load("mnist", str(tmp_path / "data"))
    assert len(list(cache.glob("mnist-*.npz"))) == 1
    (shard,) = folder.glob("mnist-test*")
    content, stat = shard.read_bytes(), shard.stat()
    frames, place = [], 0
    while place < len(content):
        length = int.from_bytes(content[place : place + 8], "little") + 16
        frames.append(content[place : place + length])
        place += length
    frames[0], frames[1] = frames[1], frames[0]
    shard.write_bytes(b"".join(frames))
    os.utime(shard, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = datasets.load("mnist", str(tmp_path / "data"))
    assert before.fingerprint == same_content.fingerprint == after.fingerprint
    assert before.sha256 == same_content.sha256
    assert before.sha256 not in (None, after.sha256)
    assert same({"image": after.test["image"][:2]}, {"image": before.test["image"][1::-1]})


def test_digests_of_content_are_compared_where_both_records_have_them():
    old, new = {"name": "mnist"}, {"name": "mnist", "sha256": "1"}
    assert identity.data_differences(old, new) == identity.data_differences(new, old) == []
    assert identity.data_differences(new, new) == []
    assert identity.data_differences(new, new | {"sha256": "2"}) == ["sha256: '1' -> '2'"]


def edited(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def feature(name, **fields):
    return lambda found: found["featuresDict"]["features"][name].update(fields)


def first_split(**fields):
    return lambda found: found["splits"][0].update(fields)


NESTED = {"json": '{"x": {"type": "evil_module.X", "content": {}}}'}


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("features.json", feature("label", pythonClassName="evil_module.X"), "'evil_module.X'"),
        ("features.json", feature("label", python_class_name="evil_module.X"), "no description"),
        ("features.json", feature("label", jsonFeature=NESTED), "no description"),
        ("features.json", feature("label", pythonClassName=["x"]), "no description"),
        (
            "features.json",
            lambda found: found["featuresDict"]["features"].update(
                more={"type": "evil_module.X", "content": {}}
            ),
            "no description",
        ),
        ("features.json", lambda found: found.update(pythonClassName="evil_module.X"), "no desc"),
        ("features.json", lambda found: found["featuresDict"]["features"].pop("image"), "'image'"),
        (
            "features.json",
            feature("image", image={"dtype": "uint8", "shape": {"dimensions": ["1000000000"] * 3}}),
            "not uint8 of shape",
        ),
        ("features.json", feature("image", image={"dtype": "string"}), "not uint8 of shape"),
        ("dataset_info.json", first_split(shardLengths=["4000000000000000000"]), "at most 60000"),
        ("dataset_info.json", first_split(shardLengths=["-1"]), "at most 60000"),
        ("dataset_info.json", first_split(shardLengths=["9" * 5000]), "at most 60000"),
        ("dataset_info.json", first_split(shard_lengths=["1"]), "unknown field 'shard_lengths'"),
        ("dataset_info.json", first_split(name="tarin"), "'tarin' cannot be"),
        ("dataset_info.json", first_split(filepathTemplate="/etc/{SPLIT}"), "cannot have files"),
        ("dataset_info.json", lambda found: found.update(name="../x"), "describes '../x'"),
        ("dataset_info.json", lambda found: found.update(splits={}), "list of splits"),
    ],
)
def test_a_folder_that_says_it_is_something_else_is_refused_before_tfds_reads_it(
    tmp_path, tfds_dir, cache, monkeypatch, file, change, message
):
    folder = copied(tfds_dir, tmp_path / "data")
    (tmp_path / "evil_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(tfds_source, "_import_tfds", lambda: pytest.fail("read by TFDS"))
    edited(folder / file, change)
    with pytest.raises(UserError, match=message) as caught:
        datasets.load("mnist", str(tmp_path / "data"))
    assert str(folder / file) in str(caught.value)
    assert len(str(caught.value)) < 500
    assert not list(cache.glob("*.npz"))


def test_the_older_form_of_the_features_is_read(tmp_path, tfds_dir):
    folder = copied(tfds_dir, tmp_path / "data")
    name = "tensorflow_datasets.core.features."
    image = {"shape": [28, 28, 1], "dtype": "uint8", "encoding_format": "png"}
    old = {
        "type": f"{name}features_dict.FeaturesDict",
        "content": {
            "image": {"type": f"{name}image_feature.Image", "content": image},
            "label": {
                "type": f"{name}class_label_feature.ClassLabel",
                "content": {"num_classes": 10},
            },
        },
    }
    (folder / "features.json").write_text(json.dumps(old))
    sizes = {"train": 60_000, "test": 10_000}
    tfds_checks.check(folder, "mnist", (28, 28, 1), sizes)
    old["content"]["label"]["type"] = "evil_module.X"
    (folder / "features.json").write_text(json.dumps(old))
    with pytest.raises(UserError, match="evil_module"):
        tfds_checks.check(folder, "mnist", (28, 28, 1), sizes)


def split(images, labels):
    return {"image": np.asarray(images, np.uint8), "label": np.asarray(labels, np.int32)}


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (split(np.zeros((2, 1, 1, 1)), [0, 3]), "label outside 0..2"),
        (split(np.zeros((2, 1, 1, 1)), [-1, 0]), "label outside"),
        (split(np.full((2, 1, 1, 1), 9), [0, 1]), "pixel over 5"),
        (split(np.zeros((2, 1, 1, 1)), [0]), "2 images and 1 labels"),
        (split(np.zeros((0, 1, 1, 1)), []), "0 images"),
    ],
)
def test_data_out_of_range_is_refused(train, message):
    good = split(np.zeros((1, 1, 1, 1)), [0])
    with pytest.raises(UserError, match=message):
        datasets.ArrayDataset("tiny", "1", "f", 3, 5, train, good)


@pytest.mark.parametrize(
    ("published", "subset"),
    [(None, False), ((3, 2), False), ((2, 2), False), ((4, 2), True), ((3, 3), True)],
)
def test_fewer_examples_than_published_are_a_subset(published, subset):
    train, test = (split(np.zeros((size, 1, 1, 1)), [0] * size) for size in (3, 2))
    dataset = datasets.ArrayDataset("tiny", "1", "f", 3, 5, train, test, published)
    told = datasets.subset_of(dataset.sizes, dataset.published)
    assert told.get("subset", False) is subset
    if subset:
        assert (told["full_train_examples"], told["full_test_examples"]) == published


def test_examples_held_out_are_the_last_and_no_longer_trained_on():
    whole = datasets.load("digits")
    part = whole.first(1_000).hold_out(300)
    assert part.validation is not None
    assert part.sizes == (700, 500)
    for name, array in whole.train.items():
        np.testing.assert_array_equal(part.train[name], array[:700])
        np.testing.assert_array_equal(part.validation[name], array[700:1_000])
    assert part.published == whole.sizes
    prints = {d.fingerprint for d in (whole, part, whole.hold_out(300), whole.first(1_000))}
    assert len(prints) == 4


@pytest.mark.parametrize("examples", [-1, 1_297])
def test_something_must_be_left_to_train_on(examples):
    with pytest.raises(UserError, match=r"validation_examples=.* between 1 and 1296"):
        datasets.load("digits").hold_out(examples)


@pytest.mark.parametrize("name", ["digits", "mnist", "fashion_mnist", "cifar10", "cifar100"])
def test_synthetic_stands_for_the_real_one(name, tfds_dir):
    real, noise = datasets.load(name, tfds_dir), datasets.synthetic(name, 3)
    assert noise.image_shape == real.image_shape
    assert (noise.num_classes, noise.max_value) == (real.num_classes, real.max_value)
    assert noise.train["image"].dtype == real.train["image"].dtype
    assert noise.train["label"].dtype == real.train["label"].dtype
    assert noise.sizes == (3, 3)


def test_unknown_dataset_names_the_nearest():
    with pytest.raises(UserError, match="'minst'; nearest: mnist"):
        datasets.load("minst")
