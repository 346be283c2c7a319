"""Commands as a user types them: what they print, their exit codes, and what they do not import."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
from console import rkbench

ROOT = pathlib.Path(__file__).parents[2]


def command(*arguments, cwd=ROOT):
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
    )


def train(workdir, *arguments, config="configs/digits_mlp.py:rk4", cwd=ROOT):
    flags = [f"--config={config}", f"--workdir={workdir}", *arguments]
    return command("rkbench.main", *flags, cwd=cwd)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.total_step=5"], "unknown config field 'total_step'; nearest: total_steps"),
        (["--config.optimizer.learning=5"], "nearest: optimizer.learning_rate"),
        (["--config.total_steps=many"], "total_steps"),
        (["--config.seeds=a"], "seed 'a'"),
        (["--confg=x"], "unknown flag 'confg'; nearest: config"),
        (["more"], "unexpected argument 'more'"),
        (["--config=configs/digit_mlp.py:rk4"], "nearest: configs/digits_mlp.py"),
        (["--config=configs/digits_mlp.py:rk5"], "unknown optimizer 'rk5'"),
        (["--config=configs/digits_mlp.py:rk4,ful"], "'ful'; nearest: full"),
        (["--config=configs/digits_mlp.py:rk4,total_steps=x"], "total_steps"),
    ],
)
def test_a_bad_command_line_is_one_line_and_exit_code_2(tmp_path, arguments, message):
    workdir = tmp_path / "run"
    result = train(workdir, *arguments)
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("rkbench: error: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    assert not workdir.exists()


def test_a_bad_value_that_only_the_trainer_knows_is_one_line_too(tmp_path):
    result = train(tmp_path / "run", "--config.batch_size=5000")
    assert result.returncode == 2
    assert result.stderr == (
        "rkbench: error: batch_size=5000 must lie between 1 and the 1297 training examples "
        "(or be 'full')\n"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("missing", ["--config=", "--workdir="])
def test_what_is_missing_is_named(tmp_path, missing):
    flags = [
        f
        for f in ("--config=configs/digits_mlp.py:rk4", f"--workdir={tmp_path}")
        if missing not in f
    ]
    result = command("rkbench.main", *flags)
    assert result.returncode == 2
    assert f"{missing.rstrip('=')} is missing" in result.stderr


def test_a_workdir_that_is_a_file(tmp_path):
    (tmp_path / "run").write_text("mine")
    result = train(tmp_path / "run", "--config.total_steps=1")
    assert result.returncode == 2
    assert "cannot be written" in result.stderr
    assert (tmp_path / "run").read_text() == "mine"


def test_training_from_any_folder_with_overrides_and_tensorboard(tmp_path):
    result = train(
        tmp_path / "run",
        "--config.total_steps=20",
        "--config.batch_size=full",
        "--config.seeds=(4,)",
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert "seed 4: final test accuracy" in result.stdout
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "done"
    assert record["config"]["batch_size"] == "full"
    assert record["grad_evals"] == 80
    assert record["versions"].keys() >= {"jax", "optax", "rkbench"}
    assert list((tmp_path / "run" / "tensorboard" / "seed_4").glob("events.out.tfevents.*"))
    assert "Traceback" not in result.stderr


LIGHT = """
import sys
from rkbench.commands import cli
sys.argv = ["rkbench", *sys.argv[1:]]
try:
    cli.main()
finally:
    heavy = {"jax", "tensorflow", "tensorflow_datasets", "flax"} & set(sys.modules)
    print("imported:", sorted(heavy), file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ([], "quickstart"),
        (["list"], "rk4_modified_adagrad"),
        (["train", "--help"], "--workdir"),
        (["quickstart", "--help"], "--workdir"),
        (["sweep", "--help"], "--shard"),
        (["score", "--help"], "--target"),
        (["report", "--help"], "--max_points"),
        (["compare", "--help"], "--metric"),
    ],
)
def test_commands_that_only_print_import_nothing_heavy(arguments, shown):
    result = subprocess.run(
        [sys.executable, "-c", LIGHT, *arguments], capture_output=True, text=True, cwd=ROOT
    )
    assert result.returncode == 0, result.stderr
    assert shown in result.stdout
    assert result.stderr.endswith("imported: []\n")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [(), ("list",), ("train", "--help")])
def test_a_reader_that_has_gone_is_no_error(arguments, unbuffered):
    reader, writer = os.pipe()
    os.close(reader)
    run = [sys.executable, "-m", "rkbench", *arguments]
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    result = subprocess.run(
        run, stdout=writer, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment
    )
    os.close(writer)
    assert (result.returncode, result.stderr) == (141, "")


def test_an_unknown_command(tmp_path):
    result = command("rkbench", "trian")
    assert result.returncode == 2
    expected = "rkbench: error: unknown command 'trian'; nearest: train, "
    assert result.stderr.startswith(expected)
    assert result.stderr.count("\n") == 1


def test_ctrl_c_where_nothing_trains_is_one_line(monkeypatch, capsys):
    def interrupted(argv):
        raise KeyboardInterrupt

    monkeypatch.setattr("rkbench.commands.listing.run", interrupted)
    assert rkbench(monkeypatch, "list") == 130
    assert capsys.readouterr().err == "rkbench: interrupted\n"
