"""Step-size rules and methods that are written outside the core, through its two slots."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_runge_kutta import loss, numpy_gradient

from rkbench import rk
from rkbench.rk import EULER, HEUN, KUTTA3, RK4, Advance, Choice, Method, StepSizeRule, stateless
from rkbench.rk.vector_space import add_scaled, norm

# optax types updates and states as wide unions; here they are what they are.
runge_kutta: Any = rk.runge_kutta

START = np.array([1.2, -0.7])


def train(optimizer, steps, objective=loss, x=START, **extra_args):
    """(parameters, state) before the first step and after each; compiled once."""

    @jax.jit
    def step(x, state):
        value, g = jax.value_and_grad(objective)(x)
        updates, state = optimizer.update(
            g, state, x, grad_fn=jax.grad(objective), value=value, **extra_args
        )
        return optax.apply_updates(x, updates), state

    x = jnp.asarray(x)
    history = [(x, optimizer.init(x))]
    for _ in range(steps):
        history.append(step(*history[-1]))
    assert step._cache_size() == 1
    return history


def error_control(tolerance, h0):
    """Heun's method against Euler's, by integral control; a step with a larger error is rejected.

    The error is h (k_2 - k_1) / 2; h <- h min(2, max(0.2, 0.9 sqrt(tolerance / error))).
    """

    def choose(start, state):
        del start
        return Choice(state, state)

    def review(start, h, advance, state):
        del start, state
        k1, k2 = advance.stages
        error = h / 2 * norm(add_scaled(k2, -1, k1))
        factor = jnp.clip(0.9 * jnp.sqrt(tolerance / error), 0.2, 2.0)
        return error <= tolerance, h * factor

    return StepSizeRule(choose, lambda params: jnp.asarray(h0, float), review, keeps_stages=True)


def test_error_control_with_rejection_against_a_numpy_recursion(x64):
    tolerance, h, x, m, total = 0.02, 1.5, START, np.zeros(2), np.zeros(2)
    optimizer = runge_kutta(
        HEUN, error_control(tolerance, h), preconditioner=rk.adagrad(0.1), momentum=0.5
    )
    history, rejected = train(optimizer, 12), 0
    for x_found, state in history[1:]:
        g = numpy_gradient(x)
        a = 1 / np.sqrt(0.1 + total + g**2)
        k1, k2 = a * g, a * numpy_gradient(x - h * a * g)
        error = h / 2 * np.linalg.norm(k2 - k1)
        if error <= tolerance:
            m, total = 0.5 * m + (k1 + k2) / 2, total + g**2
            x = x - h * m
        else:
            rejected += 1
        assert float(state.step_size) == pytest.approx(h, rel=1e-12)
        h *= np.clip(0.9 * np.sqrt(tolerance / error), 0.2, 2)
        np.testing.assert_allclose(x_found, x, rtol=1e-12)
        np.testing.assert_allclose(state.momentum, m, rtol=1e-12)
        np.testing.assert_allclose(state.preconditioner.sum_of_squares, total, rtol=1e-12)
    assert 1 <= rejected <= 6
    assert history[-1][1].grad_evals == 2 * 12  # rejected steps have cost theirs
    assert history[-1][1].count == 12


def test_polyak_step_from_the_loss(x64):
    rule = stateless(lambda start: start.value / norm(start.gradient) ** 2)
    objective = lambda x: jnp.sum(0.5 * x**2)  # noqa: E731
    (_, _), (x, state) = train(runge_kutta(EULER, rule), 1, objective)
    assert float(state.step_size) == pytest.approx(0.5, rel=1e-14)
    np.testing.assert_allclose(x, START / 2, rtol=1e-14)


def test_plateau_rule_keeps_the_best_loss():
    def choose(start, state):
        best, h = state
        h = jnp.where(start.value < 0.9 * best, h, h / 2)
        return Choice(h, (jnp.minimum(best, start.value), h))

    rule = StepSizeRule(choose, lambda params: (jnp.inf, 0.5))
    # A loss of 1 that never falls: the first step is taken at full length, then halving.
    history = train(runge_kutta(EULER, rule), 4, lambda x: 1 + 0 * jnp.sum(x))
    assert [float(state.step_size) for _, state in history[1:]] == [0.5, 0.25, 0.125, 0.0625]


def test_rules_see_the_preconditioned_field_and_extra_arguments(x64):
    seen = {}

    def step_size(start):
        seen.update(start.extra_args, field=start.field(start.params), first=start.first)
        return start.extra_args["trust"]

    optimizer = runge_kutta(EULER, stateless(step_size, grad_evals=1), preconditioner=rk.natural())
    x = jnp.asarray(START)
    _, state = optimizer.update(
        jax.grad(loss)(x), optimizer.init(x), x, grad_fn=jax.grad(loss), trust=0.25, other=1
    )
    assert seen["other"] == 1
    assert float(state.step_size) == 0.25
    assert state.grad_evals == 2
    g = numpy_gradient(START)
    for found in (seen["field"], seen["first"]):
        np.testing.assert_allclose(found, g / (1 + g @ g), rtol=1e-12)


@pytest.mark.parametrize("unroll", [False, True])
@pytest.mark.parametrize("tableau", [RK4, KUTTA3, EULER], ids=lambda tableau: tableau.name)
def test_stages_reach_the_review_of_a_rule_that_keeps_them(tableau, unroll, x64):
    def review(start, h, advance, state):
        return True, jnp.stack(advance.stages)

    rule = StepSizeRule(
        lambda start, state: Choice(0.3, state),
        lambda params: jnp.zeros((tableau.stages, *params.shape)),
        review,
        keeps_stages=True,
    )
    _, (_, state) = train(runge_kutta(tableau, rule, unroll_stages=unroll), 1)
    ks = []
    for row in tableau.a:
        moved = sum((a * k for a, k in zip(row, ks, strict=False)), np.zeros(2))
        ks.append(numpy_gradient(START - 0.3 * moved))
    np.testing.assert_allclose(state.rule, ks, rtol=1e-12)


def implicit_euler(tolerance):
    """g* = g(theta - h g*) by fixed-point iteration: its cost varies from step to step."""

    def advance(start, h, state):
        del state

        def unfinished(carry):
            return carry[2] > tolerance

        def iterate(carry):
            k, spent, _ = carry
            new = start.field(add_scaled(start.params, -h, k))
            return new, spent + 1, norm(add_scaled(new, -1, k))

        begin = start.first, jnp.zeros((), jnp.int32), jnp.full((), jnp.inf)
        k, spent, _ = jax.lax.while_loop(unfinished, iterate, begin)
        return Advance(k, spent, state=spent)

    return Method("implicit_euler", 1, advance, lambda params: jnp.zeros((), jnp.int32))


def test_a_method_that_is_no_tableau_takes_part_like_one(x64):
    hessian, h = np.array([[1.5, 0.4], [0.4, 0.5]]), 0.5
    objective = lambda x: 0.5 * x @ jnp.asarray(hessian) @ x  # noqa: E731
    optimizer = runge_kutta(implicit_euler(1e-12), h, momentum=0.5)
    x, m, spent = START, np.zeros(2), 0
    iterations = set()
    for x_found, state in train(optimizer, 4, objective)[1:]:
        m = 0.5 * m + hessian @ np.linalg.solve(np.eye(2) + h * hessian, x)
        x = x - h * m
        spent += 1 + int(state.method)
        iterations.add(int(state.method))
        np.testing.assert_allclose(x_found, x, rtol=1e-9)
        assert state.grad_evals == spent
    assert len(iterations) > 1
    with pytest.raises(TypeError, match="'implicit_euler'"):
        optimizer.update(START, optimizer.init(START), START)
