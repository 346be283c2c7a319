"""What happens to real runs: kills, a full disk, damaged files, a clock that jumps, NaN in a seed.

In none is a finished result lost or wrong, and what is resumed ends as the uninterrupted run, bit
for bit. `faults.py` has the faults of processes, which a `zygote.py` forks.
"""

import errno
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
import pytest
import resuming
from faults import ANYBODY, KILLS
from resuming import Killed, contents, final_checksums, interrupt, log, outcomes

from rkbench import files
from rkbench.configs import digits_mlp
from rkbench.records import metrics
from rkbench.step.program import Program
from rkbench.train import train_and_evaluate, train_experiment
from rkbench.trainer.checkpoint import Checkpoints
from rkbench.trainer.evaluate import Evaluator
from rkbench.trainer.experiment import Experiment

pytestmark = pytest.mark.standard_promotion

SETTINGS = resuming.SETTINGS | {"seeds": (0, 1)}


def config(**changes):
    result = digits_mlp.get_config("adam")
    result.model.hidden_sizes = ()  # less to trace and to compile
    result.update(SETTINGS | changes)
    return result.lock()


@pytest.fixture(scope="module")
def experiment():
    return Experiment.from_config(config())


@pytest.fixture(scope="module")
def uninterrupted(experiment, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted")
    train_experiment(experiment, workdir)
    return workdir


def record(workdir):
    return json.loads((workdir / "run.json").read_text())


def check_same(workdir, uninterrupted):
    assert outcomes(record(workdir)) == outcomes(record(uninterrupted))
    assert log(workdir) == log(uninterrupted)
    assert final_checksums(workdir) == final_checksums(uninterrupted)


def killed(monkeypatch, experiment, workdir, call):
    """A run that was killed at its `call`-th compiled call."""
    interrupt(monkeypatch, call)
    with pytest.raises(Killed):
        train_experiment(experiment, workdir)


# Real processes


@pytest.fixture(scope="module")
def command():
    """Trains the config in a workdir in a process of its own: (exit code, what it printed)."""
    tests = pathlib.Path(__file__).parents[1]
    process = subprocess.Popen(
        [sys.executable, str(tests / "zygote.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(tests.parent), "JAX_PLATFORMS": "cpu"},
    )
    settings = [f"--config.{name}={value}" for name, value in SETTINGS.items()]

    def run(workdir, fault=None, **arguments):
        flags = ["--config=configs/digits_mlp.py:adam", "--config.model.hidden_sizes=()"]
        trial = {
            "command": ["train", *flags, *settings, f"--workdir={workdir}"],
            "fault": fault,
            "arguments": arguments,
        }
        process.stdin.write(json.dumps(trial) + "\n")
        process.stdin.flush()
        return tuple(json.loads(process.stdout.readline()))

    yield run
    process.stdin.close()
    assert process.wait() == 0


def no_line_twice(workdir):
    lines = metrics.sound(workdir / "metrics.jsonl")
    events = [(line["seed"], line["step"], "test/loss" in line) for line in lines]
    return len(events) == len(set(events))


def test_runs_killed_at_twenty_moments_end_as_one_that_was_not(tmp_path, command, uninterrupted):
    rng = random.Random(0)
    trials: list[tuple[str, dict[str, Any]]] = [(fault, {"call": 1}) for fault in KILLS]
    trials += [(fault, {"call": rng.randint(2, 3)}) for fault in rng.sample(sorted(KILLS), 8)]
    for seconds in (0.0, rng.uniform(0, 0.02), rng.uniform(0, 0.1)):
        trials.append(("while a checkpoint is written", {"call": 1, "seconds": seconds}))
    rng.shuffle(trials)
    workdir, finished, kills = tmp_path / "0", [], 0
    for fault, arguments in trials:
        code, output = command(workdir, fault, **arguments)
        assert code in (0, -signal.SIGKILL), (fault, output)
        assert no_line_twice(workdir), fault
        kills += code == -signal.SIGKILL
        if code == 0:
            finished.append(workdir)
            workdir = tmp_path / str(len(finished))
    assert kills >= 20
    if workdir.exists():
        assert command(workdir)[0] == 0
        finished.append(workdir)
    for folder in finished:
        check_same(folder, uninterrupted)


def test_sigterm_saves_and_exits_with_75_within_the_time_of_grace(tmp_path, command, uninterrupted):
    code, output = command(tmp_path, "SIGTERM between steps", call=3)
    assert code == 75, output
    (saved,) = (int(path.name) for path in tmp_path.glob("checkpoints/seed-0/[0-9]*"))
    assert f"rkbench: interrupted at step {saved}; the same command resumes\n" in output
    assert saved > 0
    before = final_checksums(tmp_path)
    begin = time.monotonic()
    code, output = command(tmp_path, "SIGTERM in compilation", call=1, grace=0.2)
    assert code == 75, output
    assert time.monotonic() - begin < 25
    assert "the same command resumes from the last checkpoint" in output
    assert final_checksums(tmp_path) == before
    code, output = command(tmp_path, "SIGTERM while a checkpoint is written", call=1)
    assert code == 75, output
    assert "Traceback" not in output
    assert command(tmp_path)[0] == 0
    check_same(tmp_path, uninterrupted)


def test_a_second_ctrl_c_ends_the_run_at_once(tmp_path, command, uninterrupted):
    code, output = command(tmp_path, "Ctrl-C twice between steps", call=3)
    assert code == 130, output
    assert "rkbench: interrupted a second time; the same command resumes" in output
    assert "Traceback" not in output
    assert not list(tmp_path.glob("checkpoints/seed-0/[0-9]*"))  # nothing was saved any more
    assert command(tmp_path)[0] == 0
    check_same(tmp_path, uninterrupted)


def test_a_full_disk_ends_the_run_with_74_and_room_lets_it_go_on(tmp_path, command, uninterrupted):
    code, output = command(tmp_path, "full disk", call=2)
    assert code == 74, output
    assert output.splitlines()[-1].startswith("rkbench: error: ")
    assert "Traceback" not in output
    saved = [path.name for path in tmp_path.glob("checkpoints/seed-0/*") if path.name.isdigit()]
    assert saved in ([], ["15"])  # the first may be unfinished when the disk becomes full
    assert command(tmp_path)[0] == 0
    check_same(tmp_path, uninterrupted)


@pytest.fixture
def passable():
    """A folder that every user can look into: pytest's own are its user's alone."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        yield pathlib.Path(folder)


def test_a_workdir_that_cannot_be_written(passable, command, uninterrupted):
    try:
        subprocess.run(["true"], user=ANYBODY if os.geteuid() == 0 else None, check=True)
    except OSError as error:
        pytest.skip(f"root writes everywhere, and cannot be another user here: {error}")
    workdir, new = passable / "run", passable / "new"
    assert command(workdir, "between steps", call=4)[0] == -signal.SIGKILL
    for path in (workdir, *workdir.rglob("*")):
        path.chmod(0o777)
    before = contents(workdir)
    for part in (".", "checkpoints/seed-0", "metrics.jsonl"):
        closed = workdir / part
        closed.chmod(0o555)
        result = command(workdir, "no privileges")
        closed.chmod(0o777)
        error = f"rkbench: error: workdir {workdir} cannot be written: {closed} is read-only\n"
        assert result == (2, error)
        assert contents(workdir) == before
    passable.chmod(0o555)
    code, output = command(new, "no privileges")
    passable.chmod(0o777)
    assert (code, output.count("\n")) == (2, 1), output
    assert f"workdir {new} cannot be written: Permission denied" in output
    assert not new.exists()
    assert command(workdir)[0] == 0
    check_same(workdir, uninterrupted)


# In this process


def full(*arguments, **keywords):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [
        (metrics.JsonLinesWriter, "flush", 2),
        (metrics.JsonLinesWriter, "write_line", 9),
        (metrics, "keep_only", 2),
        (files, "write_json", 1),
        (files, "write_json", 2),
        (files, "write_json", 6),  # all seeds are recorded, the end is not
        (os, "fsync", 3),
    ],
)
def test_no_room_for_a_file_of_ours(
    tmp_path, monkeypatch, experiment, uninterrupted, owner, name, call
):
    original, left = getattr(owner, name), [call]

    def fails_from_then_on(*arguments, **keywords):
        left[0] -= 1
        return (original if left[0] > 0 else full)(*arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fails_from_then_on)
        with pytest.raises(OSError, match="No space left"):
            train_experiment(experiment, tmp_path)
    train_experiment(experiment, tmp_path)
    check_same(tmp_path, uninterrupted)


def test_a_resumed_log_holds_nothing_that_the_restored_state_has_not_reached(
    tmp_path, monkeypatch, experiment
):
    killed(monkeypatch, experiment, tmp_path, 6)
    reached = []

    def look(self, state, seeds, first_step, steps):
        reached.extend(line["step"] for line in log(tmp_path) if line["seed"] in seeds)
        reached.append(first_step)
        raise Killed

    monkeypatch.setattr(Program, "advance", look)
    with pytest.raises(Killed):
        train_experiment(experiment, tmp_path)
    assert len(reached) > 1
    assert max(reached) == reached[-1] == 15


def flip_bit(line):
    middle = len(line) // 2
    return line[:middle] + bytes([line[middle] ^ 1]) + line[middle + 1 :]


DAMAGES = {
    "a bit": flip_bit,
    "a digit": lambda line: line.replace(b'"step": ', b'"step": 1', 1),
    "cut off": lambda line: line[: len(line) // 2],
    "zeros": lambda line: b"\0" * (len(line) - 1) + b"\n",
    "not a record": lambda line: b'{"step": "x", "seed": []}\n',
    "twice": lambda line: line + line,
    "gone": lambda line: b"",
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("place", [3, -1])
def test_a_log_line_that_a_crash_damaged(
    tmp_path, monkeypatch, experiment, uninterrupted, damage, place
):
    """Of the second seed's lines before its checkpoint; place -1 is what comes after it."""
    killed(monkeypatch, experiment, tmp_path, 17)
    path = tmp_path / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    own = [number for number, line in enumerate(lines) if json.loads(line)["seed"] == 1]
    lines[own[place]] = DAMAGES[damage](lines[own[place]])
    path.write_bytes(b"".join(lines))
    train_experiment(experiment, tmp_path)
    check_same(tmp_path, uninterrupted)


@pytest.mark.parametrize("status", ["running", "done"])
def test_a_damaged_line_of_a_finished_seed_is_made_again(
    tmp_path, monkeypatch, experiment, uninterrupted, capsys, status
):
    if status == "running":
        killed(monkeypatch, experiment, tmp_path, 17)
    else:
        train_experiment(experiment, tmp_path)
    path = tmp_path / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[4] = flip_bit(lines[4])
    path.write_bytes(b"".join(lines))
    assert record(tmp_path)["seeds"][0]["status"] == "done"
    train_experiment(experiment, tmp_path)
    assert "damaged in the lines of seed 0" in capsys.readouterr().err

    def by_seed(workdir):
        return sorted(log(workdir), key=lambda line: line["seed"])

    assert by_seed(tmp_path) == by_seed(uninterrupted)
    assert outcomes(record(tmp_path)) == outcomes(record(uninterrupted))
    assert final_checksums(tmp_path) == final_checksums(uninterrupted)
    before = contents(tmp_path)
    train_experiment(experiment, tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("part", ["state", "progress"])
def test_a_run_whose_newest_checkpoint_is_damaged(
    tmp_path, monkeypatch, experiment, uninterrupted, capsys, part
):
    killed(monkeypatch, experiment, tmp_path, 9)
    steps = sorted(int(path.name) for path in tmp_path.glob("checkpoints/seed-0/[0-9]*"))
    newest = tmp_path / "checkpoints" / "seed-0" / str(steps[-1])
    for file in (newest / part).rglob("*"):
        if file.is_file() and file.stat().st_size:
            file.write_bytes(flip_bit(file.read_bytes()))
    train_experiment(experiment, tmp_path)
    assert f"the checkpoint of step {steps[-1]} is damaged" in capsys.readouterr().err
    check_same(tmp_path, uninterrupted)


def test_a_clock_that_jumps(tmp_path, monkeypatch, experiment, uninterrupted):
    """By days, in every evaluation; while Orbax writes, its own time limit would be reached."""
    rng, now, jumped = random.Random(0), time.time, [0.0]
    save, evaluate = Checkpoints.save, Evaluator.__call__

    def save_at_once(self, *arguments):
        save(self, *arguments)
        self.wait()

    def evaluate_after_a_jump(self, *arguments):
        jumped[0] += rng.uniform(-1e6, 1e6)
        return evaluate(self, *arguments)

    monkeypatch.setattr(Checkpoints, "save", save_at_once)
    monkeypatch.setattr(Evaluator, "__call__", evaluate_after_a_jump)
    monkeypatch.setattr(time, "time", lambda: now() + jumped[0])
    killed(monkeypatch, experiment, tmp_path, 8)
    result = train_experiment(experiment, tmp_path)
    check_same(tmp_path, uninterrupted)
    assert 0 < result["seconds"] < 60
    for seed in (0, 1):
        lines = metrics.read(tmp_path / "metrics.jsonl")
        times = [line["wall_time"] for line in lines if line["seed"] == seed]
        assert times == sorted(times)


@pytest.mark.parametrize("vectorize", ["off", "on"])
def test_a_nan_in_one_seed_of_five_is_that_seeds_alone(
    tmp_path, monkeypatch, experiment, vectorize
):
    seeds, poisoned, at = (0, 1, 2, 3, 4), 2, 33
    five = config(seeds=seeds, vectorize_seeds=vectorize, total_steps=40)
    experiment = Experiment.from_config(five, like=experiment)
    train_experiment(experiment, tmp_path / "sound")
    advance = Program.advance

    def poison(self, state, group, first_step, steps):
        state, history = advance(self, state, group, first_step, steps)
        if poisoned in group and first_step <= at < first_step + steps:
            column = (group.index(poisoned),) if len(group) > 1 else ()
            kernel = np.array(state.params["Dense_0"]["kernel"])
            kernel[(*column, 0, 0)] = np.nan
            state.params["Dense_0"]["kernel"] = kernel
        return state, history

    monkeypatch.setattr(Program, "advance", poison)
    result = train_experiment(experiment, tmp_path / "poisoned")
    assert [entry["status"] for entry in result["seeds"]].count("diverged") == 1
    assert result["seeds"][poisoned]["status"] == "diverged"
    assert at <= result["seeds"][poisoned]["steps"] <= 40
    assert result["status"] == "done"

    def others(workdir):
        lines = [line for line in log(workdir) if line["seed"] != poisoned]
        return sorted(lines, key=lambda line: (line["seed"], line["step"], "test/loss" in line))

    assert others(tmp_path / "poisoned") == others(tmp_path / "sound")
    assert train_and_evaluate(experiment.config, tmp_path / "poisoned") == result
