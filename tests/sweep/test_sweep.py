"""Search spaces, sampling, equal budgets, and sweeps of tiny runs on the embedded digits."""

import json
import pathlib

import numpy as np
import pytest

from rkbench import errors
from rkbench.commands import command_line
from rkbench.commands import sweep as command
from rkbench.configs import common, digits_mlp
from rkbench.configs.sweeps.distributions import Choice, Fixed, LogUniform, Uniform
from rkbench.errors import UserError
from rkbench.records.workdir import Workdir
from rkbench.scoring import collect
from rkbench.step.program import Program
from rkbench.sweep import plan, results, space
from rkbench.sweep.sampling import sample

pytestmark = pytest.mark.standard_promotion

RATE = "optimizer.learning_rate"
ROOT = pathlib.Path(__file__).parents[2]


def config(variant="rk4", **changes):
    result = digits_mlp.get_config(variant)
    result.model.hidden_sizes = (16,)
    result.update({"validation_examples": 297, **changes})
    return result.lock()


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({RATE: LogUniform(0.1, 0.01)}, "is empty: low < high"),
        ({RATE: LogUniform(0.1, 0.1)}, "is empty: low < high"),
        ({RATE: LogUniform(0.0, 0.1)}, "needs low > 0"),
        ({RATE: Uniform(0.0, float("inf"))}, "is empty"),
        ({RATE: Uniform(True, 1.5)}, "True in .* is not a number"),
        ({RATE: Choice(())}, "nothing to choose from"),
        ({RATE: Choice((0.1, 0.1))}, "names a value twice"),
        ({RATE: (0.1, 0.2)}, "is not a distribution; there are LogUniform"),
        ({RATE: Fixed(0.1)}, "fixes every field"),
        ({"optimizer.learning_rat": Uniform(0, 1)}, "nearest: optimizer.learning_rate"),
        ({"seeds": Choice(((0,), (1,)))}, "seeds cannot be tuned"),
        ({"total_steps": Choice((1, 2))}, "total_steps cannot be tuned"),
        ({"optimizer.name": Choice(("adam", "rk4"))}, "optimizer.name cannot be tuned"),
    ],
)
def test_spaces_that_are_empty_or_contradictory_are_refused(own, message):
    with pytest.raises(UserError, match=message):
        space.of_optimizer({"rk4": own}, config())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(): return {}", "search space is empty"),
        ("def get_config(): return {'rk4': {}}", "search space of 'rk4' is empty"),
        ("x = 1", r"has no get_config\(\)"),
        ("x = 1 / 0", "ZeroDivisionError"),
    ],
)
def test_files_that_are_no_space_are_refused(tmp_path, text, message):
    (tmp_path / "space.py").write_text(text)
    with pytest.raises(UserError, match=message):
        space.load(tmp_path / "space.py")


def test_an_optimizer_has_its_own_space_or_that_of_all():
    spaces = {"adam": {RATE: LogUniform(0.1, 1)}, "*": {RATE: LogUniform(1, 10)}}
    assert space.of_optimizer(spaces, config("adam"))[RATE].low == 0.1
    assert space.of_optimizer(spaces, config("rk4"))[RATE].low == 1
    with pytest.raises(UserError, match="'rk4'; nearest: adam"):
        space.of_optimizer({"adam": spaces["adam"]}, config("rk4"))


@pytest.mark.parametrize("file", sorted((ROOT / "configs" / "sweeps").glob("[a-z]*_*.py")))
def test_installed_spaces_fit_every_optimizer(file):
    spaces = space.load(file)
    for name in common.OPTIMIZERS:
        own = space.of_optimizer(spaces, config(name))
        tuned = plan.tuning(config(name), own, plan.Protocol(trials=2), pathlib.Path("x"))
        assert len(tuned.trials) == 2


def test_a_grid_is_evenly_spaced_with_both_ends_and_takes_every_choice():
    own = {RATE: LogUniform(1e-3, 1e1), "l2": Choice((0.0, 1e-4)), "label_smoothing": Fixed(0.1)}
    found = sample(own, 11)
    assert len(found) == 10
    rates = [one[RATE] for one in found if one["l2"] == 0]
    np.testing.assert_allclose(rates, np.geomspace(1e-3, 1e1, 5), rtol=1e-5)
    assert {one["label_smoothing"] for one in found} == {0.1}
    with pytest.raises(UserError, match="too few for a grid: 2 choices x two values"):
        sample(own, 3)


@pytest.mark.parametrize("sampler", ["halton", "sobol"])
def test_quasi_random_points_are_the_same_every_time_and_fill_the_space(sampler):
    own = {RATE: LogUniform(1e-3, 1e1), "optimizer.momentum": Uniform(0.5, 0.9)}
    found = sample(own, 24, sampler, seed=3)
    assert found == sample(own, 24, sampler, seed=3) != sample(own, 24, sampler, seed=4)
    assert len(found) == 24
    rates = np.log10([one[RATE] for one in found])
    momenta = np.array([one["optimizer.momentum"] for one in found])
    for values, low, high in ((rates, -3, 1), (momenta, 0.5, 0.9)):
        counts, _ = np.histogram(values, 4, (low, high))
        assert counts.sum() == 24
        assert counts.min() >= 4  # random points leave a quarter with fewer in most draws
    assert sample(own, 24) == sample(own, 24, "halton")
    with pytest.raises(UserError, match="'haltn'; nearest: halton"):
        sample(own, 24, "haltn")


@pytest.mark.parametrize(
    ("variant", "field", "steps"),
    [("adam", RATE, 600), ("rk4", RATE, 150), ("rk4_dalr", "optimizer.c", 100)],
)
def test_a_budget_of_gradients_is_divided_by_what_a_step_spends(variant, field, steps):
    protocol = plan.Protocol(trials=2, gradient_evaluations=603, evaluations=8)
    own = {field: LogUniform(0.1, 1.0)}
    tuned = plan.tuning(config(variant), own, protocol, pathlib.Path("x"))
    for trial in tuned.trials:
        assert trial.config.total_steps == 603 // (600 // steps)
        assert trial.config.total_steps // trial.config.eval_every_steps == 7
        assert trial.config.seeds == (100,)
        assert not trial.config.eval_test
    rerun = tuned.chosen(tuned.trials[1], protocol)
    assert (rerun.config.seeds, rerun.config.eval_test) == ((0, 1, 2, 3, 4), True)
    assert rerun.config.optimizer == tuned.trials[1].config.optimizer


def settings_of(base, own, trials=4):
    tuned = plan.tuning(base, own, plan.Protocol(trials=trials), pathlib.Path("x"))
    return tuned, [tuple(trial.settings.values()) for trial in tuned.trials]


@pytest.mark.parametrize("variant", ["adamw,weight_decay=0", "optax:adamw,weight_decay=0"])
def test_a_real_number_is_tuned_as_one_whatever_the_presets_literal_was(variant):
    field = "optimizer.weight_decay"
    tuned, settings = settings_of(config(variant), {field: LogUniform(1e-3, 0.4)})
    assert settings == [(0.001,), (0.00736806,), (0.0542884,), (0.4,)]
    assert [trial.config.optimizer.weight_decay for trial in tuned.trials] == [
        value for (value,) in settings
    ]
    assert tuned.traced == ("weight_decay",)


def test_numbers_of_numpy_are_pythons_in_the_config():
    own = {"optimizer.weight_decay": Choice((np.float32(0.5), np.int64(1), 1.0))}
    tuned, settings = settings_of(config("adamw"), own)
    assert settings == [(0.5,), (1.0,)]
    assert all(type(trial.config.optimizer.weight_decay) is float for trial in tuned.trials)


def test_whole_numbers_are_reported_as_they_run_and_once():
    base = config("adam")
    with base.unlocked():
        base.update({"schedule": {"name": "warmup_cosine", "warmup_steps": 1}})
    own = {"schedule.warmup_steps": Uniform(1, 3), "l2": Fixed(0)}
    tuned, settings = settings_of(base, own, trials=9)
    assert settings == [(1, 0.0), (2, 0.0), (3, 0.0)]
    assert [trial.folder.name for trial in tuned.trials] == ["trial-000", "trial-001", "trial-002"]
    steps = [trial.config.schedule.warmup_steps for trial in tuned.trials]
    assert steps == [1, 2, 3]
    assert all(type(value) is int for value in steps)
    (edge,) = results.edges(tuned, tuned.trials[2])  # of the values that ran
    assert (edge.value, edge.upwards) == (3, True)


def test_where_the_loss_decides_what_a_step_costs_runs_end_with_the_budget():
    own = {"l2": Choice((0.0, 1e-4))}
    protocol = plan.Protocol(gradient_evaluations=200)
    base = config("optax:lbfgs,learning_rate=None")
    for trial in plan.tuning(base, own, protocol, pathlib.Path("x")).trials:
        assert (trial.config.max_grad_evals, trial.config.total_steps) == (200, 200)
    scheduled = config("optax:lbfgs,schedule.name=cosine")
    with pytest.raises(UserError, match="how many steps 'optax:lbfgs' takes"):
        plan.tuning(scheduled, own, protocol, pathlib.Path("x"))
    sophia = plan.tuning(config("optax:contrib.sophia"), own, protocol, pathlib.Path("x"))
    assert [trial.config.total_steps for trial in sophia.trials] == [166, 166]  # 166 + 2 * 17
    assert sophia.trials[0].config.max_grad_evals == 0


def test_the_budget_follows_a_method_that_is_tuned():
    own = {"optimizer.tableau": Choice(("heun", "rk4"))}
    protocol = plan.Protocol(gradient_evaluations=400)
    tuned = plan.tuning(config("rk"), own, protocol, pathlib.Path("x"))
    assert [trial.config.total_steps for trial in tuned.trials] == [200, 100]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"metric": "test/accuracy"}, "never by the test set"),
        ({"metric": "validation/acc"}, "nearest: validation/accuracy"),
        ({"quantity": "mean"}, "unknown quantity 'mean'"),
        ({"tuning_seeds": (0,)}, r"seeds \[0\] are tuning seeds and reporting seeds"),
        ({"tuning_seeds": ()}, "tuning_seeds is empty"),
        ({"gradient_evaluations": 0}, "gradient_evaluations=0"),
    ],
)
def test_protocols_that_are_not_fair_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        plan.Protocol(**fields)


def test_settings_and_budgets_that_cannot_work_are_refused():
    own = {"optimizer.momentum": Choice((0.5, 1.5))}
    with pytest.raises(UserError, match=r"search space of 'rk4'.*momentum must be"):
        plan.tuning(config(), own, plan.Protocol(), pathlib.Path("x"))
    budget = plan.Protocol(gradient_evaluations=3)
    with pytest.raises(UserError, match="less than the 4 of one step of 'rk4'"):
        plan.tuning(config(), {RATE: Uniform(0.1, 1)}, budget, pathlib.Path("x"))
    with pytest.raises(UserError, match="needs validation_examples"):
        plan.tuning(
            config(validation_examples=0), {RATE: Uniform(0.1, 1)}, plan.Protocol(), pathlib.Path()
        )


SPACE = """
from rkbench.configs.sweeps.distributions import LogUniform
def get_config():
    return {"*": {"optimizer.learning_rate": LogUniform(1e-20, 1e20)},
            "rk4_dalr": {"optimizer.c": LogUniform(1e-2, 1.0)}}
"""


@pytest.fixture
def arguments(tmp_path):
    (tmp_path / "space.py").write_text(SPACE)
    return [
        "sweep",
        "--config=configs/digits_mlp.py:euler",
        f"--space={tmp_path / 'space.py'}",
        f"--workdir={tmp_path / 'sweep'}",
        "--gradient_evaluations=240",
        "--evaluations=4",
        "--seeds=0,1",
        "--config.model.hidden_sizes=(16,)",
    ]


def read(tmp_path):
    return json.loads((tmp_path / "sweep" / "sweep.json").read_text())


def test_a_sweep_of_two_optimizers(tmp_path, arguments, capsys, monkeypatch):
    command.run([*arguments, "--optimizers=euler,rk4_dalr", "--trials=3"])
    printed = capsys.readouterr().out
    record = read(tmp_path)
    euler, dalr = (record["choices"][name] for name in ("euler", "rk4_dalr"))
    assert [trial["total_steps"] for trial in euler["trials"]] == [240, 240, 240]
    assert [trial["total_steps"] for trial in dalr["trials"]] == [40, 40, 40]
    # 1e-20 does not move, 1e20 is far beyond the stable rates.
    assert [trial["status"] for trial in euler["trials"]] == ["done", "done", "diverged"]
    assert euler["best"] == "euler/trial-001"
    assert dalr["best"] == "rk4_dalr/trial-002"
    warning = (
        "the best optimizer.c, 1, is the largest tried of LogUniform(low=0.01, high=1.0): run next "
        "LogUniform(low=0.01, high=10.0)"
    )
    assert dalr["warnings"] == [warning]
    assert f"warning: rk4_dalr: {warning}" in printed
    assert "euler: 3 trials, 1 compilation\n" in printed
    assert (euler["compilations"], dalr["compilations"]) == (1, 1)
    check_folders(tmp_path / "sweep" / "euler")
    monkeypatch.setattr(Program, "advance", None)  # nothing is trained again
    command.run([*arguments, "--optimizers=euler,rk4_dalr", "--trials=3"])
    again = read(tmp_path)
    assert again["choices"] == record["choices"]


def check_folders(folder):
    """Trials never saw the test set, and what was chosen was trained on the same examples."""
    trial, chosen = (
        json.loads((folder / name / "run.json").read_text()) for name in ("trial-001", "chosen")
    )
    assert trial["config"]["optimizer"] == chosen["config"]["optimizer"]
    assert trial["data"] == chosen["data"]
    assert trial["data"]["validation_examples"] == 129
    assert [entry["seed"] for entry in trial["seeds"]] == [100]
    assert [entry["seed"] for entry in chosen["seeds"]] == [0, 1]
    lines = (folder / "trial-001" / "metrics.jsonl").read_text()
    assert "validation/accuracy" in lines
    assert "test/" not in lines
    assert "test/accuracy" in (folder / "chosen" / "metrics.jsonl").read_text()


def test_shards_share_the_work_and_the_last_one_chooses(tmp_path, arguments, capsys, monkeypatch):
    arguments += ["--trials=3", "--seeds="]
    monkeypatch.setattr("sys.argv", ["rkbench", "sweep", "--shard=1/2"])
    command.run([*arguments, "--shard=1/2"])
    assert "1 trials are not finished" in capsys.readouterr().out
    assert read(tmp_path)["choices"]["euler"]["best"] is None
    assert not (tmp_path / "sweep" / "euler" / "trial-001").exists()
    monkeypatch.setattr("sys.argv", ["rkbench", "sweep", "--shard=2/2"])
    command.run([*arguments, "--shard=2/2"])
    assert [part["command"][-1] for part in read(tmp_path)["parts"]] == [
        "--shard=1/2",
        "--shard=2/2",
    ]
    assert read(tmp_path)["choices"]["euler"]["best"] == "euler/trial-001"
    with pytest.raises(UserError, match=r"another sweep; it differs in protocol\.trials"):
        command.run([*arguments[:-2], "--trials=5"])


def test_a_trial_that_fails_is_kept_and_shown_and_tried_again(
    tmp_path, arguments, capsys, monkeypatch
):
    arguments += ["--trials=3", "--seeds="]
    advance = Program.advance

    def fail_at_small_rates(self, *rest):
        if self._scalars["learning_rate"][0] < 0.01:
            raise RuntimeError("the machine caught fire")
        return advance(self, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Program, "advance", fail_at_small_rates)
        with pytest.raises(UserError, match=r"1 runs failed: .*trial-000: RuntimeError"):
            command.run(arguments)
    trial = read(tmp_path)["choices"]["euler"]["trials"][0]
    assert (trial["status"], trial["error"]) == ("failed", "RuntimeError: the machine caught fire")
    assert read(tmp_path)["choices"]["euler"]["best"] == "euler/trial-001"
    assert "warning: euler: 1 of 3 trials failed" in capsys.readouterr().out
    command.run(arguments)
    assert read(tmp_path)["choices"]["euler"]["trials"][0]["status"] == "done"


def test_a_folder_in_use_by_another_process_stops_the_sweep(tmp_path, arguments):
    arguments += ["--trials=3", "--seeds="]
    taken = Workdir(tmp_path / "sweep" / "euler" / "trial-000", config("euler"))
    with pytest.raises(UserError, match=r"trial-000 is in use by another process"):
        command.run(arguments)
    taken.close()
    assert not (tmp_path / "sweep" / "euler" / "trial-001").exists()


def test_a_value_that_only_the_workload_knows_to_be_wrong_is_refused_too(tmp_path, arguments):
    text = "from rkbench.configs.sweeps.distributions import Uniform\n"
    text += "def get_config(): return {'*': {'label_smoothing': Uniform(0.5, 1.0)}}"
    (tmp_path / "space.py").write_text(text)
    with pytest.raises(UserError, match=r"label_smoothing is 1\.0"):
        command.run(arguments)
    assert not (tmp_path / "sweep").exists()


def fails_at_step(step, advance):
    def advance_or_fail(self, state, seeds, first_step, steps):
        assert first_step < step
        return advance(self, state, seeds, first_step, steps)

    return advance_or_fail


def test_side_by_side_trials_come_to_what_they_come_to_alone(tmp_path, arguments, monkeypatch):
    arguments += ["--trials=3", "--seeds=", "--gradient_evaluations=40"]
    command.run(arguments)
    (tmp_path / "sweep").rename(tmp_path / "alone")
    arguments += ["--config.vectorize_seeds=on", "--config.checkpoint_every_steps=10"]
    with monkeypatch.context() as patch:  # interrupted after the second evaluation
        patch.setattr(Program, "advance", fails_at_step(20, Program.advance))
        with pytest.raises(UserError, match="3 runs failed"):
            command.run(arguments)
    assert {t["status"] for t in read(tmp_path)["choices"]["euler"]["trials"]} == {"failed"}
    command.run(arguments)
    assert read(tmp_path)["choices"]["euler"]["compilations"] == 1
    runs = [
        {s.logs[0].folder.name: s.logs[0] for s in collect([tmp_path / name]).settings}
        for name in ("alone", "sweep")
    ]
    assert runs[0].keys() == runs[1].keys()
    assert len(runs[0]) == 3
    for name, alone in runs[0].items():
        together = runs[1][name]
        assert alone.columns.keys() == together.columns.keys()
        for field in alone.columns.keys() - {"wall_time"}:
            one, other = alone.columns[field], together.columns[field]
            np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-3, err_msg=field)


def test_an_edge_that_cannot_be_passed_says_so():
    own = {"optimizer.momentum": Uniform(0.1, 0.99)}
    tuned = plan.tuning(config(), own, plan.Protocol(trials=3), pathlib.Path("x"))
    (edge,) = results.edges(tuned, tuned.trials[2])
    assert str(edge).endswith("and cannot go further")
    (edge,) = results.edges(tuned, tuned.trials[0])
    assert edge.next is None  # a negative momentum
    assert results.edges(tuned, tuned.trials[1]) == []


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--shard=3/2"], "--shard=3/2"),
        (["--seeds=a"], "--seeds=a: whole numbers"),
        (["--seeds=1,1"], "names a seed twice"),
        (["--config.seeds=(3,)"], "--config.seeds is the sweep's own"),
        (["--config.total_steps=5"], "contradict each other"),
        (["--optimizers=euler,euler"], "names 'euler' twice"),
        (["--optimizers=euler,rk5"], "unknown optimizer 'rk5'"),
        (["--space=learning_rat.py"], "nearest: configs/sweeps/learning_rate.py"),
        (["--trails=5"], "unknown flag 'trails'; nearest: trials"),
        (["more"], "unexpected argument 'more'"),
        (["--config.batch_size=5000"], "batch_size=5000"),
        (["--workdir="], "--workdir is missing"),
        ([f"--workdir={__file__}/sweep"], "cannot be made: Not a directory"),
    ],
)
def test_a_bad_command_line_is_an_error_before_anything_is_written(
    tmp_path, arguments, more, message, capsys
):
    with pytest.raises(SystemExit) as stopped, command_line.user_errors():
        command.run([*arguments, *more])
    assert stopped.value.code == errors.EXIT_USER_ERROR
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert message in printed
    assert not (tmp_path / "sweep").exists()
