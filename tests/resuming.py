"""What tests of exact resuming share: an interruption, and what must be the same after it."""

import json
import pathlib

import jax
import numpy as np
import pytest

from rkbench.records import metrics
from rkbench.step.program import Program
from rkbench.train import train_and_evaluate, train_experiment
from rkbench.trainer.checkpoint import Checkpoints
from rkbench.trainer.experiment import Experiment

# Events of the runs that are interrupted, none a multiple of another.
SETTINGS = {
    "total_steps": 60,
    "eval_every_steps": 20,
    "checkpoint_every_steps": 15,
    "log_every_steps": 7,
    "tensorboard": False,
}

CLOCKS = ("wall_time", "seconds", "input/wait_seconds")


def log(workdir):
    """The log without the clock."""
    lines = metrics.read(pathlib.Path(workdir) / "metrics.jsonl")
    return [{k: v for k, v in line.items() if k not in CLOCKS} for line in lines]


def outcomes(record):
    """A run record's results without the clock."""
    seeds = [{k: v for k, v in seed.items() if k not in CLOCKS} for seed in record["seeds"]]
    return seeds, record["status"], record["steps"], record["grad_evals"]


def final_state(workdir, experiment, seed=0):
    checkpoints = Checkpoints(pathlib.Path(workdir).absolute() / "checkpoints" / f"seed-{seed}")
    restored = checkpoints.restore(experiment.program.init((seed,)))
    checkpoints.close()
    assert restored is not None
    assert restored.step == experiment.config.total_steps
    return restored.state


def contents(folder):
    """Every file below the folder, with its bytes."""
    files = (path for path in pathlib.Path(folder).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def final_checksums(workdir):
    """The SHA-256 of each seed's last state, as its last checkpoint gives it."""
    checksums = {}
    for folder in sorted(pathlib.Path(workdir).glob("checkpoints/seed-*")):
        last = max(int(path.name) for path in folder.iterdir() if path.name.isdigit())
        progress = json.loads((folder / str(last) / "progress" / "metadata").read_text())
        checksums[folder.name, last] = progress["checksum"]
    return checksums


def assert_same_bits(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


class Killed(BaseException):
    """Stands for a kill in the middle: nothing catches it."""


def interrupt(monkeypatch, calls):
    """The `calls`-th call of the compiled program from now on raises `Killed`."""
    advance = Program.advance
    left = [calls]

    def interrupted(self, *arguments):
        left[0] -= 1
        if left[0] == 0:
            monkeypatch.setattr(Program, "advance", advance)
            raise Killed
        return advance(self, *arguments)

    monkeypatch.setattr(Program, "advance", interrupted)


def check_resuming(monkeypatch, folder, configuration, calls, meanwhile=lambda workdir: None):
    """A run killed in its `calls`-th call and resumed equals one that was not, bit for bit."""
    one, other = folder / "one", folder / "other"
    experiment = Experiment.from_config(configuration)  # of both, up to the kill: traced once
    uninterrupted = train_experiment(experiment, one)
    interrupt(monkeypatch, calls)
    with pytest.raises(Killed):
        train_experiment(experiment, other)
    meanwhile(other)
    resumed = train_and_evaluate(configuration, other)  # knows nothing of what ran before
    assert outcomes(resumed) == outcomes(uninterrupted)
    assert log(other) == log(one)
    for seed in configuration.seeds:
        assert_same_bits(*(final_state(d, experiment, seed) for d in (one, other)))
