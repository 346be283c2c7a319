"""One run in two processes on this machine: the same curve, a death noticed, and exact resuming."""

import json
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from resuming import final_checksums, log

from rkbench.errors import UserError
from rkbench.trainer import distributed

ROOT = pathlib.Path(__file__).resolve().parents[2]


def arguments(workdir, steps=60, every=20):
    return [
        *(sys.executable, "-m", "rkbench.main", "--config=configs/digits_mlp.py:rk4_momentum"),
        f"--workdir={workdir}",
        "--config.batch_size=16",
        f"--config.total_steps={steps}",
        f"--config.eval_every_steps={every}",
        f"--config.checkpoint_every_steps={every}",
        "--config.log_every_steps=1",
        "--config.model.hidden_sizes=(16,)",
        "--config.tensorboard=False",
    ]


def start(command, count):
    """The processes of a run, all on this machine."""
    port = free_port()
    where = (f"--coordinator=localhost:{port}", f"--processes={count}")
    return launched([[*command, *where, f"--process_id={i}"] for i in range(count)])


def free_port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def launched(commands):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return [subprocess.Popen(command, cwd=ROOT, **pipes) for command in commands]


def finish(processes, timeout=120):
    """(exit codes, what each wrote on stderr)."""
    outputs = [process.communicate(timeout=timeout) for process in processes]
    return [process.returncode for process in processes], [error for _, error in outputs]


def wait_for_step(workdir, step, processes, timeout=120):
    path, end = workdir / "metrics.jsonl", time.monotonic() + timeout
    while time.monotonic() < end and all(process.poll() is None for process in processes):
        if path.exists() and any(int(n) >= step for n in re.findall(r'"step": (\d+)', read(path))):
            return
        time.sleep(0.02)
    raise AssertionError(f"step {step} was not reached: {finish(processes)}")


def read(path):
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of two processes from beginning to end."""
    folder = tmp_path_factory.mktemp("two") / "run"
    codes, errors = finish(start(arguments(folder), 2))
    assert codes == [0, 0], errors
    return folder


def test_two_processes_train_as_one(whole, tmp_path):
    alone = subprocess.run(arguments(tmp_path / "one"), cwd=ROOT, capture_output=True, timeout=120)
    assert alone.returncode == 0, alone.stderr
    one, two = log(tmp_path / "one"), log(whole)
    assert [(line["step"], line["seed"]) for line in two] == [
        (line["step"], line["seed"]) for line in one
    ]
    for name in ("batch/loss", "batch/grad_norm", "test/loss", "train/loss"):
        curves = [[line[name] for line in lines if name in line] for lines in (one, two)]
        np.testing.assert_allclose(*curves, rtol=1e-4)
        assert len(curves[0]) >= 4


@pytest.mark.parametrize("victim", [0, 1])  # the others find each other through the first
def test_a_death_ends_the_other_and_both_resume_exactly(whole, tmp_path, victim):
    workdir = tmp_path / "run"
    processes = start(arguments(workdir), 2)
    wait_for_step(workdir, 20, processes)
    processes[victim].send_signal(signal.SIGKILL)
    begin = time.monotonic()
    codes, errors = finish(processes, distributed.HEARTBEAT_TIMEOUT_SECONDS + 60)
    if codes[1 - victim] == 0:  # it was at its end already
        pytest.skip("the other process had finished before this one was killed")
    assert codes[victim] == -signal.SIGKILL
    assert codes[1 - victim] != 0
    assert re.search("another (process|task)", errors[1 - victim])
    assert time.monotonic() - begin < distributed.HEARTBEAT_TIMEOUT_SECONDS + 30
    codes, errors = finish(start(arguments(workdir), 2))
    assert codes == [0, 0], errors
    assert log(workdir) == log(whole)
    assert final_checksums(workdir) == final_checksums(whole)


def test_sigterm_at_one_process_saves_in_both(whole, tmp_path):
    workdir = tmp_path / "run"
    processes = start(arguments(workdir), 2)
    wait_for_step(workdir, 20, processes)
    processes[1].send_signal(signal.SIGTERM)
    codes, errors = finish(processes)
    assert codes in ([75, 75], [0, 0]), errors
    codes, errors = finish(start(arguments(workdir), 2))
    assert codes == [0, 0], errors
    assert log(workdir) == log(whole)
    assert final_checksums(workdir) == final_checksums(whole)


def test_folders_that_are_not_one_are_refused(tmp_path):
    where = (f"--coordinator=localhost:{free_port()}", "--processes=2")
    processes = launched(
        [[*arguments(tmp_path / str(i)), *where, f"--process_id={i}"] for i in range(2)]
    )
    codes, errors = finish(processes)
    assert codes == [2, 2], errors
    assert all("is not one folder that all 2 processes see" in error for error in errors)


def test_each_process_reads_its_share_of_a_streamed_batch(tmp_path):
    command = [sys.executable, ROOT / "tests" / "streamed_run.py"]
    where = f"localhost:{free_port()}"
    processes = launched(
        [
            [*command, tmp_path / "one"],
            [*command, tmp_path / "two", where, "2", "0"],
            [*command, tmp_path / "two", where, "2", "1"],
        ]
    )
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    whole, first, second = (json.loads(output.splitlines()[-1]) for output, _ in outputs)
    assert whole == list(range(16))
    # Two chunks of 8: each process has its half of both.
    assert first == [0, 1, 2, 3, 8, 9, 10, 11]
    assert second == [4, 5, 6, 7, 12, 13, 14, 15]
    one, two = log(tmp_path / "one"), log(tmp_path / "two")
    for name in ("batch/loss", "test/loss"):
        curves = [[line[name] for line in lines if name in line] for lines in (one, two)]
        np.testing.assert_allclose(*curves, rtol=1e-4)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("localhost:1", 2, None), "belong together"),
        (("localhost", 2, 0), "HOST:PORT"),
        (("localhost:1", 0, 0), "--processes=0"),
        (("localhost:1", 2, 2), "--process_id=2"),
    ],
)
def test_processes_that_cannot_be_are_refused(given, said):
    with pytest.raises(UserError, match=re.escape(said)):
        distributed.initialize(*given)
