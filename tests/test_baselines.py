"""NAdamW against a NumPy reference, and how evaluations are counted."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rkbench import optimizers
from rkbench.baselines import count_grad_evals

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
        return jnp.sum(jnp.cosh(3 * x))

    calls = []

    def counted(x):
        jax.debug.callback(lambda: calls.append(1))
        return objective(x)

    optimizer, x = create("optax:lbfgs"), jnp.array([1.0, -0.5])
    state = optimizer.init(x)
    value, gradient = jax.value_and_grad(objective)(x)
    extras = {"value": value, "grad": gradient, "value_fn": counted, "grad_fn": jax.grad(counted)}
    _, state = optimizer.update(gradient, state, x, **extras)
    jax.effects_barrier()
    trials = optax.tree.get(state, "num_linesearch_steps")
    assert optimizers.grad_evals(state) == 1 + trials
    assert len(calls) == trials >= 1
