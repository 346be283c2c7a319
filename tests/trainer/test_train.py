"""The trainer end to end on the embedded digits: resume, divergence, seeds, refusals."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from optax import contrib
from resuming import SETTINGS, check_resuming, log

import rkbench.trainer.group
from rkbench.configs import digits_mlp
from rkbench.errors import UserError
from rkbench.optimizers.optimizer_states import find
from rkbench.records import summary
from rkbench.step.program import Program
from rkbench.train import train_and_evaluate, train_experiment
from rkbench.trainer.evaluate import Evaluator
from rkbench.trainer.experiment import Experiment

standard_promotion = pytest.mark.standard_promotion  # optax's code needs it


def config(variant="rk4_momentum", **changes):
    result = digits_mlp.get_config(variant)
    result.model.hidden_sizes = (16,)
    result.update(SETTINGS | changes)
    return result.lock()


@pytest.fixture(scope="module")
def train():
    """`train_and_evaluate`, with what earlier tests compiled for the same optimizer."""
    latest = {}

    def train(configuration, workdir):
        kind = (configuration.optimizer.name, configuration.l2, len(configuration.seeds))
        made = Experiment.from_config(configuration, like=latest.get(kind))
        latest[kind] = made
        return train_experiment(made, workdir)

    return train


@pytest.mark.parametrize(
    ("variant", "calls"),
    [
        ("implicit_euler,krylov_iterations=2", 3),  # its steps vary in cost
        *(("rk4_momentum", 6), ("rk4_dalr", 13)),
        pytest.param("adam", 2, marks=standard_promotion),
        pytest.param("optax:lion", 3, marks=standard_promotion),
        # A typed PRNG key in its state.
        pytest.param("optax:noisy_sgd", 3, marks=standard_promotion),
        # Arrays without elements in it.
        pytest.param("optax:contrib.galore", 3, marks=standard_promotion),
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    tmp_path, monkeypatch, variant, calls
):
    check_resuming(monkeypatch, tmp_path, config(variant, seeds=(0, 1)), calls)


def test_grouping_steps_into_calls_changes_no_bit(tmp_path, monkeypatch, train):
    configuration = config("rk4")
    train(configuration, tmp_path / "grouped")
    monkeypatch.setattr(rkbench.trainer.group, "MAX_STEPS_PER_DISPATCH", 1)
    train(configuration, tmp_path / "single")
    assert log(tmp_path / "single") == log(tmp_path / "grouped")


def test_the_log_holds_each_event_once_and_in_order(tmp_path, train):
    record = train(config("rk4"), tmp_path)
    lines = log(tmp_path)
    evaluated = [line["step"] for line in lines if "test/accuracy" in line]
    logged = [line["step"] for line in lines if "batch/loss" in line]
    assert evaluated == [0, 20, 40, 60]
    assert logged == [7, 14, 21, 28, 35, 42, 49, 56]
    assert all(line["grad_evals"] == 4 * line["step"] for line in lines)
    best = max(line["test/accuracy"] for line in lines if "test/accuracy" in line)
    assert record["seeds"][0]["best_test_accuracy"] == best
    assert record["seeds"][0]["final_test_accuracy"] == lines[-1]["test/accuracy"]
    assert record == json.loads((tmp_path / "run.json").read_text())


def test_the_log_tells_what_an_implicit_method_could_not_solve(tmp_path):
    settings = "learning_rate=50.0,newton_iterations=1,krylov_iterations=1"
    train_and_evaluate(config(f"implicit_euler,{settings}", seeds=(0, 1)), tmp_path)
    lines = [line for line in log(tmp_path) if "batch/loss" in line]
    for seed in (0, 1):
        unsolved = [line["solver/unconverged"] for line in lines if line["seed"] == seed]
        assert 0 < unsolved[0] <= unsolved[-1]
    assert all(line["solver/residual"] > 0 for line in lines)


class WithStatistics:
    """A workload whose model state is what the last pass saw of its parameters."""

    def __init__(self, workload):
        self._workload = workload

    def __getattr__(self, name):
        return getattr(self._workload, name)

    def init(self, key):
        params, _ = self._workload.init(key)
        return params, jax.tree.map(jnp.zeros_like, params)

    def losses(self, params, model_state, batch, key):
        return self._workload.losses(params, {}, batch, key)[0], params

    def evaluate(self, params, model_state, batch):
        return self._workload.evaluate(params, {}, batch)


@standard_promotion
def test_schedule_free_runs_are_evaluated_at_the_average_with_its_statistics(tmp_path, monkeypatch):
    variant = "optax:contrib.schedule_free_sgd,learning_rate=0.5"
    made = Experiment.from_config(config(variant, seeds=(0, 1), vectorize_seeds="on"))
    programs = dataclasses.replace(made.programs, workload=WithStatistics(made.workload))
    experiment = dataclasses.replace(made, programs=programs)
    trained, given = [], []
    evaluated, evaluate = Program.evaluated, Evaluator.__call__

    def spy(self, state):
        trained.append(jax.device_get(state))
        return evaluated(self, state)

    def spy_on_evaluator(self, params, model_state, split):
        given.append(jax.device_get((params, model_state)))
        return evaluate(self, params, model_state, split)

    monkeypatch.setattr(Program, "evaluated", spy)
    monkeypatch.setattr(Evaluator, "__call__", spy_on_evaluator)
    train_experiment(experiment, tmp_path)
    for seed in (0, 1):
        last, (params, statistics) = (
            jax.tree.map(lambda x, seed=seed: x[seed], s[-1]) for s in (trained, given)
        )
        (state,) = find(last.opt_state, contrib.ScheduleFreeState)
        average = contrib.schedule_free_eval_params(state, last.params)
        for found in (params, statistics):
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), found, average
            )
        apart = jax.tree.map(lambda a, b: np.abs(a - b).max(), average, last.params)
        assert max(jax.tree.leaves(apart)) > 1e-3


def test_a_finished_run_is_not_repeated_and_further_seeds_are_added(tmp_path, monkeypatch, train):
    first = train(config(seeds=(0,)), tmp_path)
    lines = log(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Program, "advance", None)
        assert train(config(seeds=(0,)), tmp_path)["seeds"] == first["seeds"]
    both = train(config(seeds=(0, 1)), tmp_path)
    assert both["seeds"][0] == first["seeds"][0]
    assert [seed["seed"] for seed in both["seeds"]] == [0, 1]
    assert log(tmp_path)[: len(lines)] == lines


def test_one_compilation_serves_all_seeds(tmp_path):
    assert train_and_evaluate(config(seeds=(0, 1, 2)), tmp_path)["compilations"] == 1


@standard_promotion
def test_seeds_differ_but_optimizers_share_initial_parameters_and_batches(tmp_path, train):
    for name in ("adam", "sgd"):
        train(config(name, seeds=(0, 1)), tmp_path / name)
    start = {
        (name, line["seed"]): line["test/loss"]
        for name in ("adam", "sgd")
        for line in log(tmp_path / name)
        if line["step"] == 0
    }
    assert start["adam", 0] == start["sgd", 0] != start["adam", 1] == start["sgd", 1]


def test_seeds_under_vmap_follow_the_same_curves(tmp_path, train):
    apart = config("rk4", seeds=(3, 5), total_steps=20)
    together = config("rk4", seeds=(3, 5), total_steps=20, vectorize_seeds="on")
    train(apart, tmp_path / "apart")
    train(together, tmp_path / "together")

    def by_seed(workdir):
        return sorted(log(workdir), key=lambda line: (line["seed"], line["step"], len(line)))

    for one, other in zip(by_seed(tmp_path / "apart"), by_seed(tmp_path / "together"), strict=True):
        assert one.keys() == other.keys()
        for name in one:
            # 20 steps of float32: sums in another order differ in the last digits.
            assert one[name] == pytest.approx(other[name], rel=2e-3, abs=2e-3), name


def test_single_steps_follow_the_same_curve_as_the_loop(tmp_path, train):
    # Few steps: training amplifies the last digits, by how much depends on the machine.
    train(config("rk4", total_steps=20), tmp_path / "loop")
    train(config("rk4", total_steps=20, compiled_loops="off"), tmp_path / "single")
    for one, other in zip(log(tmp_path / "loop"), log(tmp_path / "single"), strict=True):
        assert one == pytest.approx(other, rel=2e-3, abs=2e-3)


def test_full_batch_in_chunks_follows_the_same_curve(tmp_path):
    whole = config("rk4_dalr", batch_size="full", total_steps=20)
    chunked = config("rk4_dalr", batch_size="full", physical_batch_size=100, total_steps=20)
    train_and_evaluate(whole, tmp_path / "whole")
    train_and_evaluate(chunked, tmp_path / "chunked")
    for one, other in zip(log(tmp_path / "whole"), log(tmp_path / "chunked"), strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-3)


def test_a_diverged_seed_is_a_result_and_the_others_go_on(tmp_path, train):
    # At this rate gradient descent explodes at once, whatever the seed.
    record = train(config("sgd,learning_rate=1e20", seeds=(0, 1)), tmp_path)
    assert record["status"] == "diverged"
    for entry in record["seeds"]:
        assert entry["status"] == "diverged"
        assert 1 < entry["steps"] < 10
        assert entry["final_test_accuracy"] is None
        last = [line for line in log(tmp_path) if line["seed"] == entry["seed"]][-1]
        assert last["step"] == entry["steps"]
        assert last["batch/loss"] is None
    assert train(config("sgd,learning_rate=1e20", seeds=(0, 1)), tmp_path) == record


def test_an_exception_is_recorded_and_the_run_resumes(tmp_path, monkeypatch, train):
    with monkeypatch.context() as patch:
        patch.setattr(Program, "advance", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(config(), tmp_path)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["status"] == "failed"
    assert "ZeroDivisionError" in record["error"]
    record = train(config(), tmp_path)
    assert record["status"] == "done"
    assert "error" not in record


def test_a_workdir_of_another_config_is_refused_with_the_difference(tmp_path, train):
    train(config(), tmp_path)
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(UserError, match=r"optimizer\.momentum: 0\.9 -> 0\.5"):
        train(config("rk4_momentum,momentum=0.5"), tmp_path)
    assert (tmp_path / "run.json").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"total_steps": 0}, "total_steps=0"),
        ({"total_steps": -5}, "total_steps=-5"),
        ({"batch_size": 2_000}, "batch_size=2000 must lie between 1 and the 1297"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": "ful"}, "batch_size='ful'"),
        ({"seeds": ()}, "seeds=()"),
        ({"seeds": (1, 1)}, "twice"),
        ({"seeds": (-1,)}, "-1"),
        ({"seeds": (2**32,)}, "4294967296"),
        ({"workload": "digits"}, "unknown workload 'digits'; nearest: digits_mlp"),
        ({"compiled_loops": "yes"}, "unknown compiled_loops 'yes'"),
        ({"input_scaling": "units"}, "unknown input_scaling 'units'; nearest: unit"),
        ({"schedule": {"name": "cosin"}}, "unknown schedule 'cosin'; nearest: cosine"),
        ({"optimizer": {"name": "rk5"}}, "unknown optimizer 'rk5'; nearest: rk"),
        ({"optimizer": {"momentum": 1.5}}, "momentum"),
        ({"optimizer": {"learning_rate": -0.1}}, "learning_rate"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(tmp_path, changes, message):
    workdir = tmp_path / "run"
    with pytest.raises(UserError) as raised:
        train_and_evaluate(config(**changes), workdir)
    assert message in str(raised.value)
    assert not workdir.exists()


ENTRY = """
import sys
from rkbench.configs import digits_mlp
from rkbench.train import train_and_evaluate
config = digits_mlp.get_config("rk4_momentum")
config.model.hidden_sizes = (16,)
config.update(dict(total_steps=3000, eval_every_steps=20, checkpoint_every_steps=40,
                   log_every_steps=7, tensorboard=False))
train_and_evaluate(config.lock(), sys.argv[1])
"""


def start(workdir):
    return subprocess.Popen(
        [sys.executable, "-c", ENTRY, str(workdir)],
        cwd=pathlib.Path(__file__).parents[2],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )


def wait_for_lines(workdir, lines, process):
    deadline = time.monotonic() + 120
    path = pathlib.Path(workdir) / "metrics.jsonl"
    while not path.exists() or path.read_bytes().count(b"\n") < lines:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_second_process_on_one_workdir_is_refused(tmp_path, train):
    process = start(tmp_path)
    wait_for_lines(tmp_path, 5, process)
    with pytest.raises(UserError, match="in use by another process"):
        train(config(), tmp_path)
    process.kill()
    process.wait()


def test_experiments_that_differ_in_learning_rate_and_seeds_share_one_compilation(tmp_path):
    first = Experiment.from_config(config("rk4", seeds=(0,)))
    train_experiment(first, tmp_path / "first")
    changed = config("rk4,learning_rate=0.01", seeds=(1, 2), total_steps=40)
    second = Experiment.from_config(changed, like=first)
    assert second.workload is first.workload
    train_experiment(second, tmp_path / "second")
    assert second.program.compilations == 1
    train_and_evaluate(changed, tmp_path / "alone")
    assert log(tmp_path / "second") == log(tmp_path / "alone")
    rates = [
        line["batch/learning_rate"] for line in log(tmp_path / "second") if "batch/loss" in line
    ]
    assert set(rates) == {np.float32(0.01).item()}


def test_held_out_examples_are_evaluated_and_the_test_set_is_not_looked_at(tmp_path):
    record = train_and_evaluate(config(validation_examples=297, eval_test=False), tmp_path)
    assert record["data"]["train_examples"] == 1_000
    assert record["data"]["validation_examples"] == 297
    lines = [line for line in log(tmp_path) if "train/loss" in line]
    assert [line["step"] for line in lines] == [0, 20, 40, 60]
    for line in lines:
        assert not any(name.startswith("test/") for name in line)
        # An accuracy is a number of the 297 examples.
        assert line["validation/accuracy"] * 297 == pytest.approx(
            round(line["validation/accuracy"] * 297), abs=1e-6
        )
    assert record["seeds"][0]["best_test_accuracy"] is None
    assert "297 training examples held out" in summary.text(record)


def test_a_number_of_the_optimizer_can_be_data_to_the_program(tmp_path):
    first = Experiment.from_config(config("rk4_dalr,c=0.5"), traced=("c", "p"))
    train_experiment(first, tmp_path / "first")
    changed = config("rk4_dalr,c=2.0")
    second = Experiment.from_config(changed, like=first, traced=("c", "p"))
    train_experiment(second, tmp_path / "second")
    assert second.program.compilations == 1
    assert log(tmp_path / "second") != log(tmp_path / "first")
    train_and_evaluate(changed, tmp_path / "alone")
    for one, other in zip(log(tmp_path / "second"), log(tmp_path / "alone"), strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-5)


def test_without_momentum_is_another_program(tmp_path):
    first = Experiment.from_config(config("rk4_momentum,momentum=0.5"), traced=("momentum",))
    without = config("rk4_momentum,momentum=0.0")
    second = Experiment.from_config(without, like=first, traced=("momentum",))
    assert second.workload is not first.workload


def test_what_is_compiled_is_not_shared_between_experiments_that_differ_in_it(tmp_path):
    first = Experiment.from_config(config("rk4"))
    for other in (config("rk4", l2=0.1), config("heun"), config("rk4_dalr")):
        assert Experiment.from_config(other, like=first).workload is not first.workload
