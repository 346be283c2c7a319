"""Implicit methods: stability, dense solves, order, exact counts, and failures that are seen."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import root
from test_runge_kutta import measured_order, numpy_gradient

from rkbench import optimizers, rk
from rkbench.errors import UserError
from rkbench.rk import IMPLICIT, adagrad, implicit_euler, natural
from rkbench.rk.implicit import CRANK_NICOLSON, IMPLICIT_EULER, IMPLICIT_MIDPOINT, SDIRK2

runge_kutta: Any = rk.runge_kutta

TABLES = {t.name: t for t in (IMPLICIT_EULER, IMPLICIT_MIDPOINT, CRANK_NICOLSON, SDIRK2)}
each = pytest.mark.parametrize("name", IMPLICIT)
TIGHT: Any = {"krylov_iterations": 60, "tolerance": 1e-12}
GAMMA = 1 - np.sqrt(0.5)
FACTORS = {
    "implicit_euler": lambda z: 1 / (1 - z),
    "rosenbrock_euler": lambda z: 1 / (1 - z),
    "implicit_midpoint": lambda z: (1 + z / 2) / (1 - z / 2),
    "crank_nicolson": lambda z: (1 + z / 2) / (1 - z / 2),
    "sdirk2": lambda z: (1 + (1 - 2 * GAMMA) * z) / (1 - GAMMA * z) ** 2,
}
START = np.array([1.2, -0.7])


def numpy_hessian(x):
    """Of test_runge_kutta's loss."""
    w = x[1] - np.sin(x[0])
    cross = -np.cos(x[0])
    return np.array(
        [[3 * x[0] ** 2 + np.cos(x[0]) ** 2 + w * np.sin(x[0]) + 1, cross], [cross, 1.0]]
    )


def step(method, h, gradient, x, **parts):
    optimizer = runge_kutta(method, h, **parts)
    update = jax.jit(lambda s, x: optimizer.update(gradient(x), s, x, grad_fn=gradient))
    updates, state = update(optimizer.init(x), x)
    return optax.apply_updates(x, updates), state


def on_test_loss(x):
    u, v = x
    return jnp.array([u**3 - (v - jnp.sin(u)) * jnp.cos(u) + u, v - jnp.sin(u)])


@each
def test_a_step_on_a_stiff_quadratic_is_the_stability_function(x64, name):
    # h = 1: the eigenvalues of the Hessian are -z, up to 1e4.
    eigenvalues = jnp.asarray(np.concatenate([[0.0], np.logspace(-3, 4, 15)]))
    method = IMPLICIT[name](**TIGHT)
    new, state = step(method, 1.0, lambda x: eigenvalues * x, jnp.ones(16))
    z = -np.asarray(eigenvalues)
    np.testing.assert_allclose(np.asarray(new), FACTORS[name](z), rtol=0, atol=1e-7)
    if name in TABLES:
        np.testing.assert_allclose(TABLES[name].amplification(z), FACTORS[name](z), atol=1e-13)
    assert int(state.method.unconverged) == 0


@each
def test_a_stiff_step_in_float32_with_the_defaults_is_stable(name):
    eigenvalues = jnp.array([1.0, 3.0, 1e2, 1e4])
    # The second stage of the trapezoidal rule is as large as the stiff gradient.
    keywords: Any = {"tolerance": 1e-6} if name == "crank_nicolson" else {}
    new, _ = step(IMPLICIT[name](**keywords), 1.0, lambda x: eigenvalues * x, jnp.ones(4))
    z = -np.asarray(eigenvalues, float)
    np.testing.assert_allclose(np.asarray(new), FACTORS[name](z), rtol=0, atol=5e-3)


@each
def test_order_of_convergence(x64, name):
    method = IMPLICIT[name](krylov_iterations=4, tolerance=1e-12)
    order = measured_order(method, numpy_gradient, 32)
    assert order == pytest.approx(method.order, abs=0.2)


def dense_step(name, field, jacobian, x, h):
    """The step by dense linear algebra and scipy's root finder."""
    if name == "rosenbrock_euler":
        return x - h * np.linalg.solve(np.eye(2) + h * jacobian(x), field(x))
    table, ks = TABLES[name], []
    for row in table.a:
        known = x - h * sum((a * k for a, k in zip(row, ks, strict=False)), np.zeros(2))
        equation = lambda k, p=known, a=row[-1]: k - field(p - h * a * k)  # noqa: E731
        found = root(equation, field(known), tol=1e-13)
        ks.append(found.x)
    return x - h * sum(b * k for b, k in zip(table.b, ks, strict=True))


@pytest.mark.parametrize(
    ("name", "kind", "hvp"),
    [
        *((name, "adagrad", "forward") for name in IMPLICIT),
        ("sdirk2", "plain", "reverse"),
        ("implicit_euler", "natural", "reverse"),
        ("crank_nicolson", "natural", "forward"),
        ("rosenbrock_euler", "natural", "forward"),
    ],
)
def test_a_step_is_that_of_dense_solves(x64, name, kind, hvp):
    h, g = 0.7, numpy_gradient(START)
    a = np.diag(1 / np.sqrt(0.1 + g**2)) if kind == "adagrad" else np.eye(2)

    def field(x):
        g = numpy_gradient(x)
        return g / (1 + g @ g) ** 0.5 if kind == "natural" else a @ g

    def jacobian(x):
        turned, g = numpy_hessian(x), numpy_gradient(x)
        if kind != "natural":
            return a @ turned
        s = 1 + g @ g
        return (np.eye(2) / s**0.5 - np.outer(g, g) / s**1.5) @ turned

    keywords = TIGHT | ({} if "rosen" in name else {"newton_iterations": 30})
    preconditioner = {"plain": None, "adagrad": adagrad(0.1), "natural": natural(-0.5)}[kind]
    new, state = step(
        IMPLICIT[name](**keywords, hvp=hvp),
        h,
        on_test_loss,
        jnp.asarray(START),
        preconditioner=preconditioner,
    )
    expected = dense_step(name, field, jacobian, START, h)
    np.testing.assert_allclose(np.asarray(new), expected, rtol=1e-9)
    assert int(state.method.unconverged) == 0
    assert float(state.method.residual) <= 1e-12


@pytest.mark.parametrize(
    ("name", "preconditioner"),
    [*((name, None) for name in IMPLICIT), ("crank_nicolson", natural())],
)
def test_every_evaluation_is_counted(name, preconditioner):
    # Evaluations that really happen at run time: a product runs the gradient and its derivative.
    calls = {"gradient": 0, "product": 0}

    def tell(kind):
        calls[kind] += 1

    @jax.custom_jvp
    def gradient(x):
        jax.debug.callback(lambda: tell("gradient"))
        return x**3 + 5 * x[::-1]

    @gradient.defjvp
    def _(primals, tangents):
        (x,), (v,) = primals, tangents
        jax.debug.callback(lambda: tell("product"))
        return x**3 + 5 * x[::-1], 3 * x**2 * v + 5 * v[::-1]

    x = jnp.array([2.0, 1.0, 0.5, -2.0])
    optimizer = runge_kutta(IMPLICIT[name](), 0.1, preconditioner=preconditioner)
    update = lambda s, x: optimizer.update(x**3 + 5 * x[::-1], s, x, grad_fn=gradient)  # noqa: E731
    _, state = jax.jit(update)(optimizer.init(x), x)
    jax.effects_barrier()
    assert calls["product"] == int(state.method.krylov_iterations) > 0
    assert int(state.grad_evals) == 1 + calls["gradient"] + 2 * calls["product"]


def test_conjugate_gradients_stop_at_negative_curvature(x64):
    # 1 + h H has the eigenvalues -4 and 2: the step goes along the gradient, and it is recorded.
    eigenvalues = jnp.array([-5.0, 1.0])
    x = jnp.array([1.0, 0.1])
    new, state = step(implicit_euler(newton_iterations=1), 1.0, lambda x: eigenvalues * x, x)
    np.testing.assert_allclose(np.asarray(new), np.asarray(x - eigenvalues * x))
    assert int(state.method.krylov_iterations) == 1
    assert int(state.method.unconverged) == 1


def test_what_is_not_solved_is_recorded():
    eigenvalues = jnp.asarray(np.logspace(0, 4, 40), float)
    _, state = step(implicit_euler(), 1.0, lambda x: eigenvalues * x, jnp.ones(40))
    assert int(state.method.unconverged) == 1
    assert float(state.method.residual) > 1e-3
    assert int(state.method.krylov_iterations) == 30


def test_a_gradient_that_is_no_number_is_passed_on():
    x = jnp.ones(3)
    for name in ("implicit_euler", "crank_nicolson", "rosenbrock_euler"):
        new, state = step(IMPLICIT[name](), 0.1, lambda x: x * jnp.nan, x)
        assert np.all(np.isnan(np.asarray(new))), name
        assert int(state.method.unconverged) == 1


def test_the_minimum_is_left_as_it_is():
    for name in ("sdirk2", "rosenbrock_euler"):
        new, state = step(IMPLICIT[name](), 0.1, lambda x: 2 * x, jnp.zeros(3))
        np.testing.assert_array_equal(np.asarray(new), 0)
        assert int(state.grad_evals) <= 3
        assert int(state.method.unconverged) == 0


def test_the_registry_composes_them():
    optimizer = optimizers.create(
        "implicit_euler", 5.0, preconditioner="modified_adagrad", tolerance=1e-2, clip_norm=0.5
    )
    x = jnp.array([1.0, 2.0])
    updates, _ = optimizer.update(x, optimizer.init(x), x, grad_fn=lambda x: x)
    assert np.linalg.norm(np.asarray(updates)) <= 2.5 * (1 + 1e-6)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"newton_iterations": 0}, "newton_iterations"),
        ({"krylov_iterations": 2.5}, "krylov_iterations"),
        ({"krylov_iterations": True}, "krylov_iterations"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"hvp": "backward"}, "hvp"),
    ],
)
def test_keywords_out_of_range_are_refused(keywords, message):
    with pytest.raises(UserError, match=message):
        implicit_euler(**keywords)
