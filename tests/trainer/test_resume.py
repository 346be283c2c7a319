"""What is taken up again, and what is refused: settings, seeds, commands and ends that change."""

import contextlib
import errno
import itertools
import json
import sys
import tracemalloc

import jax
import jax.numpy as jnp
import pytest
import resuming
from resuming import Killed, contents, final_checksums, interrupt, log, outcomes

from rkbench.configs import digits_mlp
from rkbench.errors import UserError
from rkbench.records import Run, archive, metrics, provenance
from rkbench.step.program import Program
from rkbench.step.train_step import StepFunction
from rkbench.train import train_experiment, train_side_by_side
from rkbench.trainer import checkpoint
from rkbench.trainer.experiment import Experiment

pytestmark = pytest.mark.standard_promotion

SETTINGS = resuming.SETTINGS | {"total_steps": 40, "checkpoint_every_steps": 10}


def config(optimizer="adam", **changes):
    result = digits_mlp.get_config(optimizer)
    result.model.hidden_sizes = ()  # less to trace and to compile
    result.update(SETTINGS | changes)
    return result.lock()


@pytest.fixture(scope="module")
def experiment():
    return Experiment.from_config(config())


@pytest.fixture(scope="module")
def make(experiment):
    """Experiments that share what has been compiled."""
    latest = {}

    def made(**changes):
        one = config(**changes)
        size = len(changes["seeds"]) if one.vectorize_seeds == "on" else 1
        latest[size] = Experiment.from_config(one, like=latest.get(size, experiment))
        return latest[size]

    return made


def killed(monkeypatch, experiment, workdir, call):
    interrupt(monkeypatch, call)
    with pytest.raises(Killed):
        train_experiment(experiment, workdir)


def record(workdir):
    return json.loads((workdir / "run.json").read_text())


def of_seeds(workdir, *seeds):
    return [line for line in log(workdir) if line["seed"] in seeds]


# A checkpoint that does not fit, or cannot be read, is not damaged


@pytest.mark.parametrize(
    ("setting", "value"),
    [("jax_enable_x64", True), ("jax_default_matmul_precision", "highest")],
)
def test_other_settings_of_jax_are_refused_by_name(
    tmp_path, monkeypatch, experiment, setting, value
):
    killed(monkeypatch, experiment, tmp_path, 5)
    before, was = contents(tmp_path), getattr(jax.config, setting)
    jax.config.update(setting, value)
    try:
        with pytest.raises(UserError, match=f"{setting}: {was!r} -> {value!r}"):
            train_experiment(Experiment.from_config(experiment.config), tmp_path)
    finally:
        jax.config.update(setting, was)
    assert contents(tmp_path) == before


def test_a_record_without_these_settings_is_taken_up(tmp_path, monkeypatch, experiment):
    killed(monkeypatch, experiment, tmp_path, 5)
    old = record(tmp_path)
    for name in ("numerics", "parts", "groups"):
        del old[name]
    (tmp_path / "run.json").write_text(json.dumps(old))
    resumed = train_experiment(experiment, tmp_path)
    assert resumed["status"] == "done"
    assert resumed["numerics"]["jax_enable_x64"] is False


def test_a_state_that_has_gained_a_field_is_refused_and_nothing_touched(
    tmp_path, monkeypatch, experiment
):
    killed(monkeypatch, experiment, tmp_path, 5)
    old = record(tmp_path)
    old["versions"]["optax"] = "0.1.0"
    (tmp_path / "run.json").write_text(json.dumps(old))
    before, init = contents(tmp_path), StepFunction.init

    def with_one_more(self, key):
        state = init(self, key)
        return state._replace(model_state={**state.model_state, "ema": jnp.zeros(3)})

    with monkeypatch.context() as patch:
        patch.setattr(StepFunction, "init", with_one_more)
        changed = Experiment.from_config(experiment.config)
        with pytest.raises(UserError) as refused:
            train_experiment(changed, tmp_path)
    assert "trains: model_state/ema: nothing -> float32[3]; since" in str(refused.value)
    assert "optax: '0.1.0' -> " in str(refused.value)
    assert contents(tmp_path) == before


def failing(*arguments, **keywords):
    raise OSError(errno.EIO, "Input/output error")


def failing_natively(*arguments, **keywords):
    raise ValueError("UNKNOWN: Error reading local file")  # as Orbax's storage says it


@pytest.mark.parametrize("read", [failing, failing_natively])
def test_a_file_that_cannot_be_read_is_an_error_of_input(tmp_path, monkeypatch, experiment, read):
    killed(monkeypatch, experiment, tmp_path, 5)
    lines = (tmp_path / "metrics.jsonl").read_bytes()
    checkpoints = contents(tmp_path / "checkpoints")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Checkpoints, "_read", read)
        patch.setattr(checkpoint, "open", failing, raising=False)
        with pytest.raises(OSError, match=r"cannot read the checkpoint .*Input/output error"):
            train_experiment(experiment, tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == lines
    assert contents(tmp_path / "checkpoints") == checkpoints
    assert train_experiment(experiment, tmp_path)["status"] == "done"


def test_where_no_checkpoint_is_left_the_log_is_kept(tmp_path, monkeypatch, experiment, capsys):
    killed(monkeypatch, experiment, tmp_path, 6)
    lines = (tmp_path / "metrics.jsonl").read_bytes()
    for file in tmp_path.glob("checkpoints/seed-0/*/progress/metadata"):
        file.write_bytes(b"{}")
    assert train_experiment(experiment, tmp_path)["status"] == "done"
    (kept,) = tmp_path.glob("checkpoints/damaged-seed-0-*.jsonl")
    assert kept.read_bytes() == lines
    assert str(kept) in capsys.readouterr().err


# A finished seed is never trained again


def test_a_seed_added_to_finished_ones_trains_alone(tmp_path, make):
    first = train_experiment(make(seeds=(0, 1), vectorize_seeds="on"), tmp_path / "run")
    lines = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    more = train_experiment(make(seeds=(0, 1, 2), vectorize_seeds="on"), tmp_path / "run")
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes().startswith(lines)
    assert more["seeds"][:2] == first["seeds"]
    own = train_experiment(make(seeds=(2,), vectorize_seeds="on"), tmp_path / "own")
    assert of_seeds(tmp_path / "run", 2) == log(tmp_path / "own")
    assert outcomes(more)[0][2:] == outcomes(own)[0]


def test_seeds_that_began_together_go_on_together(tmp_path, monkeypatch, make):
    pair = make(seeds=(0, 1), vectorize_seeds="on")
    train_experiment(pair, tmp_path / "whole")
    killed(monkeypatch, pair, tmp_path / "run", 5)
    calls, advance = [], Program.advance

    def noted(self, state, seeds, first_step, steps):
        calls.append((tuple(seeds), first_step))
        return advance(self, state, seeds, first_step, steps)

    monkeypatch.setattr(Program, "advance", noted)
    train_experiment(make(seeds=(0, 1, 2), vectorize_seeds="on"), tmp_path / "run")
    assert calls[0] == ((0, 1), 10)
    assert {seeds for seeds, _ in calls} == {(0, 1), (2,)}
    for seed in (0, 1):  # in which order their lines stand depends on the clock
        assert of_seeds(tmp_path / "run", seed) == of_seeds(tmp_path / "whole", seed)


def test_seeds_of_the_same_ends_have_folders_of_their_own(tmp_path, monkeypatch, make):
    killed(monkeypatch, make(seeds=(0, 1, 5), vectorize_seeds="on"), tmp_path, 5)
    train_experiment(make(seeds=(0, 3, 5), vectorize_seeds="on"), tmp_path)
    assert not list(tmp_path.glob("checkpoints/damaged-*"))


def test_a_finished_trial_is_not_trained_again_beside_others(tmp_path, make):
    one, other = make(seeds=(0,)), make(seeds=(1,))
    train_experiment(one, tmp_path / "one")
    before = contents(tmp_path / "one")
    train_side_by_side([one, other], [tmp_path / "one", tmp_path / "other"], tmp_path / "both")
    assert contents(tmp_path / "one") == before
    assert record(tmp_path / "other")["status"] == "done"


def test_a_finished_run_is_recognised_without_its_log_in_memory(tmp_path, experiment):
    train_experiment(experiment, tmp_path)
    with contextlib.closing(metrics.JsonLinesWriter(tmp_path / "metrics.jsonl")) as writer:
        for step in range(20_000):
            writer.write_line(
                {"step": step, "seed": 9, "wall_time": 0.0, "grad_evals": step, "batch/loss": 1.0}
            )
    tracemalloc.start()
    train_experiment(experiment, tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2e6  # as records they take 10 MB


def test_a_finished_run_whose_record_was_edited_is_refused(tmp_path, experiment):
    train_experiment(experiment, tmp_path)
    path = tmp_path / "run.json"
    edited = json.loads(path.read_text())
    edited["seeds"][0]["final_test_accuracy"] = 0.999
    path.write_text(json.dumps(edited))
    before = {file: file.read_bytes() for file in (path, tmp_path / "metrics.jsonl")}
    with pytest.raises(UserError, match=r"final_test_accuracy is 0\.999, and the log says"):
        train_experiment(experiment, tmp_path)
    assert {file: file.read_bytes() for file in before} == before


# Each command is a part of the record


def test_each_command_keeps_its_own_part(tmp_path, monkeypatch, make):
    one, both = make(seeds=(0,)), make(seeds=(0, 1))
    environment, starts = provenance.environment, itertools.count()
    monkeypatch.setattr(  # they would be in one second
        provenance, "environment", lambda: environment() | {"started": str(next(starts))}
    )

    def called(*arguments):
        monkeypatch.setattr(sys, "argv", ["rkbench", *arguments])

    called("train", "--first", f"--workdir={tmp_path}")
    killed(monkeypatch, one, tmp_path, 5)
    called("train", "--second")
    killed(monkeypatch, one, tmp_path, 3)
    train_experiment(one, tmp_path)
    called("train", "--third")
    train_experiment(both, tmp_path)
    parts = record(tmp_path)["parts"]
    assert [(part["command"][2], part["seeds"]) for part in parts] == [
        ("--first", [0]),
        ("--second", [0]),
        ("--third", [1]),
    ]
    assert [len(part.get("resumed", [])) for part in parts] == [0, 1, 0]
    assert all(part["versions"] and part["started"] for part in parts)
    called("train", "--nothing-to-do")
    train_experiment(both, tmp_path)
    assert record(tmp_path)["parts"] == parts
    archived = archive.archive([Run(tmp_path)], tmp_path / "kept")["parts"]
    assert [part["command"] for part in archived] == [
        ["rkbench", "train", "--first", "--workdir=DIR"],
        *(part["command"] for part in parts[1:]),
    ]
    again = archive.archive([Run(tmp_path / "kept"), Run(tmp_path)], tmp_path / "kept")
    assert again["parts"] == archived


def test_runs_under_other_settings_are_not_joined(tmp_path, make):
    for seed in (0, 1):
        train_experiment(make(seeds=(seed,)), tmp_path / str(seed))
    other = record(tmp_path / "1")
    other["numerics"]["jax_enable_x64"] = True
    (tmp_path / "1" / "run.json").write_text(json.dumps(other))
    with pytest.raises(UserError, match="jax_enable_x64"):
        archive.merged([Run(tmp_path / "0"), Run(tmp_path / "1")])


# A run can be trained to a later end


def as_before_the_evaluation_had_a_fingerprint(workdir):
    """The checkpoints as earlier versions wrote them."""
    for file in workdir.glob("checkpoints/seed-*/*/progress/metadata"):
        progress = json.loads(file.read_text())
        for name in ("step", "logs_before_evaluation", "sha256"):
            del progress[name]
        file.write_text(json.dumps(progress | {"sha256": checkpoint._sha256(progress)}))


def nothing(workdir):
    del workdir


@pytest.mark.parametrize(
    ("every", "vectorize", "meanwhile", "kill"),
    [
        (20, "off", nothing, None),
        (15, "off", nothing, 1),
        (15, "on", nothing, None),
        (0, "off", as_before_the_evaluation_had_a_fingerprint, None),
    ],
)
def test_a_run_that_is_extended_equals_one_that_was_as_long_from_the_start(
    tmp_path, monkeypatch, make, capsys, every, vectorize, meanwhile, kill
):
    """40 steps, then 60: 40 is among the steps to evaluate at only with the first of `every`."""
    settings = {"seeds": (0, 1), "eval_every_steps": every, "vectorize_seeds": vectorize}
    whole = train_experiment(make(**settings, total_steps=60), tmp_path / "whole")
    short = train_experiment(make(**settings), tmp_path / "run")
    meanwhile(tmp_path / "run")
    longer = make(**settings, total_steps=60)
    if kill is not None:
        killed(monkeypatch, longer, tmp_path / "run", kill)
        killed(monkeypatch, longer, tmp_path / "run", kill)
        assert record(tmp_path / "run")["status"] == "running"
        assert record(tmp_path / "run")["seeds"] == []
    extended = train_experiment(longer, tmp_path / "run")
    assert "damaged" not in capsys.readouterr().err
    assert outcomes(extended) == outcomes(whole)
    for seed in (0, 1):
        assert of_seeds(tmp_path / "run", seed) == of_seeds(tmp_path / "whole", seed)
    assert final_checksums(tmp_path / "run") == final_checksums(tmp_path / "whole")
    assert extended["config_hash"] == whole["config_hash"] != short["config_hash"]


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"total_steps": 60, "schedule.name": "cosine"}, "'cosine' depends on the end"),
        ({"total_steps": 30}, "total_steps: 40 -> 30$"),
        (
            {"total_steps": 60, "log_every_steps": 1},
            "log_every_steps: 7 -> 1; total_steps: 40 -> 60$",
        ),
        ({"total_steps": 60, "seeds": (1,)}, "--config.seeds=0,1$"),
    ],
)
def test_an_extension_that_cannot_be_is_refused_with_the_remedy(tmp_path, changes, remedy):
    def prepared(fields):
        result = config().copy_and_resolve_references()
        with result.unlocked():
            result.update_from_flattened_dict(fields)
        return Experiment.from_config(result.lock())

    schedule = {name: value for name, value in changes.items() if name.startswith("schedule")}
    train_experiment(prepared({"total_steps": 40, "log_every_steps": 7} | schedule), tmp_path)
    before = contents(tmp_path)
    with pytest.raises(UserError, match=remedy):
        train_experiment(prepared(changes), tmp_path)
    assert contents(tmp_path) == before
