"""What surrounds a command: closed streams, terminals, variables and the logs of others."""

import io
import json
import logging
import os
import subprocess
import sys

import absl.logging
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rkbench.commands import command_line
from rkbench.configs import digits_mlp
from rkbench.errors import UserError
from rkbench.records import identity
from rkbench.train import train_and_evaluate
from rkbench.trainer import checkpoint

TRAIN = ["train", "--config=digits_mlp:rk4", "--config.total_steps=2", "--config.tensorboard=0"]


def run(folder, *arguments, closed="", **environment):
    """The exit code of a command with these streams closed, as a shell closes them."""
    command = [sys.executable, "-m", "rkbench", *arguments]
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *command],
        cwd=folder,
        env=os.environ | {"JAX_PLATFORMS": "cpu"} | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=120,
        check=False,
    ).returncode


def test_a_run_whose_streams_are_closed_ends_with_0_and_nothing_else_in_its_files(tmp_path):
    assert run(tmp_path, *TRAIN, "--workdir=run", closed="<&- >&- 2>&-") == 0
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 2]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "done"


@pytest.mark.parametrize("closed", ["", ">&- 2>&-"])
def test_a_drawing_backend_of_a_notebook_does_no_harm(tmp_path, closed):
    backend = "module://matplotlib_inline.backend_inline"
    assert run(tmp_path, "verify", ".", closed=closed, MPLBACKEND=backend) == 2  # it is empty


def test_a_terminal_that_knows_only_ascii(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    with command_line.user_errors():
        print("96.6 ± 0.1")
    assert written.getvalue() == b"96.6 \\xb1 0.1\n"


def test_jax_that_compiles_nothing_is_refused_before_anything_is_written(tmp_path):
    with jax.disable_jit(), pytest.raises(UserError, match="JAX_DISABLE_JIT"):
        train_and_evaluate(digits_mlp.get_config("rk4").lock(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_log_of_others_is_left_alone(caplog, tmp_path, monkeypatch):
    checkpoints = checkpoint.Checkpoints(tmp_path / "seed-0")
    checkpoints.save(1, {"w": jnp.ones(2)}, {})
    checkpoints.close()
    absl.logging.warning("mine")
    logging.getLogger("absl").warning("mine too")
    assert [record.message for record in caplog.records] == ["mine", "mine too"]


def of_orbax(level):
    path = "/x/site-packages/orbax/checkpoint/checkpointer.py"
    return logging.LogRecord("absl", level, path, 1, "saved", (), None)


@pytest.mark.parametrize(
    ("verbosity", "shown"), [(absl.logging.WARNING, False), (absl.logging.INFO, True)]
)
def test_orbax_is_heard_where_it_is_asked_for(verbosity, shown, tmp_path):
    checkpoint.Checkpoints(tmp_path / "seed-0").close()
    before = absl.logging.get_verbosity()
    absl.logging.set_verbosity(verbosity)
    try:
        heard = logging.getLogger("absl").filter(of_orbax(logging.ERROR))
    finally:
        absl.logging.set_verbosity(before)
    assert bool(heard) == shown


def test_numbers_of_numpy_and_jax_in_a_config_are_recorded_as_numbers():
    config = digits_mlp.get_config("adam")
    config.optimizer.nesterov = np.bool_(True)
    config.optimizer.eps_root = np.float32(0.5)
    config.optimizer.other = jnp.int32(3)
    optimizer = identity.plain_config(config)["optimizer"]
    assert [optimizer[name] for name in ("nesterov", "eps_root", "other")] == [True, 0.5, 3]


def test_what_cannot_be_recorded_is_named():
    with pytest.raises(UserError, match=r"function .* cannot be recorded"):
        identity.plain({"mask": lambda params: params})
