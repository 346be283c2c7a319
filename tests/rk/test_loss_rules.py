"""Polyak's step and the non-negative Gauss-Newton step, from the value of the loss."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_rules_and_methods import START, train
from test_runge_kutta import loss, numpy_gradient

from rkbench import optimizers, rk
from rkbench.errors import UserError
from rkbench.rk import EULER, RK4, adagrad, ngn, polyak

# optax types updates and states as wide unions; here they are what they are.
runge_kutta: Any = rk.runge_kutta


@pytest.mark.parametrize(("max_step", "f_min"), [(1.0, 0.0), (0.2, -0.3), (9.0, 0.5)])
def test_polyak_with_euler_is_optaxs(max_step, f_min, x64):
    ours = runge_kutta(EULER, polyak(max_step, f_min=f_min))
    theirs = optax.polyak_sgd(max_step, f_min=f_min, variant="sps+")
    expected = train(optax.with_extra_args_support(theirs), 12)
    for (x, _), (y, _) in zip(train(ours, 12), expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-12)


def test_the_scaling_of_polyaks_step_is_within_its_cap(x64):
    g = numpy_gradient(START)
    for scaling, cap in ((0.5, 9.0), (2.0, 0.1)):
        state = train(runge_kutta(EULER, polyak(cap, scaling)), 1)[1][1]
        expected = min(scaling * float(loss(START)) / (g @ g), cap)
        assert float(state.step_size) == pytest.approx(expected, rel=1e-12)


def test_ngn_is_the_step_of_the_linearised_root_of_the_loss(x64):
    """It minimises (r + grad r^T s)^2 + ||s||^2 / (2 sigma), r = sqrt(L): section 3 of the paper.

    L = r^2, so grad r = g / (2 r), and the minimiser is s = -h g.
    """
    for sigma in (0.5, 4.0):
        (before, _), (after, state) = train(runge_kutta(EULER, ngn(sigma)), 1)
        r, g = np.sqrt(float(loss(before))), numpy_gradient(START)
        slope = g / (2 * r)
        s = np.linalg.solve(2 * np.outer(slope, slope) + np.eye(2) / sigma, -2 * r * slope)
        np.testing.assert_allclose(np.asarray(after) - START, s, rtol=1e-12)
        assert int(state.grad_evals) == 1


def test_ngn_lies_between_its_cap_and_polyaks_step(x64):
    gap, g = float(loss(START)), numpy_gradient(START)
    for sigma, limit in ((1e-9, 1e-9), (1e9, 2 * gap / (g @ g))):
        state = train(runge_kutta(EULER, ngn(sigma)), 1)[1][1]
        assert float(state.step_size) == pytest.approx(limit, rel=1e-6)


@pytest.mark.parametrize("rule", [polyak(max_step=50.0), ngn(50.0)], ids=["polyak", "ngn"])
def test_with_a_preconditioner_the_rate_is_that_of_the_field_followed(rule, x64):
    """<g, A g> = ||A^(1/2) g||^2: the rule itself, in parameters that A^(1/2) scales."""
    g = numpy_gradient(START)
    a = 1 / np.sqrt(0.1 + g**2)
    state = train(runge_kutta(RK4, rule, preconditioner=adagrad(0.1)), 1)[1][1]
    scaled = lambda y: loss(jnp.sqrt(jnp.asarray(a)) * y)  # noqa: E731
    plain = train(runge_kutta(EULER, rule), 1, scaled, START / np.sqrt(a))[1][1]
    assert float(state.step_size) == pytest.approx(float(plain.step_size), rel=1e-12)
    assert int(state.grad_evals) == 4


@pytest.mark.parametrize("rule", [polyak(max_step=50.0), ngn(50.0)], ids=["polyak", "ngn"])
def test_with_a_penalty_the_loss_includes_it(rule, x64):
    with_penalty = lambda x: loss(x) + 0.15 * jnp.sum(x**2)  # noqa: E731
    for (x, _), (y, _) in zip(
        train(runge_kutta(EULER, rule, l2=0.3), 4),
        train(runge_kutta(EULER, rule), 4, with_penalty),
        strict=True,
    ):
        np.testing.assert_allclose(x, y, rtol=1e-12)


@pytest.mark.parametrize("rule", [polyak(max_step=2.0), ngn(2.0)], ids=["polyak", "ngn"])
def test_a_minimum_and_a_loss_below_the_least(rule):
    assert float(train(runge_kutta(EULER, rule), 1, lambda x: 0 * jnp.sum(x))[1][1].step_size) >= 0
    below = train(runge_kutta(EULER, rule), 1, lambda x: jnp.sum(x) - 10)[1]
    assert float(below[1].step_size) == 0
    np.testing.assert_array_equal(below[0], START.astype(np.float32))


@pytest.mark.parametrize("name", ["polyak", "ngn"])
def test_a_missing_loss_is_named(name):
    x = jnp.asarray(START)
    optimizer = optimizers.create("rk4", step_size=name)
    with pytest.raises(TypeError, match=f"'{name}' needs the loss: .*value=loss"):
        optimizer.update(x, optimizer.init(x), x, grad_fn=jax.grad(loss))


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (lambda: polyak(max_step=0.0), "max_step must be a finite number > 0"),
        (lambda: polyak(scaling=-1.0), "scaling must be a finite number > 0"),
        (lambda: polyak(f_min=np.inf), "f_min must be a finite number"),
        (lambda: ngn(0.0), "sigma must be a finite number > 0"),
    ],
)
def test_numbers_out_of_range_are_refused(rule, message):
    with pytest.raises(UserError, match=message):
        rule()
