"""Preconditioned steps against numbers worked out by hand in NumPy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_runge_kutta import numpy_gradient, numpy_rk4

from rkbench import rk
from rkbench.errors import UserError
from rkbench.rk import EULER, RK4, adagrad, adam, identity, modified_adagrad, natural, rmsprop

# optax types updates and states as wide unions; here they are what they are.
runge_kutta: Any = rk.runge_kutta

START, H = np.array([1.2, -0.7]), 0.3


def gradient(x):
    """The gradient of test_runge_kutta's loss, on a pytree of two leaves."""
    u, v = x["u"], x["v"]
    return {"u": u**3 - (v - jnp.sin(u)) * jnp.cos(u) + u, "v": v - jnp.sin(u)}


def trajectory(preconditioner, steps=3):
    """The parameters after each step of RK4: [steps, 2]."""
    optimizer = runge_kutta(RK4, H, preconditioner=preconditioner)
    x = {"u": jnp.asarray(START[0]), "v": jnp.asarray(START[1])}
    state, points = optimizer.init(x), []
    for _ in range(steps):
        updates, state = optimizer.update(gradient(x), state, x, grad_fn=gradient)
        x = jax.tree.map(jnp.add, x, updates)
        points.append([float(x["u"]), float(x["v"])])
    return np.array(points)


@pytest.mark.parametrize(
    ("preconditioner", "eps"),
    [(adagrad(eps=0.1), 0.1), (adagrad(eps=0), 0.0), (modified_adagrad(), 1.0)],
    ids=["adagrad", "adagrad-eps-0", "modified"],
)
def test_adagrad_freezes_the_step_preconditioner_at_every_stage(preconditioner, eps, x64):
    x, accumulated, expected = START, np.zeros(2), []
    for _ in range(3):
        accumulated = accumulated + numpy_gradient(x) ** 2  # diag G_n, with the gradient at theta_n
        a = 1 / np.sqrt(eps + accumulated)  # Eqs. (4), (6)
        x = x - H * numpy_rk4(lambda y, a=a: a * numpy_gradient(y), x, H)
        expected.append(x)
    np.testing.assert_allclose(trajectory(preconditioner), expected, rtol=1e-13)


def test_adagrad_differs_from_preconditioning_after_the_step(x64):
    a = 1 / np.sqrt(0.1 + numpy_gradient(START) ** 2)
    afterwards = START - H * a * numpy_rk4(numpy_gradient, START, H)
    found = trajectory(adagrad(eps=0.1), steps=1)[0]
    assert np.linalg.norm(found - afterwards) > 0.01 * np.linalg.norm(START - found)


@pytest.mark.parametrize("alpha", [-1.0, -0.5, 0.25])
def test_natural_field_takes_each_stages_own_gradient(alpha, x64):
    def field(x):
        g = numpy_gradient(x)
        metric = np.eye(2) + np.outer(g, g)  # Eq. (44)
        values, vectors = np.linalg.eigh(metric)
        return vectors @ np.diag(values**alpha) @ vectors.T @ g  # G^alpha g

    x, expected = START, []
    for _ in range(3):
        x = x - H * numpy_rk4(field, x, H)
        expected.append(x)
    found = trajectory(natural(alpha))
    np.testing.assert_allclose(found, expected, rtol=1e-12)

    frozen = (1 + numpy_gradient(START) @ numpy_gradient(START)) ** alpha
    first = START - H * numpy_rk4(lambda y: frozen * numpy_gradient(y), START, H)
    assert np.linalg.norm(found[0] - first) > 1e-3


def test_natural_alpha_zero_and_identity_are_the_plain_method(x64):
    np.testing.assert_array_equal(trajectory(natural(0.0)), trajectory(identity()))


def test_coordinate_without_gradient_stays_even_without_eps():
    # A pixel that is 0 in every image: G = 0 for its weights.
    optimizer = runge_kutta(RK4, 0.1, preconditioner=adagrad(eps=0.0))
    grad_fn = lambda x: x * jnp.array([1.0, 0.0])  # noqa: E731
    x = jnp.array([2.0, 5.0])
    updates, _ = optimizer.update(grad_fn(x), optimizer.init(x), x, grad_fn=grad_fn)
    assert updates[1] == 0
    assert np.isfinite(updates[0])
    assert updates[0] < 0


def test_bfloat16_parameters_accumulate_squares_in_float32():
    params = jnp.full((3,), 2.0, jnp.bfloat16)
    optimizer = runge_kutta(RK4, 0.1, preconditioner=adagrad(eps=0.1))
    state = optimizer.init(params)
    for _ in range(400):  # in bfloat16 the sum of ones would stop at 256
        _, preconditioner = adagrad(eps=0.1).update(jnp.ones_like(params), state.preconditioner)
        state = state._replace(preconditioner=preconditioner)
    np.testing.assert_array_equal(state.preconditioner.sum_of_squares, np.full(3, 400.0))
    updates, _ = optimizer.update(params, state, params, grad_fn=lambda p: p)
    assert updates.dtype == jnp.bfloat16


def test_traced_eps_and_alpha():
    @jax.jit
    def steps(eps, alpha):
        g = jnp.array([1.0, 2.0])
        results = []
        for preconditioner in (adagrad(eps), natural(alpha)):
            precondition, _ = preconditioner.update(g, preconditioner.init(g))
            results.append(precondition(g))
        return results

    by_adagrad, by_nature = steps(0.5, -1.0)
    np.testing.assert_allclose(by_adagrad, [1 / np.sqrt(1.5), 2 / np.sqrt(4.5)], rtol=1e-6)
    np.testing.assert_allclose(by_nature, [1 / 6, 2 / 6], rtol=1e-6)


@pytest.mark.parametrize("eps", [-1e-8, np.nan, np.inf, "small"])
def test_eps_out_of_range_is_refused(eps):
    with pytest.raises(UserError, match="eps must be a finite number >= 0"):
        adagrad(eps)


def test_alpha_that_is_not_finite_is_refused():
    with pytest.raises(UserError, match="alpha of the natural field must be a finite number"):
        natural(np.inf)


@pytest.mark.standard_promotion
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda: runge_kutta(EULER, 0.1, preconditioner=adam()), lambda: optax.adam(0.1)),
        (
            lambda: runge_kutta(EULER, 0.1, preconditioner=adam(0.8, 0.9, 1e-3), weight_decay=0.2),
            lambda: optax.adamw(0.1, 0.8, 0.9, 1e-3, weight_decay=0.2),
        ),
        (
            lambda: runge_kutta(EULER, 0.1, preconditioner=adam(0, 0.9)),
            lambda: optax.adam(0.1, 0.0, 0.9),
        ),
        (lambda: runge_kutta(EULER, 0.1, preconditioner=rmsprop()), lambda: optax.rmsprop(0.1)),
        (
            lambda: runge_kutta(EULER, 0.1, preconditioner=rmsprop(0.5, 0.1), momentum=0.9),
            lambda: optax.chain(
                optax.scale_by_rms(0.5, 0.1), optax.trace(0.9), optax.scale_by_learning_rate(0.1)
            ),
        ),
        (
            lambda: runge_kutta(EULER, 0.1, momentum=0.9, nesterov=True),
            lambda: optax.sgd(0.1, 0.9, nesterov=True),
        ),
    ],
    ids=["adam", "adamw", "adam-b1-0", "rmsprop", "rmsprop-momentum", "nesterov"],
)
def test_eulers_method_with_moments_is_optaxs_optimizer(ours, theirs, x64):
    trajectories = []
    for optimizer in (ours(), theirs()):
        x: Any = {"u": jnp.asarray(START[0]), "v": jnp.asarray(START[1])}
        state, points = optimizer.init(x), []
        for _ in range(8):
            updates, state = optimizer.update(gradient(x), state, x)
            x = optax.apply_updates(x, updates)
            points.append([float(x["u"]), float(x["v"])])
        trajectories.append(np.array(points))
    np.testing.assert_allclose(*trajectories, rtol=1e-13)


def test_adams_second_moment_is_frozen_and_its_first_is_of_raw_gradients(x64):
    b1, b2, eps = 0.8, 0.95, 1e-2
    x, m, v, expected = START, np.zeros(2), np.zeros(2), []
    for t in range(1, 4):
        v = b2 * v + (1 - b2) * numpy_gradient(x) ** 2
        a = 1 / (np.sqrt(v / (1 - b2**t)) + eps)
        raw = numpy_rk4(lambda y, a=a: a * numpy_gradient(y), x, H) / a
        m = b1 * m + (1 - b1) * raw
        x = x - H * a * m / (1 - b1**t)
        expected.append(x)
    np.testing.assert_allclose(trajectory(adam(b1, b2, eps)), expected, rtol=1e-12)


@pytest.mark.parametrize(("factory", "name"), [(adam, "b1"), (adam, "b2"), (rmsprop, "decay")])
def test_decays_out_of_range_are_refused(factory, name):
    with pytest.raises(UserError, match=rf"{name} must be a number in \[0, 1\)"):
        factory(**{name: 1.0})


def test_nesterov_without_momentum_is_refused():
    with pytest.raises(UserError, match="nesterov=True has no effect without momentum"):
        runge_kutta(RK4, 0.1, nesterov=True)
