"""Records kept small: seeds joined, paths left out, numbers those of the log."""

import errno
import gzip
import json
import os
import shutil

import pytest
import resuming
from console import rkbench

from rkbench.configs import digits_mlp
from rkbench.errors import UserError
from rkbench.records import Run, archive
from rkbench.train import train_and_evaluate

pytestmark = pytest.mark.standard_promotion


def config(**changes):
    result = digits_mlp.get_config("rk4")
    result.model.hidden_sizes = (8,)
    result.update({"total_steps": 4, "eval_every_steps": 2, "log_every_steps": 1, **changes})
    result.tensorboard = False
    return result.lock()


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    for name, seeds in (("one", (0, 2)), ("two", (1, 2))):
        train_and_evaluate(config(seeds=seeds), folder / name)
    return Run(folder / "one"), Run(folder / "two")


def test_seeds_are_joined_and_each_keeps_its_own_lines(parts, tmp_path):
    record = archive.archive(parts, tmp_path / "record")
    kept = Run(tmp_path / "record")
    assert kept.record == record
    assert [entry["seed"] for entry in record["seeds"]] == record["config"]["seeds"] == [0, 1, 2]
    assert [part["seeds"] for part in record["parts"]] == [[0, 2], [1, 2]]
    for seed, part in ((0, parts[0]), (1, parts[1]), (2, parts[0])):
        own = [line for line in part.log if line["seed"] == seed]
        assert [line for line in kept.log if line["seed"] == seed] == own
    assert record["grad_evals"] == 3 * 16


def test_the_numbers_are_those_of_the_log(parts, tmp_path):
    record = archive.archive(parts[:1], tmp_path)
    for kept, original in zip(record["seeds"], parts[0].record["seeds"], strict=True):
        same = {name: value for name, value in original.items() if name != "seconds"}
        assert kept.items() >= same.items()
        assert kept["seconds"] == pytest.approx(original["seconds"], abs=0.002)


def test_a_record_can_be_archived_again_and_grows(parts, tmp_path):
    archive.archive(parts[:1], tmp_path)
    archive.archive([Run(tmp_path), parts[1]], tmp_path)
    assert [entry["seed"] for entry in Run(tmp_path).record["seeds"]] == [0, 1, 2]
    bytes_before = (tmp_path / "metrics.jsonl.gz").read_bytes()
    archive.archive([Run(tmp_path)], tmp_path)
    assert (tmp_path / "metrics.jsonl.gz").read_bytes() == bytes_before
    assert gzip.decompress(bytes_before).count(b"\n") == len(Run(tmp_path).log)


def test_paths_of_the_machine_are_left_out(parts, tmp_path):
    record = json.loads((parts[0].folder / "run.json").read_text())
    record["command"] = ["main.py", "--workdir=/home/me/x", "--config.data_dir=/data/y"]
    record["config"]["data_dir"] = "/data/y"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    (tmp_path / "run" / "metrics.jsonl").write_bytes(
        (parts[0].folder / "metrics.jsonl").read_bytes()
    )
    archive.archive([Run(tmp_path / "run")], tmp_path / "record")
    text = (tmp_path / "record" / "run.json").read_text()
    assert "/home/me" not in text
    assert "/data" not in text


def test_runs_that_are_not_alike_are_refused(parts, tmp_path):
    train_and_evaluate(config(seeds=(5,), l2=0.1), tmp_path / "other")
    with pytest.raises(UserError, match=r"differ in l2: 0.1 -> 0.0"):
        archive.merged([parts[0], Run(tmp_path / "other")])


def test_an_unfinished_run_is_refused(parts, tmp_path):
    record = parts[0].record | {"status": "running"}
    (tmp_path / "run.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="is not finished: 'running'"):
        archive.merged([Run(tmp_path)])


def test_a_folder_of_runs_is_archived_as_it_is(parts, tmp_path, monkeypatch, capsys):
    sweep = tmp_path / "sweep"
    shutil.copytree(parts[0].folder.parent, sweep / "rk4")
    (sweep / "sweep.json").write_text('{"command": ["cli.py", "--workdir=/home/me"], "sweep": {}}')
    (sweep / "rk4" / "one" / "run.json").rename(sweep / "kept")
    assert rkbench(monkeypatch, "archive", sweep, f"--output={tmp_path / 'out'}") == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out'}: 1 runs\n"
    (sweep / "kept").rename(sweep / "rk4" / "one" / "run.json")
    archive.archive_all(sweep, tmp_path / "out")
    for part in parts:
        kept = Run(tmp_path / "out" / "rk4" / part.folder.name)
        assert kept.log == part.log
        assert kept.record["seeds"] == archive.merged([part])["seeds"]
    record = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert record == {"command": ["cli.py", "--workdir=DIR"], "sweep": {}}


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (["--workdir=/home/me/run"], ["--workdir=DIR"]),
        (["--workdir", "/home/me/run", "--config=x"], ["--workdir", "DIR", "--config=x"]),
        (
            ["-config.data_dir", "/home/me", "-workdir=/x"],
            ["-config.data_dir", "DIR", "-workdir=DIR"],
        ),
        (["--flagfile", "--workdir", "--remat"], ["--flagfile", "DIR", "--remat"]),
        (["--workdir"], ["--workdir"]),
    ],
)
def test_no_spelling_of_a_command_keeps_paths_of_the_machine(parts, given, kept):
    run = Run(parts[0].folder)
    run.record.pop("parts", None)
    run.record["command"] = ["rkbench", "train", *given]
    assert archive.parts(run)[0]["command"] == ["rkbench", "train", *kept]


def test_nothing_is_archived_of_a_folder_with_an_unfinished_run(parts, tmp_path):
    shutil.copytree(parts[0].folder.parent, tmp_path / "runs")
    path = tmp_path / "runs" / "two" / "run.json"
    path.write_text(json.dumps(parts[1].record | {"status": "running"}))
    with pytest.raises(UserError, match="is not finished: 'running'"):
        archive.archive_all(tmp_path / "runs", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_archive_below_its_runs_does_not_hold_itself(parts, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(parts[0].folder.parent, runs)
    (runs / "sweep.json").write_text('{"command": [], "sweep": {}, "seeds": [0]}')
    for _ in range(2):
        assert archive.archive_all(runs, runs / "archive") == 2
    found = sorted(str(path.relative_to(runs)) for path in runs.rglob("*.json"))
    assert found == [
        *("archive/one/run.json", "archive/sweep.json", "archive/two/run.json"),
        *("one/run.json", "sweep.json", "two/run.json"),
    ]
    shutil.rmtree(runs / "one")
    shutil.rmtree(runs / "two")
    with pytest.raises(UserError, match="holds no runs but those in"):
        archive.archive_all(runs, runs / "archive")


def test_a_full_disk_leaves_the_archive_as_it_was(parts, tmp_path, monkeypatch):
    archive.archive(parts[:1], tmp_path)
    before = resuming.contents(tmp_path)

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    for owner, name in ((archive, "_pack"), (os, "fsync"), (os, "replace")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, full)
            with pytest.raises(OSError, match="No space left"):
                archive.archive([Run(tmp_path), parts[1]], tmp_path)
        assert resuming.contents(tmp_path) == before
