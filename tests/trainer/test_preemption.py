"""SIGTERM inside one process; `test_faults.py` has the exit codes of real ones."""

import os
import signal
import threading
import time

import pytest
from console import rkbench
from resuming import Killed, final_checksums, interrupt, log, outcomes

from rkbench.configs import digits_mlp
from rkbench.train import train_experiment
from rkbench.trainer import preemption
from rkbench.trainer.evaluate import Split
from rkbench.trainer.experiment import Experiment


@pytest.fixture(scope="module")
def experiment():
    """Two seeds, whose test set is evaluated in four batches that are dispatched one by one."""
    config = digits_mlp.get_config("momentum")
    config.model.hidden_sizes = ()
    config.update(
        {
            "total_steps": 30,
            "eval_every_steps": 10,
            "checkpoint_every_steps": 8,
            "log_every_steps": 3,
            "train_eval_size": 250,
            "eval_batch_size": 125,
            "seeds": (0, 1),
            "compiled_loops": "off",
            "tensorboard": False,
        }
    )
    return Experiment.from_config(config.lock())


@pytest.fixture(scope="module")
def uninterrupted(experiment, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted")
    return workdir, train_experiment(experiment, workdir)


def terminate(number=signal.SIGTERM):
    """A signal to this process; returns when it has taken note of it."""
    os.kill(os.getpid(), number)
    while not preemption.requested():
        time.sleep(0.001)


def terminate_before_evaluation_batch(monkeypatch, number):
    each, left = Split.each, [number]

    def batches(self):
        for batch in each(self):
            left[0] -= 1
            if left[0] == 0:
                terminate()
            yield batch

    monkeypatch.setattr(Split, "each", batches)


def check_same(experiment, workdir, record, uninterrupted):
    folder, expected = uninterrupted
    assert outcomes(record) == outcomes(expected)
    assert log(workdir) == log(folder)
    assert final_checksums(workdir) == final_checksums(folder)


def preempted(experiment, workdir):
    with preemption.handled(), pytest.raises(preemption.Preempted) as raised:
        train_experiment(experiment, workdir)
    assert raised.value.code == 75


# 6 batches an evaluation: at step 0, 10, 20 (no steps of checkpoints) and 30.
@pytest.mark.parametrize(("batch", "saved"), [(3, None), (8, 10), (14, 20), (24, 30)])
def test_in_an_evaluation_the_state_is_saved_and_the_evaluation_made_later(
    tmp_path, monkeypatch, experiment, uninterrupted, batch, saved
):
    with monkeypatch.context() as patch:
        terminate_before_evaluation_batch(patch, batch)
        preempted(experiment, tmp_path)
    steps = {int(path.name) for path in tmp_path.glob("checkpoints/seed-0/[0-9]*")}
    assert max(steps, default=None) == saved
    assert not any(line["step"] == saved and "test/loss" in line for line in log(tmp_path))
    # Killed after the evaluation was made, and resumed from before it: it must not be there twice.
    if saved not in (None, 30):
        interrupt(monkeypatch, 2)
        with pytest.raises(Killed):
            train_experiment(experiment, tmp_path)
    check_same(experiment, tmp_path, train_experiment(experiment, tmp_path), uninterrupted)


def test_ctrl_c_saves_and_says_so_in_one_line(
    tmp_path, monkeypatch, capsys, experiment, uninterrupted
):
    advance = type(experiment.program).advance

    def interrupted(self, *arguments):
        terminate(signal.SIGINT)
        return advance(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(type(experiment.program), "advance", interrupted)
        with pytest.raises(preemption.Preempted) as raised, preemption.handled():
            train_experiment(experiment, tmp_path)
    assert raised.value.code == 130
    (saved,) = (int(path.name) for path in tmp_path.glob("checkpoints/seed-0/[0-9]*"))
    assert saved > 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("rkbench:")]
    assert lines == [f"rkbench: interrupted at step {saved}; the same command resumes"]
    check_same(experiment, tmp_path, train_experiment(experiment, tmp_path), uninterrupted)


def test_a_request_that_comes_again_and_again_never_stops_progress(
    tmp_path, monkeypatch, experiment, uninterrupted
):
    advance = type(experiment.program).advance

    def one_call_then_terminate(self, *arguments):
        terminate()
        return advance(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(type(experiment.program), "advance", one_call_then_terminate)
        for _ in range(10):
            preempted(experiment, tmp_path)
    check_same(experiment, tmp_path, train_experiment(experiment, tmp_path), uninterrupted)


def test_afterwards_the_signal_and_the_request_are_as_before():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with preemption.handled(), preemption.deferred():
        assert not preemption.requested()
        terminate()
        with pytest.raises(preemption.Preempted):
            preemption.raise_if_requested()
    assert not preemption.requested()
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
    assert not any(thread.name == "preemption" for thread in threading.enumerate())


def interrupt_where_nothing_trains(number):
    with preemption.handled():
        os.kill(os.getpid(), number)
        time.sleep(5)
        raise AssertionError("it went on")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_where_nothing_trains_the_command_ends_on_the_spot(number, code, capsys):
    with pytest.raises(preemption.Preempted) as raised:
        interrupt_where_nothing_trains(number)
    assert raised.value.code == code
    assert capsys.readouterr().err == "rkbench: interrupted; the same command resumes\n"


COMMANDS = {
    "train": ("rkbench.train.train_and_evaluate", ["--config=configs/digits_mlp.py:adam"]),
    "quickstart": ("rkbench.commands.quickstart._train", []),
    "sweep": (
        "rkbench.sweep.tune.sweep",
        ["--config=configs/digits_mlp.py:adam", "--space=configs/sweeps/learning_rate.py"],
    ),
    "table1": ("rkbench.paper.train.train", []),
    "figure": ("rkbench.paper.train.train", ["2"]),
    "paper": ("rkbench.paper.train.train", []),
    "study": ("rkbench.paper.train.train", []),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_every_command_that_trains_ends_with_one_line(
    tmp_path, monkeypatch, capsys, command, number, code
):
    trains, arguments = COMMANDS[command]

    def interrupted(*arguments):
        os.kill(os.getpid(), number)
        time.sleep(5)
        raise AssertionError("it went on")

    monkeypatch.setattr(trains, interrupted)
    monkeypatch.chdir(tmp_path)
    if command in ("train", "sweep", "quickstart"):
        arguments = [*arguments, f"--workdir={tmp_path}"]
    else:
        arguments = [*arguments, "--scale=smoke", f"--runs={tmp_path}"]
    assert rkbench(monkeypatch, command, *arguments) == code
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("rkbench")]
    assert told == ["rkbench: interrupted; the same command resumes"]


def test_a_ctrl_c_that_is_ignored_stays_ignored():
    """As a shell has it for what it starts in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with preemption.handled():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
            assert not preemption.requested()
    finally:
        signal.signal(signal.SIGINT, before)


def test_outside_the_main_thread_nothing_is_handled():
    before, during = signal.getsignal(signal.SIGTERM), []

    def run():
        with preemption.handled():
            during.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert during == [before]
