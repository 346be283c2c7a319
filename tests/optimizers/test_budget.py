"""Budgets of gradient evaluations, where what a step costs varies."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from resuming import SETTINGS, Killed, interrupt, log, outcomes
from test_optimizers import objective, zeros

from rkbench import optimizers
from rkbench.configs import digits_mlp
from rkbench.optimizers import budget
from rkbench.optimizers.baselines import count_grad_evals
from rkbench.train import train_and_evaluate, train_experiment
from rkbench.trainer import costs
from rkbench.trainer.experiment import Experiment

pytestmark = pytest.mark.standard_promotion
COSTS = jnp.array([2, 3, 9, 1, 1, 1])  # the third step spends too much, later ones would not


def uneven() -> Any:
    """Gradient descent whose steps spend `COSTS`."""
    return count_grad_evals(optax.sgd(optax.constant_schedule(0.1)), spent)


def spent(before, after):
    del after
    (schedule,) = (s for s in before if isinstance(s, optax.ScaleByScheduleState))
    return COSTS[schedule.count]


@pytest.mark.parametrize(
    ("limit", "taken", "evaluations"), [(5, 2, 5), (8, 2, 5), (1, 0, 0), (14, 3, 14), (99, 6, 17)]
)
def test_the_last_step_is_the_last_that_stays_within_the_budget(limit, taken, evaluations):
    optimizer, plain = budget.within_budget(uneven(), limit), uneven()
    params = alone = zeros()
    state, state_alone = optimizer.init(params), plain.init(alone)
    for step in range(len(COSTS)):
        updates, state = optimizer.update(jax.grad(objective)(params), state, params)
        params = optax.apply_updates(params, updates)
        assert bool(budget.ended(state)) == (step >= taken)
        if step < taken:
            updates, state_alone = plain.update(jax.grad(objective)(alone), state_alone, alone)
            alone = optax.apply_updates(alone, updates)
    jax.tree.map(np.testing.assert_array_equal, params, alone)
    jax.tree.map(np.testing.assert_array_equal, state.inner, state_alone)
    assert optimizers.grad_evals(state) == evaluations


def config(variant="optax:lbfgs,learning_rate=None,memory_size=2", **changes):
    result = digits_mlp.get_config(variant)
    result.model.hidden_sizes = (16,)
    result.update(SETTINGS | {"max_grad_evals": 90} | changes)
    return result.lock()


def test_a_line_search_ends_within_its_budget_says_what_it_spent_and_resumes(tmp_path, monkeypatch):
    configuration = config(seeds=(0, 1), vectorize_seeds="on")
    experiment = Experiment.from_config(configuration)  # compiled once
    together = train_experiment(experiment, tmp_path / "both")
    steps = set()
    for entry in together["seeds"]:
        own = [line for line in log(tmp_path / "both") if line["seed"] == entry["seed"]]
        assert max(line["grad_evals"] for line in own) == entry["grad_evals"] <= 90
        assert entry["grad_evals"] > 90 - 21  # a step searches 20 times at most
        last = own[-1]  # an evaluation, there where the budget ended
        assert (last["step"], last["grad_evals"]) == (entry["steps"], entry["grad_evals"])
        assert last["test/accuracy"] == entry["final_test_accuracy"]
        assert entry["status"] == "done"
        assert entry["steps"] < 60
        evaluated = [line["step"] for line in own if "test/accuracy" in line]
        assert len(set(evaluated)) == len(evaluated)
        steps.add(entry["steps"])
    assert len(steps) == 2  # each has its own end
    interrupt(monkeypatch, calls=6)
    with pytest.raises(Killed):
        train_experiment(experiment, tmp_path / "killed")
    assert outcomes(train_experiment(experiment, tmp_path / "killed")) == outcomes(together)
    assert log(tmp_path / "killed") == log(tmp_path / "both")


def test_a_budget_that_is_no_limit_changes_nothing(tmp_path):
    without = train_and_evaluate(config("sgd", max_grad_evals=0), tmp_path / "without")
    limited = train_and_evaluate(config("sgd", max_grad_evals=60), tmp_path / "with")
    assert outcomes(limited) == outcomes(without)
    assert log(tmp_path / "with") == log(tmp_path / "without")


@pytest.mark.parametrize("variant", ["rk4_dalr", "adam", "optax:contrib.sophia,update_interval=7"])
@pytest.mark.parametrize("evaluations", [1, 3, 100, 101])
def test_the_steps_within_a_budget_are_the_most_that_fit(variant, evaluations):
    def spent(steps):
        return {"rk4_dalr": 6 * steps, "adam": steps}.get(variant, steps + 2 * -(-steps // 7))

    steps = costs.steps_within(digits_mlp.get_config(variant), evaluations)
    assert spent(steps) <= evaluations < spent(steps + 1)
