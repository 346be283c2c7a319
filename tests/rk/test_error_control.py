"""Error control: the estimate's order, and the steps of scipy's and diffrax's solvers."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.integrate import RK23, RK45
from test_rules_and_methods import START, train
from test_runge_kutta import loss, numpy_gradient

from rkbench import optimizers, rk
from rkbench.errors import UserError
from rkbench.rk import (
    BS32,
    DOPRI5,
    EULER,
    HEUN,
    HEUN_EULER,
    RK4,
    TABLEAUS,
    Start,
    Tableau,
    error_control,
    explicit,
    rkc2,
)

# optax types updates and states as wide unions; here they are what they are.
runge_kutta: Any = rk.runge_kutta

PAIRS = [HEUN_EULER, BS32, RK4, DOPRI5]
each_pair = pytest.mark.parametrize("tableau", PAIRS, ids=lambda tableau: tableau.name)


def start_at(x, grad_fn=numpy_gradient):
    g = jnp.asarray(grad_fn(x))
    return Start(jnp.zeros((), jnp.int32), jnp.asarray(x), g, jax.grad(loss), lambda g: g, g)


def estimate(tableau, h, unroll=False):
    method = explicit(tableau, unroll, estimate_error=True)
    return jax.jit(lambda h: method.advance(start_at(START), h, ())[0::3])(jnp.asarray(h))


@each_pair
def test_the_estimate_is_that_of_the_tableau_and_has_the_embedded_order(tableau, x64):
    errors = []
    for h in (0.02, 0.01):
        ks = []
        for row in tableau.a:
            moved = sum((a * k for a, k in zip(row, ks, strict=False)), np.zeros(2))
            ks.append(numpy_gradient(START - h * moved))
        for unroll in (False, True):
            gradient, error = estimate(tableau, h, unroll)
            np.testing.assert_allclose(gradient, np.dot(tableau.b, ks), rtol=1e-13)
            expected = np.dot(np.subtract(tableau.b, tableau.b_embedded), ks)
            np.testing.assert_allclose(error, expected, rtol=1e-6, atol=1e-15)
        errors.append(h * np.linalg.norm(expected))
    # h ||g* - g_embedded|| is of the order of the embedded method's local error.
    order = np.log2(errors[0] / errors[1])
    assert order == pytest.approx(tableau.embedded_order + 1, abs=0.2)


@each_pair
def test_no_error_and_none_of_its_stages_where_no_rule_asks(tableau):
    advance = explicit(tableau).advance(start_at(START), jnp.asarray(0.1), ())
    assert advance.error is None
    assert advance.stages is None
    assert advance.grad_evals == tableau.evaluated_stages - 1
    asked = explicit(tableau, estimate_error=True).advance(start_at(START), jnp.asarray(0.1), ())
    assert asked.grad_evals == tableau.stages - 1
    np.testing.assert_array_equal(asked.gradient, advance.gradient)


SCIPY = {"bs32": RK23, "dopri5": RK45}


def steps_of_scipy(solver, rtol, atol, first_step, steps):
    """(h, x, accepted) of every step tried, by scipy's own code."""
    one = solver(
        lambda t, x: -numpy_gradient(x),
        0,
        START,
        np.inf,
        first_step=first_step,
        rtol=rtol,
        atol=atol,
    )
    tried, norms, norm = [], [], one._estimate_error_norm

    def recorded(stages, h, scale):
        norms.append(norm(stages, h, scale))
        tried.append((h, norms[-1] < 1))
        return norms[-1]

    one._estimate_error_norm = recorded
    points = []
    while len(tried) < steps:
        before = len(tried)
        one.step()
        points += [None] * (len(tried) - before - 1) + [one.y]
    return tried[:steps], points[:steps], norms[:steps]


@pytest.mark.parametrize("first_step", [1e-3, 8.0])
@pytest.mark.parametrize("name", SCIPY)
def test_the_steps_are_scipys(name, first_step, x64):
    """Steps, rejections and error norms, up to where stability limits the step and after it."""
    rtol, atol, steps = 1e-4, 1e-7, 40
    tried, points, norms = steps_of_scipy(SCIPY[name], rtol, atol, first_step, steps)
    rule = error_control(rtol, atol, first_step=first_step, norm="element", max_step=1e9)
    tableau = TABLEAUS[name]
    history = train(runge_kutta(tableau, rule), steps)
    rejected = 0
    for (h, accepted), point, norm, (x, state) in zip(
        tried, points, norms, history[1:], strict=True
    ):
        assert float(state.step_size) == pytest.approx(h, rel=1e-6)
        assert bool(state.rule.rejected) != accepted
        rejected += not accepted
        if accepted:
            np.testing.assert_allclose(x, point, rtol=1e-6, atol=1e-12)
            assert float(state.rule.error) == pytest.approx(norm, rel=1e-4)
    last = history[-1][1]
    assert rejected == int(last.rule.rejections)
    assert rejected >= 1 or first_step < 1
    assert int(last.grad_evals) == tableau.stages * steps  # rejected steps cost theirs


@pytest.mark.parametrize(
    ("name", "coefficients"),
    [("bs32", (0.2, 0.4, 0.1)), ("dopri5", (0.4, 0.3, 0.0))],
    ids=["PID", "PI"],
)
def test_the_steps_are_diffraxs(name, coefficients, x64):
    """diffrax shortens none after an accepted step, which is `factormin=1` without rejections.

    Its Dormand-Prince pair has another embedded method.
    """
    diffrax = pytest.importorskip("diffrax")
    pcoeff, icoeff, dcoeff = coefficients
    rtol, atol, steps = 1e-5, 1e-8, 7
    first_step = {"bs32": 1e-4, "dopri5": 1e-2}[name]  # with errors above rounding
    solver = {"bs32": diffrax.Bosh3, "dopri5": diffrax.Dopri5}[name]()
    control = diffrax.PIDController(
        rtol=rtol, atol=atol, pcoeff=pcoeff, icoeff=icoeff, dcoeff=dcoeff
    )
    with jax.numpy_dtype_promotion("standard"):
        found = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, x, args: -jax.grad(loss)(x)),
            solver,
            *(0.0, 1e3, first_step, jnp.asarray(START)),
            stepsize_controller=control,
            saveat=diffrax.SaveAt(steps=True),
            max_steps=steps,
            throw=False,
        )
    times = np.concatenate([[0.0], np.asarray(found.ts)])
    assert int(found.stats["num_rejected_steps"]) == 0
    rule = error_control(
        *(rtol, atol, first_step),
        pcoeff=pcoeff, icoeff=icoeff, dcoeff=dcoeff, norm="element", factormin=1.0,
    )  # fmt: skip
    tableau = TABLEAUS[name]
    embedded = tuple(np.subtract(tableau.b, solver.tableau.b_error))
    tableau = dataclasses.replace(tableau, b_embedded=embedded)
    history = train(runge_kutta(tableau, rule), steps)
    sizes = [float(state.step_size) for _, state in history[1:]]
    np.testing.assert_allclose(sizes, np.diff(times), rtol=1e-6)
    np.testing.assert_allclose([x for x, _ in history[1:]], found.ys, rtol=1e-9)


@each_pair
def test_the_global_error_follows_the_tolerance(tableau, x64):
    """On a linear flow of time 1 the global error is at most some tens of the tolerance."""
    hessian = jnp.asarray([[1.5, 0.4], [0.4, 0.5]])
    objective = lambda x: 0.5 * x @ hessian @ x  # noqa: E731
    w, v = np.linalg.eigh(np.asarray(hessian))
    for rtol in (1e-2, 1e-4):
        optimizer = runge_kutta(tableau, error_control(rtol, rtol * 1e-3))
        history, time, worst = train(optimizer, 120, objective), 0.0, 0.0
        for x, state in history[1:]:
            time += float(state.step_size) * (1 - bool(state.rule.rejected))
            exact = v @ (np.exp(-w * time) * (v.T @ START))
            worst = max(worst, float(np.linalg.norm(np.asarray(x) - exact)))
            if time > 1:
                break
        assert time > 1
        assert worst < 20 * rtol


def test_a_rejected_step_moves_nothing_and_one_without_rejection_is_taken(x64):
    parts = {"preconditioner": rk.adagrad(0.1), "momentum": 0.5}
    start = jnp.asarray(START)
    for rejection in (True, False):
        rule = error_control(1e-6, 1e-9, first_step=5.0, rejection=rejection)
        history = train(runge_kutta(RK4, rule, **parts), 2)
        (_, first), (x, state), (_, next_state) = history
        assert bool(jnp.all(x == start)) == rejection
        assert bool(jnp.all(state.momentum == first.momentum)) == rejection
        kept = state.preconditioner.sum_of_squares == first.preconditioner.sum_of_squares
        assert bool(jnp.all(kept)) == rejection
        assert int(state.grad_evals) == 4
        assert int(state.rule.rejections) == int(rejection)
        assert float(next_state.step_size) == pytest.approx(1.0)  # by factormin


def test_steps_do_not_end_in_zero_infinity_or_nan():
    # At a minimum there is no error: the step grows to its cap and stays.
    rule = error_control(first_step=1.0, max_step=50.0)
    history = train(runge_kutta(BS32, rule), 5, lambda x: 0 * jnp.sum(x))
    assert [float(s.step_size) for _, s in history[1:]] == [1, 10, 50, 50, 50]
    # Where the stages overflow, the step is shortened.
    rule = error_control(first_step=1e30, max_step=1e30)
    history = train(runge_kutta(RK4, rule), 60, lambda x: jnp.sum(x**4))
    assert bool(history[1][1].rule.rejected)
    assert float(history[2][1].step_size) == pytest.approx(2e29)
    assert all(bool(jnp.all(jnp.isfinite(x))) for x, _ in history)
    assert not bool(history[-1][1].rule.rejected)
    # A gradient that is no number for good: h shrinks and stays a number above 0.
    rule = error_control(first_step=1e-30)
    history = train(runge_kutta(RK4, rule), 30, lambda x: jnp.sum(x) * jnp.nan)
    assert float(history[-1][1].step_size) > 0


@pytest.mark.parametrize("norm", ["vector", "element"])
def test_narrow_and_complex_parameters_and_traced_numbers(norm):
    params = {
        "half": jnp.array([1.0, -2.0], jnp.bfloat16),
        "complex": jnp.array([1 + 2j, 0.5j], jnp.complex64),
        "none": jnp.zeros((0, 3)),
    }

    @jax.jit
    def step(params, state, rtol):
        optimizer = optimizers.create("rk4", step_size="error_control", rtol=rtol, norm=norm)
        updates, state = optimizer.update(params, state, params, grad_fn=lambda p: p)
        return optax.apply_updates(params, updates), state

    state = optimizers.create("rk4", step_size="error_control", norm=norm).init(params)
    before = jax.tree.map(lambda x: x.dtype, (params, state))
    for _ in range(10):
        params, state = step(params, state, 1e-2)
    assert jax.tree.map(lambda x: x.dtype, (params, state)) == before
    assert step._cache_size() == 1
    assert float(jnp.abs(params["complex"]).max()) < 2
    assert float(state.step_size) > 0.1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: error_control(rtol=-1.0), "rtol must be a finite number >= 0"),
        (lambda: error_control(atol=0.0), "atol must be a finite number > 0"),
        (lambda: error_control(first_step=0.0), "first_step must be a finite number > 0"),
        (lambda: error_control(max_step=np.inf), "max_step must be a finite number > 0"),
        (lambda: error_control(safety=1.5), r"safety must be a number in \(0, 1\]"),
        (lambda: error_control(factormin=0.0), r"factormin must be a number in \(0, 1\]"),
        (lambda: error_control(factormax=0.5), "factormax must be a finite number >= 1"),
        (lambda: error_control(icoeff=np.nan), "icoeff must be a finite number"),
        (lambda: error_control(norm="rms"), "unknown norm 'rms'; nearest: vector, element"),
        (
            lambda: error_control(rejection="no"),  # pyright: ignore
            "rejection must be True or False, not 'no'",
        ),
        (lambda: runge_kutta(EULER, error_control()), "needs an estimate.*'euler'.*bs32, dopri5"),
        (lambda: runge_kutta(HEUN, error_control()), "needs an estimate.*'heun'"),
        (lambda: runge_kutta(rkc2(4), error_control()), "needs an estimate.*'rkc2'"),
        (lambda: runge_kutta(explicit(RK4), error_control()), "needs an estimate.*'rk4'"),
        (
            lambda: optimizers.create("kutta3", step_size="error_control"),
            "needs an estimate.*'kutta3'.*heun_euler, bs32",
        ),
    ],
)
def test_mistakes_are_refused(make, message):
    with pytest.raises(UserError, match=message) as refusal:
        make()
    assert "\n" not in str(refusal.value)


def test_a_table_of_ones_own_takes_part():
    pair = Tableau("mine", ((), (0.5,)), (0, 1), 2, b_embedded=(1, 0), embedded_order=1)
    state = train(runge_kutta(pair, error_control()), 3)[-1][1]
    assert int(state.grad_evals) == 6
