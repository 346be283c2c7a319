"""Data that goes while a run reads it, and comes back: the run ends, and then as if nothing was.

A streamed run in ImageNet's form, of a model small enough for tests.
"""

import os
import pathlib
import shutil

import imagenet_data
import pytest
from resuming import contents, final_checksums, log, outcomes

from rkbench import files
from rkbench.commands import command_line
from rkbench.configs import digits_mlp
from rkbench.records import read_record
from rkbench.step.program import Program
from rkbench.train import train_experiment
from rkbench.trainer.experiment import Experiment
from rkbench.workloads.imagenet import records
from rkbench.workloads.imagenet.dataset import ImageNet
from rkbench.workloads.imagenet.source import HostStream

pytestmark = pytest.mark.standard_promotion


class TenClasses(ImageNet):
    """Its pictures, of few classes."""

    num_classes = 10


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A TFDS folder."""
    folder = tmp_path_factory.mktemp("tfds")
    train, validation = imagenet_data.examples(10), imagenet_data.examples(5)
    imagenet_data.write(folder, {"train": train, "validation": validation}, per_shard=4)
    return folder


def train(data_dir, workdir):
    """What a process does from its start to its end; its exit code."""
    config = digits_mlp.get_config("adam")
    settings = {"batch_size": 4, "total_steps": 8, "eval_every_steps": 4, "log_every_steps": 1}
    small = {"checkpoint_every_steps": 3, "eval_batch_size": 4, "train_eval_size": 5}
    config.update(settings | small | {"tensorboard": False})
    config.model.hidden_sizes = ()
    try:
        with command_line.user_errors():
            folder = records.locate(str(data_dir))
            streams = [
                HostStream.open(folder, s, rand_augment=None) for s in ("train", "validation")
            ]
            train_experiment(Experiment.from_config(config.lock(), TenClasses(*streams)), workdir)
    except SystemExit as ended:
        return ended.code
    return 0


@pytest.fixture(scope="module")
def uninterrupted(pictures, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted")
    assert train(pictures, workdir) == 0
    return workdir


def at_call(monkeypatch, name, call, action):
    """The `call`-th call of the program's method does `action` first."""
    original, left = getattr(Program, name), [call]

    def patched(*arguments):
        left[0] -= 1
        if left[0] == 0:
            action(*arguments)
        return original(*arguments)

    monkeypatch.setattr(Program, name, patched)


@pytest.mark.parametrize(
    ("split", "damage", "name", "call", "saved"),
    [
        ("train", lambda shard: os.truncate(shard, 0), "advance", 5, True),
        ("validation", pathlib.Path.unlink, "compile", 1, False),  # later it would still be open
    ],
    ids=["emptied in training", "deleted before the first is read"],
)
def test_shards_that_are_lost_while_they_are_read(
    tmp_path, monkeypatch, capsys, pictures, uninterrupted, split, damage, name, call, saved
):
    data, workdir = tmp_path / "data", tmp_path / "run"
    shutil.copytree(pictures, data)
    shards = list(data.rglob(f"*-{split}.array_record-*"))
    with monkeypatch.context() as patch:
        at_call(patch, name, call, lambda *_: [damage(shard) for shard in shards])
        assert train(data, workdir) == 74
    said = capsys.readouterr().err
    assert "Traceback" not in said
    error = said.splitlines()[-1]  # after the progress
    assert error.startswith(f"rkbench: error: {data}")
    assert f"imagenet2012-{split}" in error
    assert "cannot be read" in error
    assert read_record(workdir / "run.json")["status"] == "failed"
    steps = [int(path.name) for path in workdir.glob("checkpoints/seed-0/[0-9]*")]
    assert bool(steps) == saved
    before = contents(workdir)
    shutil.rmtree(data)
    assert train(data, workdir) == 2
    assert "is neither in" in capsys.readouterr().err
    assert contents(workdir) == before
    shutil.copytree(pictures, data)
    begun = []
    at_call(monkeypatch, "advance", 1, lambda *arguments: begun.append(arguments[3]))
    assert train(data, workdir) == 0
    assert begun == [max(steps, default=0)]
    assert log(workdir) == log(uninterrupted)
    assert final_checksums(workdir) == final_checksums(uninterrupted)
    results = (outcomes(read_record(folder / "run.json")) for folder in (workdir, uninterrupted))
    assert next(results) == next(results)


def test_other_data_than_those_of_the_beginning_are_refused(
    tmp_path, capsys, pictures, uninterrupted
):
    workdir = tmp_path / "run"
    shutil.copytree(uninterrupted, workdir)
    record = read_record(workdir / "run.json")
    files.write_json(workdir / "run.json", record | {"seeds": [], "status": "failed"})
    before = contents(workdir)
    other = imagenet_data.examples(9)
    imagenet_data.write(tmp_path, {"train": other, "validation": other}, per_shard=4)
    assert train(tmp_path, workdir) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert "was begun on other data; they differ in fingerprint: " in error
    assert "train_examples: 10 -> 9" in error
    assert contents(workdir) == before
