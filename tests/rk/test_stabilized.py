"""Stabilised methods: their polynomials, order, stability, cost, and an independent library."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.polynomial import Chebyshev, Legendre
from test_runge_kutta import follow, measured_order, numpy_gradient

from rkbench import optimizers
from rkbench.errors import UserError
from rkbench.rk import rkc1, rkc2, rkl2, runge_kutta

STAGES = (2, 3, 4, 8, 16)


def chebyshev_1(stages, z, damping=0.05):
    w0, t = 1 + damping / stages**2, Chebyshev.basis(stages)
    return t(w0 + t(w0) / t.deriv()(w0) * z) / t(w0)


def chebyshev_1_monotone(stages, z, damping=0.05):
    w0, t = 1 + damping / stages**2, Chebyshev.basis(stages)
    return (1 + t(w0 + (1 + t(w0)) / t.deriv()(w0) * z)) / (1 + t(w0))


def chebyshev_2(stages, z, damping=2 / 13):
    w0, t = 1 + damping / stages**2, Chebyshev.basis(stages)
    b = t.deriv(2)(w0) / t.deriv()(w0) ** 2
    return 1 - b * t(w0) + b * t(w0 + t.deriv()(w0) / t.deriv(2)(w0) * z)


def legendre_2(stages, z):
    b = (stages**2 + stages - 2) / (2 * stages * (stages + 1))
    return 1 - b + b * Legendre.basis(stages)(1 + 4 / (stages**2 + stages - 2) * z)


POLYNOMIALS = {
    "rkc1": (rkc1, chebyshev_1),
    "rkc1_monotone": (lambda stages: rkc1(stages, monotone=True), chebyshev_1_monotone),
    "rkc2": (rkc2, chebyshev_2),
    "rkl2": (rkl2, legendre_2),
}
each = pytest.mark.parametrize("name", POLYNOMIALS)


@each
@pytest.mark.parametrize("stages", STAGES)
def test_a_step_on_a_quadratic_is_the_stability_polynomial(x64, name, stages):
    factory, polynomial = POLYNOMIALS[name]
    z = -np.linspace(0, 0.5 * stages**2, 50)  # h = 1: the Hessian's eigenvalues are -z
    eigenvalues, start = jnp.asarray(-z), jnp.ones(50)

    def gradient(x):
        return eigenvalues * x

    optimizer = runge_kutta(factory(stages), 1.0)
    updates, state = optimizer.update(
        gradient(start), optimizer.init(start), start, grad_fn=gradient
    )
    expected = polynomial(stages, z)
    new = optax.apply_updates(start, updates)
    np.testing.assert_allclose(np.asarray(new), expected, rtol=0, atol=1e-12 * stages**2)
    np.testing.assert_allclose(factory(stages).amplification(z), expected, atol=1e-12 * stages**2)
    assert int(state.grad_evals) == stages


@each
@pytest.mark.parametrize("stages", [3, 8])
def test_order_of_convergence(x64, name, stages):
    method = POLYNOMIALS[name][0](stages)
    steps = {1: 64, 2: 8}[method.order]
    assert measured_order(method, numpy_gradient, steps) == pytest.approx(method.order, abs=0.2)


# Lengths of the real stability interval; in the order of the literature's examples.
@pytest.mark.parametrize(
    ("method", "beta"),
    [
        (rkc1(4), 31.04),
        (rkc1(8), 123.96),
        (rkc2(4), 9.85),
        (rkc2(8), 41.22),
        (rkl2(3), 5.81),
        (rkl2(8), 35.0),
    ],
)
def test_the_interval_of_stability(method, beta):
    z = np.linspace(1e-6, 1.5 * beta, 200_000)
    unstable = np.abs(method.amplification(-z)) > 1
    assert z[np.argmax(unstable)] == pytest.approx(beta, abs=0.01)


@pytest.mark.parametrize("stages", STAGES)
def test_a_monotone_polynomial_never_changes_a_sign(stages):
    w0 = 1 + 0.05 / stages**2
    t = Chebyshev.basis(stages)
    beta = (w0 + 1) * t.deriv()(w0) / (1 + t(w0))
    r = rkc1(stages, monotone=True).amplification(-np.linspace(0, beta, 10_000))
    assert r.min() > -1e-12
    assert beta > 0.9 * stages**2
    assert rkc1(stages).amplification(-np.linspace(0, beta, 10_000)).min() < -0.9


@pytest.mark.parametrize("stages", [2, 4, 9])
@pytest.mark.parametrize(("ours", "theirs"), [(rkc1, "RKC1"), (rkc2, "RKC2")])
def test_the_stages_are_those_of_an_independent_library(ours, theirs, stages):
    library = pytest.importorskip("nodepy.runge_kutta_method")
    damping = 0.05 if theirs == "RKC1" else 2 / 13
    table = getattr(library, theirs)(stages, damping)
    rows = np.vstack([np.array(table.A, float), np.array(table.b, float)])
    np.testing.assert_allclose(_as_tableau(ours(stages, damping)), rows, atol=1e-12)


def _as_tableau(method) -> np.ndarray:
    """The rows of the Butcher tableau, a and then b, that a recurrence amounts to."""
    rows = np.zeros((method.stages + 1, method.stages))
    rows[1, 0] = method.to_new[0]
    for j in range(1, method.stages):
        rows[j + 1] = method.to_last[j] * rows[j] + method.to_before[j] * rows[j - 1]
        rows[j + 1, j] += method.to_new[j]
        rows[j + 1, 0] += method.to_first[j]
    return rows


@each
def test_unrolled_stages_are_the_loop(x64, name):
    method = POLYNOMIALS[name][0](5)
    x = jnp.array([1.2, -0.7])
    looped, unrolled = (
        follow(method, x, 1.0, 3, unroll_stages=unroll)[0] for unroll in (False, True)
    )
    np.testing.assert_allclose(looped, unrolled, rtol=1e-14)


def test_the_gradient_is_traced_once_however_many_stages():
    def traces(stages):
        count = 0

        def gradient(x):
            nonlocal count
            count += 1
            return x**3

        optimizer = runge_kutta(rkc2(stages), 0.1)
        x = jnp.ones(3)
        jax.jit(lambda x, s: optimizer.update(x**3, s, x, grad_fn=gradient)).lower(
            x, optimizer.init(x)
        )
        return count

    assert traces(4) == traces(64)


def test_the_registry_composes_them():
    optimizer = optimizers.create(
        "rkc1", 0.5, stages=6, preconditioner="modified_adagrad", momentum=0.9
    )
    x = jnp.array([1.0, 2.0])
    updates, state = optimizer.update(x, optimizer.init(x), x, grad_fn=lambda x: x)
    assert int(optimizers.grad_evals(state)) == 6
    assert np.all(np.asarray(optax.apply_updates(x, updates)) < np.asarray(x))


@pytest.mark.parametrize("stages", [1, 0, 2.5, True, "4", 10_001])
def test_stages_that_are_none_are_refused(stages):
    with pytest.raises(UserError, match="stages"):
        rkc1(stages)


def test_negative_damping_is_refused():
    with pytest.raises(UserError, match="damping"):
        rkc2(4, -0.1)
