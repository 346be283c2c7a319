"""SLURM: what is submitted, and what the batch script does with every end of a run."""

import json
import os
import signal
import subprocess
import time

import pytest

from scripts.launch.jobs import Job
from scripts.launch.slurm import Slurm

NASTY = """--config.note=it's "50%", $HOME `id` \\ (a, b)"""


@pytest.fixture
def slurm(tmp_path):
    return Slurm(tmp_path / "out, put", at_once=2, attempts=2, options=("--partition=gpu",))


def task(world, index=0, **variables):
    """Starts a task of the array that was submitted."""
    variables = {"SLURM_ARRAY_TASK_ID": str(index), "SLURM_JOB_ID": "4712"} | variables
    return subprocess.Popen(
        ["bash", world.folder / "batch.sh"],
        env=os.environ | variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def test_an_array_with_a_cap_and_arguments_that_survive(world, slurm):
    jobs = [Job("first", ("--config=x",)), Job("a, 'b' \"c\"", ("--config=y", NASTY))]
    assert slurm.start(jobs) == "4711"
    (call,) = world.calls("sbatch")
    assert {"--array=0-1%2", "--requeue", "--open-mode=append", "--partition=gpu"} <= set(call)
    assert task(world, 1, SLURM_NTASKS="2").wait(timeout=20) == 0
    ((_, train, *given, workdir),) = world.calls("rkbench")
    assert (train, given) == ("train", ["--config=y", NASTY, "--distributed"])
    assert workdir == f"--workdir={slurm.output}/a, 'b' \"c\""
    assert slurm.unfinished(jobs) == jobs[:1]


def test_a_finished_run_is_not_submitted_again(world, slurm):
    job = Job("run", ("--config=x",), seeds=(0,))
    slurm.start([job])
    assert task(world).wait(timeout=20) == 0
    assert slurm.unfinished([job]) == []
    assert slurm.unfinished([Job("run", ("--config=x",), seeds=(0, 1))])
    (slurm.output / "run" / "run.json").write_text("{")
    assert slurm.unfinished([job]) == [job]


@pytest.mark.parametrize(
    ("code", "requeued", "failures"),
    [(0, False, 0), (2, False, 0), (75, False, 0), (1, True, 1), (137, True, 1)],
)
def test_the_end_of_a_run_decides_what_follows(world, slurm, code, requeued, failures):
    slurm.start([Job("run", ("--config=x", f"--config.exit={code}"))])
    assert task(world).wait(timeout=20) == (0 if requeued else code)
    assert bool(world.calls("scontrol", "requeue", "4712")) == requeued
    file = slurm.output / "launch" / "run.failures"
    assert (file.read_text().count("\n") if file.exists() else 0) == failures


def test_failures_are_capped_until_it_is_submitted_again(world, slurm):
    job = Job("run", ("--config=x", "--config.crashes=3"))
    slurm.start([job])
    assert [task(world).wait(timeout=20) for _ in range(2)] == [0, 1]
    assert len(world.calls("scontrol", "requeue")) == 1
    slurm.start([job])
    assert [task(world).wait(timeout=20) for _ in range(2)] == [0, 0]
    assert slurm.unfinished([job]) == []


def test_before_the_time_limit_the_run_saves_and_the_job_is_queued_again(world, slurm):
    slurm.start([Job("run", ("--config=x", "--config.total_steps=1000"))])
    process = task(world)
    log = slurm.output / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 20
    while not (log.exists() and log.read_text().count("\n") > 2) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=20) == 0
    assert world.calls("scontrol", "requeue", "4712")
    assert not (slurm.output / "launch" / "run.failures").exists()
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert (slurm.output / "run" / "checkpoints" / str(steps[-1])).is_dir()
