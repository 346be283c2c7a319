"""NAdamW against a NumPy reference, and how evaluations are counted."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rkbench import optimizers
from rkbench.optimizers.baselines import count_grad_evals
from rkbench.optimizers.optimizer_states import find

# optax types updates and states as wide unions; here they are what they are.
create: Any = optimizers.create

HYPERPARAMETERS: Any = {
    "b1": 0.9414,
    "b2": 0.9768,
    "eps": 1e-8,
    "weight_decay": 0.02,
}  # the paper's


def numpy_nadamw(x, gradient, rate, steps, b1, b2, eps, weight_decay):
    """AlgoPerf's NAdamW, written down from its definition."""
    mu, nu, points = np.zeros_like(x), np.zeros_like(x), []
    for t in range(1, steps + 1):
        g = gradient(x)
        mu = b1 * mu + (1 - b1) * g
        nu = b2 * nu + (1 - b2) * g**2
        mu_hat = (b1 * mu + (1 - b1) * g) / (1 - b1**t)
        nu_hat = nu / (1 - b2**t)
        x = x - rate * (mu_hat / (np.sqrt(nu_hat) + eps) + weight_decay * x)
        points.append(x)
    return np.array(points)


def trajectory(optimizer, x, gradient, steps):
    x, state, points = jnp.asarray(x), optimizer.init(jnp.asarray(x)), []
    for _ in range(steps):
        updates, state = optimizer.update(gradient(x), state, x)
        x = x + updates
        points.append(np.asarray(x))
    return np.array(points)


def test_nadamw_against_numpy(x64):
    x, gradient = np.array([1.0, -2.0, 0.3]), lambda x: x**3 - 0.2 * x
    found = trajectory(create("nadamw", 0.05, **HYPERPARAMETERS), x, gradient, 6)
    expected = numpy_nadamw(x, gradient, 0.05, 6, **HYPERPARAMETERS)
    np.testing.assert_allclose(found, expected, rtol=1e-13)


@pytest.mark.standard_promotion
def test_nadamw_is_not_the_one_of_optax(x64):
    x, gradient = np.array([1.0, -2.0, 0.3]), lambda x: x**3 - 0.2 * x
    ours, theirs = (
        trajectory(create(name, 0.05, **HYPERPARAMETERS), x, gradient, 6)
        for name in ("nadamw", "optax:nadamw")
    )
    assert np.abs(ours[0] - theirs[0]).max() > 0.01  # of a first step of about 0.05 to 0.1
    plain = trajectory(optax.nadamw(0.05, **HYPERPARAMETERS), x, gradient, 6)
    np.testing.assert_array_equal(theirs, plain)


def test_nadamw_keeps_bfloat16():
    params = jnp.full((3,), 2.0, jnp.bfloat16)
    optimizer = create("nadamw", 0.05)
    updates, state = optimizer.update(params, optimizer.init(params), params)
    assert updates.dtype == jnp.bfloat16
    assert optax.tree.get(state, "mu").dtype == jnp.bfloat16


def test_only_the_extra_arguments_asked_for_are_passed_on():
    def update(updates, state, params=None, **extra_args):
        return extra_args, state

    inner = optax.GradientTransformationExtraArgs(lambda params: (), update)
    counted: Any = count_grad_evals(inner, extra_args={"loss": "value"})
    passed, state = counted.update(None, counted.init(None), value=3, grad_fn=4)
    assert passed == {"loss": 3}
    assert state.grad_evals == 1


def test_line_search_counts_its_trial_steps():
    def objective(x):
        return jnp.sum(jnp.cosh(3 * x["num_linesearch_steps"]))

    calls = []

    def counted(x):
        jax.debug.callback(lambda: calls.append(1))
        return objective(x)

    # Parameters may have the name of the field that counts.
    optimizer, x = create("optax:lbfgs"), {"num_linesearch_steps": jnp.array([1.0, -0.5])}
    state = optimizer.init(x)
    value, gradient = jax.value_and_grad(objective)(x)
    extras = {"value": value, "grad": gradient, "value_fn": counted, "grad_fn": jax.grad(counted)}
    _, state = optimizer.update(gradient, state, x, **extras)
    jax.effects_barrier()
    (search,) = find(state, optax.ScaleByZoomLinesearchState)
    trials = search.info.num_linesearch_steps
    assert optimizers.grad_evals(state) == 1 + trials
    assert len(calls) == trials >= 1


def test_schedule_free_is_evaluated_at_its_average(x64):
    """x, y and z of Defazio et al. (2024), written down: y is where gradients are taken."""
    rate, beta, gradient = 0.3, 0.9, lambda x: x**3 - 0.2 * x
    schedule_free = create("optax:contrib.schedule_free_sgd", rate, b1=beta)
    optimizer: Any = optax.chain(schedule_free, optax.identity())
    y: Any = jnp.asarray([1.0, -2.0, 0.3])
    state = optimizer.init(y)
    x = z = np.asarray(y)
    for t in range(1, 8):
        z = z - rate * gradient(np.asarray(y))
        x = (1 - 1 / t) * x + z / t
        updates, state = optimizer.update(gradient(y), state, y)
        y = optax.apply_updates(y, updates)
        np.testing.assert_allclose(y, beta * x + (1 - beta) * z, rtol=1e-12)
        np.testing.assert_allclose(optimizers.eval_params(state, y), x, rtol=1e-12)
    assert np.abs(np.asarray(y) - x).max() > 1e-3
    assert optimizers.evaluated_elsewhere(state)


def test_others_are_evaluated_at_their_parameters_and_lookahead_at_the_slow_ones():
    params = {"w": jnp.ones(2)}
    for name in optimizers.names():
        if "schedule_free" not in name and name != "rgd":
            rate = None if name == "rk4_dalr" else 0.1
            state = create(name, rate).init(params)
            assert optimizers.eval_params(state, params) is params, name
    both = optax.LookaheadParams.init_synced(params)
    state = optax.lookahead(create("adam", 0.1), 5, 0.5).init(both)
    assert optimizers.eval_params(state, both) is both.slow
    # What optax has of this kind; a new one belongs into EVAL_PARAMS.
    found = {name for module in (optax, optax.contrib) for name in dir(module)}
    assert {name for name in found if "eval_params" in name} == {"schedule_free_eval_params"}


@pytest.mark.standard_promotion
def test_a_state_is_searched_by_type_and_never_by_name():
    """Parameters called as the fields of states are."""
    names = ("grad_evals", "step_size", "num_linesearch_steps", "hessian_fn_state", "momentum")
    params = {name: jnp.ones(2) for name in names}

    def objective(params):
        return sum(jnp.sum((x - 3) ** 2) for x in params.values())

    for name, spent in (("rk4_dalr", 6), ("momentum", 1), ("optax:contrib.sophia", 3)):
        optimizer = create(name, None if name == "rk4_dalr" else 0.1)
        gradient = jax.grad(objective)
        given = {"grad_fn": gradient, "value_fn": objective, "value": objective(params)}
        _, state = optimizer.update(gradient(params), optimizer.init(params), params, **given)
        assert optimizers.grad_evals(state) == spent
        expected = state.step_size if name == "rk4_dalr" else 7.0
        assert optimizers.step_size(state, default=7.0) == expected
    lbfgs = create("optax:lbfgs").init(params)
    assert optimizers.grad_evals(lbfgs) == 0
    with pytest.raises(ValueError, match="holds 2 optimizers"):
        optimizers.grad_evals((state, state))
