"""The related work's optimizers against NumPy loops, special cases and the flows they follow."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.integrate import solve_ivp

from rkbench import optimizers
from rkbench.errors import UserError

create: Any = optimizers.create
START = np.array([1.0, -2.0, 0.3])


def gradient(x):
    return x**3 + 0.2 * x[::-1]


def trajectory(optimizer, steps=8, x=START):
    """The parameters after each step, and the last state."""
    x = jnp.asarray(x)
    state, points = optimizer.init(x), []
    for _ in range(steps):
        updates, state = optimizer.update(gradient(x), state, x, grad_fn=gradient)
        x = optax.apply_updates(x, updates)
        points.append(np.asarray(x))
    return np.array(points), state


def test_sgd_g2_against_numpy(x64):
    x, h, beta, expected, shorter = START, 0.5, 0.9, [], 0
    for _ in range(8):
        g = gradient(x)
        probe = gradient(x - h * g)
        along, change = (g - probe) @ g, g - probe
        best = 2 * h * along / (change @ change) if along > 0 else h
        shorter += best < h
        h = beta * h + (1 - beta) * best if best >= h else (1 - beta) * best
        x = x - h * g
        expected.append(x)
    found, state = trajectory(create("sgd_g2", 0.5))
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert 0 < shorter < 8  # both branches
    assert int(optimizers.grad_evals(state)) == 16


def test_a_schedule_scales_the_steps_of_sgd_g2(x64):
    # While the factor of two steps is known: the second is half as long as without a schedule.
    plain, _ = trajectory(create("sgd_g2", 1e-3), 1)
    halved, state = trajectory(create("sgd_g2", lambda count: 1e-3 / (1 + count.astype(float))), 2)
    factor = float(optax.tree.get(state, "factor"))
    expected = plain[0] - 0.5e-3 * factor * gradient(plain[0])
    np.testing.assert_allclose(halved[1], expected, rtol=1e-13)
    assert factor > 1


def test_sgd_g2_compares_clipped_gradients(x64):
    def clipped(x):
        g = gradient(x)
        return g / max(1.0, np.linalg.norm(g) / 0.5)

    found, _ = trajectory(create("sgd_g2", 0.5, clip_norm=0.5), 1)
    g, probe = clipped(START), clipped(START - 0.5 * clipped(START))
    change = g - probe
    ratio = 2 * (change @ g) / (change @ change)
    factor = 0.9 + 0.1 * ratio if ratio >= 1 else 0.1 * ratio
    np.testing.assert_allclose(found[0], START - 0.5 * factor * g, rtol=1e-12)


def numpy_rgd(rate, mu, delta, alpha, steps, x):
    """Algorithm 1 of the paper as it stands: x_1, x_2, ..."""
    v, points = np.zeros_like(x), []
    for _ in range(steps):
        half = x + np.sqrt(mu) * v / np.sqrt(mu * delta * v @ v + 1)
        v = np.sqrt(mu) * v - rate * gradient(half)
        x = alpha * half + (1 - alpha) * x + v / np.sqrt(delta * v @ v + 1)
        v = np.sqrt(mu) * v
        points.append(x)
    return np.array(points), v


@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_rgd_against_numpy(x64, alpha):
    optimizer = create("rgd", 0.1, momentum=0.8, delta=2.0, alpha=alpha)
    for steps in (1, 2, 6):
        points, state = trajectory(optimizer, steps)
        expected, _ = numpy_rgd(0.1, 0.8, 2.0, alpha, steps, START)
        found = optimizers.eval_params(state, jnp.asarray(points[-1]))
        np.testing.assert_allclose(np.asarray(found), expected[-1], rtol=1e-12)
    assert int(optimizers.grad_evals(state)) == 6


def test_rgd_without_a_speed_of_light_is_nesterovs_method(x64):
    found, _ = trajectory(create("rgd", 0.05, momentum=0.8, delta=0.0, alpha=0.0))
    expected, _ = trajectory(create("optax:sgd", 0.05, momentum=0.8, nesterov=True))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_rgd_is_of_second_order_on_the_relativistic_flow(x64):
    # x' = (p/m) / sqrt(|p|^2/(m c)^2 + 1), p' = -g(x) - gamma p.
    m, c, gamma = 0.7, 1.3, 0.8

    def flow(t, z):
        x, p = z[:3], z[3:]
        return np.concatenate([p / m / np.sqrt(p @ p / (m * c) ** 2 + 1), -gradient(x) - gamma * p])

    z = np.concatenate([START, np.zeros(3)])
    exact = solve_ivp(flow, (0, 1), z, "DOP853", rtol=1e-11, atol=1e-13).y[:3, -1]
    errors = []
    for steps in (20, 40):
        h = 1 / steps
        optimizer = create(
            "rgd", h**2 / (2 * m), momentum=np.exp(-gamma * h), delta=4 / (c * h) ** 2
        )
        points, state = trajectory(optimizer, steps)
        x = np.asarray(optimizers.eval_params(state, jnp.asarray(points[-1])))
        errors.append(np.linalg.norm(x - exact))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.2)


def test_a_step_of_rgd_is_bounded_however_large_the_gradient():
    optimizer = create("rgd", 1.0, delta=4.0)
    x = jnp.ones(3)
    updates, _ = optimizer.update(1e6 * x, optimizer.init(x), x)
    assert np.linalg.norm(np.asarray(updates)) <= 2 / np.sqrt(4.0) * (1 + 1e-6)


def test_aggmo_against_numpy(x64):
    betas = (0.0, 0.9, 0.99)
    x, velocities, expected = START, [np.zeros(3) for _ in betas], []
    for _ in range(8):
        g = gradient(x)
        velocities = [b * v - g for b, v in zip(betas, velocities, strict=True)]
        x = x + 0.05 / 3 * sum(velocities)
        expected.append(x)
    found, state = trajectory(create("aggmo", 0.05))
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert int(optimizers.grad_evals(state)) == 8


@pytest.mark.parametrize("beta", [0.0, 0.9])
def test_aggmo_with_one_velocity_is_classical_momentum(x64, beta):
    found, _ = trajectory(create("aggmo", 0.05, betas=(beta,)))
    expected, _ = trajectory(create("momentum", 0.05, momentum=beta))
    np.testing.assert_allclose(found, expected, rtol=1e-13)


@pytest.mark.parametrize(
    ("name", "keywords", "message"),
    [
        ("sgd_g2", {"beta": 1.0}, "beta must be"),
        ("rgd", {"delta": -1.0}, "delta must be"),
        ("rgd", {"alpha": 1.5}, "alpha must be"),
        ("rgd", {"momentum": 1.0}, "momentum must be"),
        ("aggmo", {"betas": ()}, "betas must be a sequence"),
        ("aggmo", {"betas": 0.9}, "betas must be a sequence"),
        ("aggmo", {"betas": (0.5, 1.0)}, "each of betas must be"),
    ],
)
def test_keywords_out_of_range_are_refused(name, keywords, message):
    with pytest.raises(UserError, match=message):
        create(name, 0.1, **keywords)
