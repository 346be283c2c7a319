"""CLU's writers: ours is one of them, and the event files hold what the log holds."""

import contextlib
import inspect
import json
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
import resuming

from rkbench.configs import digits_mlp
from rkbench.records import metrics, summary, tensorboard
from rkbench.records.metrics import JsonLinesWriter
from rkbench.records.tensorboard import TensorBoardThread
from rkbench.train import train_experiment
from rkbench.trainer.experiment import Experiment


@pytest.fixture(scope="module")
def clu_writers():
    from clu import metric_writers

    return metric_writers


def record(seed, step):
    scalars = {"seed": seed, "wall_time": 0.5 * step, "grad_evals": 4 * step}
    return metrics.line(step, scalars | {"batch/loss": 1 / step, "batch/bad": np.nan})


def write_log(path, *records):
    writer = metrics.JsonLinesWriter(path)
    for found in records:
        writer.write_line(found)
    writer.close()


def run_record(path, *seeds):
    """What run.json says of the finished seeds of this log."""
    lines = list(metrics.read(path))
    logs = {
        str(seed): metrics.Fingerprint(line for line in lines if line["seed"] == seed).to_json()
        for seed in seeds
    }
    return {"seeds": [{"seed": seed} for seed in seeds], "logs": logs}


def scalars(folder):
    """{tag: {step: value}} of the event files of a seed, as TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    return {
        tag: {event.step: make_ndarray(event.tensor_proto).item() for event in events.Tensors(tag)}
        for tag in events.Tags()["tensors"]
    }


def check(workdir, seed=0):
    """The event files of a seed hold what its log does."""
    lines = [line for line in metrics.read(workdir / "metrics.jsonl") if line["seed"] == seed]
    found = scalars(workdir / "tensorboard" / f"seed_{seed}")
    expected: dict = {}
    for line in lines:
        for name in ("batch/loss", "wall_time", "grad_evals", "test/accuracy"):
            if line.get(name) is not None:
                expected.setdefault(name, {})[line["step"]] = float(np.float32(line[name]))
    assert {name: found.get(name) for name in expected} == expected
    return found


def test_event_files_hold_the_log_and_a_resumed_run_replaces_them(tmp_path):
    log, folder = tmp_path / "metrics.jsonl", tmp_path / "tensorboard"
    write_log(log, *(record(seed, step) for seed in (0, 1) for step in range(1, 6)))
    thread = TensorBoardThread(folder)
    thread.begin(log, {0: 5, 1: 5})
    assert thread.finish()
    check(tmp_path)
    metrics.keep_only(log, lambda line: line["step"] <= 2)
    thread = TensorBoardThread(folder)
    thread.begin(log, {0: 2})
    write_log(log, record(0, 3))
    thread.write(record(0, 3))
    assert thread.finish()
    found = check(tmp_path)
    assert set(found) == {"batch/loss", "wall_time", "grad_evals"}
    assert list(found["batch/loss"]) == [1, 2, 3]
    assert list(scalars(folder / "seed_1")["batch/loss"]) == [1, 2, 3, 4, 5]


def test_event_files_are_plain_scalars_without_tensorflow(tmp_path):
    program = f"""
        import pathlib, sys
        from rkbench.records.tensorboard import EventFile
        file = EventFile(pathlib.Path({str(tmp_path / "seed_0")!r}))
        file.add({{"step": 7, "seed": 0, "batch/loss": 0.5}})
        file.close()
        print("tensorflow" in sys.modules)
    """
    output = subprocess.check_output([sys.executable, "-c", textwrap.dedent(program)], text=True)
    assert output == "False\n"
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    (path,) = (tmp_path / "seed_0").glob("events.out.tfevents.*")
    version, event = EventFileLoader(str(path)).Load()
    assert version.file_version == "brain.Event:2"
    (value,) = event.summary.value
    assert (event.step, value.tag, value.tensor.float_val[0]) == (7, "batch/loss", 0.5)
    assert value.metadata.plugin_data.plugin_name == "scalars"


@pytest.mark.parametrize("damage", ["gone", "cut", "no mark", "other lines", "a link"])
def test_event_files_that_are_not_complete_are_made_again(tmp_path, capsys, damage):
    log, folder = tmp_path / "metrics.jsonl", tmp_path / "tensorboard"
    write_log(log, *(record(seed, step) for step in range(1, 6) for seed in (0, 1)))
    said = run_record(log, 0, 1)
    tensorboard.mend(tmp_path, said)
    assert "seeds 0, 1" in capsys.readouterr().err
    before = resuming.contents(tmp_path)
    tensorboard.mend(tmp_path, said)
    assert (capsys.readouterr().err, resuming.contents(tmp_path)) == ("", before)
    seed, victim = folder / "seed_1", tmp_path / "victim"
    (path,) = seed.glob("events.out.tfevents.*")
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    elif damage == "no mark":
        (seed / tensorboard.COMPLETE).unlink()
    elif damage == "other lines":
        write_log(log, record(1, 6))
        said = run_record(log, 0, 1)
    else:
        seed.rename(victim)
        (victim / "mine").write_text("mine")
        seed.symlink_to(victim)
        (victim / tensorboard.COMPLETE).unlink()
    tensorboard.mend(tmp_path, said)
    assert "making event files again" in capsys.readouterr().err
    check(tmp_path, 0)
    check(tmp_path, 1)
    if damage == "a link":
        assert (victim / "mine").exists()


def test_our_writer_is_one_of_clus(clu_writers, tmp_path):
    for name in clu_writers.MetricWriter.__abstractmethods__:
        assert inspect.isfunction(getattr(JsonLinesWriter, name)), name
    writer = JsonLinesWriter(tmp_path / "metrics.jsonl")
    metrics.register_with_clu()
    assert isinstance(writer, clu_writers.MetricWriter)
    with clu_writers.ensure_flushes(clu_writers.MultiWriter([writer])) as both:
        both.write_scalars(3, {"seed": 0, "wall_time": 0.5, "grad_evals": 3, "a": 1.5})
    (line,) = metrics.read(tmp_path / "metrics.jsonl")
    assert line == {"step": 3, "seed": 0, "wall_time": 0.5, "grad_evals": 3, "a": 1.5}
    with pytest.raises(NotImplementedError, match="scalars only"):
        writer.write_images(0, {})


def test_a_failure_to_write_is_said_and_ends_nothing(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    write_log(tmp_path / "metrics.jsonl", record(0, 1))
    thread = TensorBoardThread(tmp_path / "file")
    thread.begin(tmp_path / "metrics.jsonl", {0: 1})
    assert not thread.finish()
    assert "TensorBoard files were not written" in capsys.readouterr().err


def test_the_wait_at_the_end_is_bounded_and_says_what_it_waits_for(tmp_path, monkeypatch, capsys):
    starved = threading.Event()
    monkeypatch.setattr(tensorboard.EventFile, "add", lambda self, line: starved.wait())
    write_log(tmp_path / "metrics.jsonl", record(0, 1))
    thread = TensorBoardThread(tmp_path / "tensorboard")
    thread.begin(tmp_path / "metrics.jsonl", {0: 1})
    begin = time.monotonic()
    assert not thread.finish(0.1)
    assert time.monotonic() - begin < 10
    starved.set()
    said = capsys.readouterr().err
    assert f"waiting for the event files in {tmp_path / 'tensorboard'}" in said
    assert "the same command makes them" in said


def config():
    result = digits_mlp.get_config("sgd")
    result.model.hidden_sizes = ()
    result.update(resuming.SETTINGS | {"seeds": (0, 1), "tensorboard": True})
    return result.lock()


@pytest.fixture(scope="module")
def experiment():
    return Experiment.from_config(config())


@pytest.mark.standard_promotion
def test_the_record_is_written_before_the_event_files_are_waited_for(
    tmp_path, monkeypatch, experiment
):
    finish, seen = TensorBoardThread.finish, []

    def look(self, *arguments):
        seen.append(json.loads((tmp_path / "run.json").read_text())["status"])
        return finish(self, *arguments)

    monkeypatch.setattr(TensorBoardThread, "finish", look)
    train_experiment(experiment, tmp_path)
    assert seen == ["done"]
    for seed in (0, 1):
        check(tmp_path, seed)


@pytest.mark.standard_promotion
@pytest.mark.parametrize("moment", ["before the end is recorded", "after it", "full disk"])
def test_the_same_command_mends_the_event_files_of_an_interrupted_end(
    tmp_path, monkeypatch, experiment, capsys, moment
):
    def interrupted(*arguments):
        raise OSError("No space left on device") if moment == "full disk" else resuming.Killed

    with monkeypatch.context() as patch:
        if moment == "before the end is recorded":
            patch.setattr(summary, "of_run", interrupted)
        elif moment == "after it":
            patch.setattr(TensorBoardThread, "finish", interrupted)
        else:
            patch.setattr(tensorboard.EventFile, "close", interrupted)
        with contextlib.suppress(resuming.Killed):
            train_experiment(experiment, tmp_path)
    if moment == "after it":
        for path in tmp_path.glob("tensorboard/seed_*/complete.json"):
            path.unlink()  # the thread may have lived on
    train_experiment(experiment, tmp_path)
    assert json.loads((tmp_path / "run.json").read_text())["status"] == "done"
    for seed in (0, 1):
        check(tmp_path, seed)
    capsys.readouterr()
    train_experiment(experiment, tmp_path)
    assert "making" not in capsys.readouterr().err
