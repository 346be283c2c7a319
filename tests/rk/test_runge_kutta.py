"""The Runge-Kutta step by mathematics: order, stability polynomial, momentum, structure."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.integrate import solve_ivp
from test_tableaus import BOGACKI_SHAMPINE

from rkbench import rk
from rkbench.rk import (
    EULER,
    KUTTA3,
    RK4,
    TABLEAUS,
    Tableau,
    dalr,
    natural,
    rk2,
    rk_gradient,
)

# optax types updates and states as wide unions; here they are what they are.
runge_kutta: Any = rk.runge_kutta
chain: Any = optax.chain

METHODS = [*TABLEAUS.values(), rk2(0.3), BOGACKI_SHAMPINE]
each_method = pytest.mark.parametrize("tableau", METHODS, ids=lambda tableau: tableau.name)


def loss(x):
    """Non-linear and not separable, with its minimum at the origin; x has shape [2]."""
    return 0.25 * x[0] ** 4 + 0.5 * (x[1] - jnp.sin(x[0])) ** 2 + 0.5 * x[0] ** 2


def follow(tableau, x, time, steps, **parts):
    """The parameters after `steps` steps of time / steps each."""
    optimizer = runge_kutta(tableau, time / steps, **parts)

    @jax.jit
    def run(x):
        def step(carry, _):
            x, state = carry
            updates, state = optimizer.update(jax.grad(loss)(x), state, x, grad_fn=jax.grad(loss))
            return (optax.apply_updates(x, updates), state), None

        return jax.lax.scan(step, (x, optimizer.init(x)), length=steps)[0]

    return run(x)


def measured_order(tableau, field, steps, start=(1.2, -0.7), **parts):
    """log2 of how much the error at time 1 falls from `steps` steps to twice as many."""
    start = np.array(start)
    exact = solve_ivp(
        lambda t, x: -np.asarray(field(x)), (0, 1), start, "DOP853", rtol=3e-14, atol=1e-16
    ).y[:, -1]
    errors = [
        np.linalg.norm(np.asarray(follow(tableau, jnp.asarray(start), 1.0, n, **parts)[0]) - exact)
        for n in (steps, 2 * steps)
    ]
    return np.log2(errors[0] / errors[1])


def numpy_gradient(x):
    return np.array([x[0] ** 3 - (x[1] - np.sin(x[0])) * np.cos(x[0]) + x[0], x[1] - np.sin(x[0])])


def numpy_rk4(field, x, h):
    """Equations (36)-(40) for x' = -field(x), as a gradient."""
    k1 = field(x)
    k2 = field(x - h / 2 * k1)
    k3 = field(x - h / 2 * k2)
    k4 = field(x - h * k3)
    return (k1 + 2 * k2 + 2 * k3 + k4) / 6


@each_method
def test_measured_order_of_convergence_on_the_gradient_flow(tableau, x64):
    # At order 5 the error is soon that of rounding: fewer steps, from where the fifth power leads.
    where = {"steps": 64} if tableau.order < 5 else {"steps": 24, "start": (0.6, 1.5)}
    order = measured_order(tableau, numpy_gradient, **where)
    assert order == pytest.approx(tableau.order, abs=0.2)


@pytest.mark.parametrize("alpha", [-1.0, -0.5])
def test_measured_order_on_the_natural_flow(alpha, x64):
    def field(x):
        g = numpy_gradient(x)
        return (1 + g @ g) ** alpha * g

    order = measured_order(RK4, field, steps=16, preconditioner=natural(alpha))
    assert order == pytest.approx(4, abs=0.2)


@each_method
@pytest.mark.parametrize("unroll", [False, True])
def test_step_on_a_quadratic_is_the_stability_polynomial(tableau, unroll, x64):
    rng = np.random.default_rng(0)
    root = rng.normal(size=(4, 4))
    hessian, theta, h = root @ root.T, rng.normal(size=4), 0.3
    optimizer = runge_kutta(tableau, h, unroll_stages=unroll)
    params = jnp.asarray(theta)
    grad_fn = lambda x: jnp.asarray(hessian) @ x  # noqa: E731
    step = jax.jit(lambda g, s, p: optimizer.update(g, s, p, grad_fn=grad_fn)[0])
    updates = step(grad_fn(params), optimizer.init(params), params)
    # theta' = R(-h H) theta
    expected = sum(
        coefficient * np.linalg.matrix_power(-h * hessian, k) @ theta
        for k, coefficient in enumerate(tableau.stability_polynomial)
    )
    error = np.linalg.norm(np.asarray(params + updates) - expected)
    assert error <= 2e-14 * np.linalg.norm(expected)


def test_rk4_gradient_against_numpy(x64):
    x, h = np.array([0.4, -1.1]), 0.37
    found = rk_gradient(RK4, jax.grad(loss), jnp.asarray(x), jnp.asarray(numpy_gradient(x)), h)
    np.testing.assert_allclose(found, numpy_rk4(numpy_gradient, x, h), rtol=1e-14)


def test_momentum_against_a_numpy_recursion(x64):
    x, m, h, beta = np.array([1.2, -0.7]), np.zeros(2), 0.2, 0.9
    found, state = follow(RK4, jnp.asarray(x), 5 * h, 5, momentum=beta)
    for _ in range(5):
        m = beta * m + numpy_rk4(numpy_gradient, x, h)  # Eq. (9)
        x = x - h * m  # Eq. (10)
    np.testing.assert_allclose(found, x, rtol=1e-13)
    np.testing.assert_allclose(state.momentum, m, rtol=1e-13)


@pytest.mark.parametrize("schedule", [False, True], ids=["constant", "schedule"])
@pytest.mark.parametrize("momentum", [None, 0.9])
def test_euler_is_optax_sgd_bit_for_bit(schedule, momentum):
    rate = (lambda count: 0.37 / (1 + count.astype(jnp.float32))) if schedule else 0.37
    start = {"w": jax.random.normal(jax.random.key(0), (5, 3)), "b": jnp.full((2,), 0.3)}

    def objective(p):
        return jnp.sum(jnp.cosh(p["w"])) + 0.25 * jnp.sum(p["b"] ** 4) + p["b"][0] * p["w"][0, 0]

    trajectories = []
    for optimizer in (runge_kutta(EULER, rate, momentum=momentum), optax.sgd(rate, momentum)):
        optimizer = optax.with_extra_args_support(optimizer)

        @jax.jit
        def step(params, state, optimizer=optimizer):
            grad_fn = jax.grad(objective)
            updates, state = optimizer.update(grad_fn(params), state, params, grad_fn=grad_fn)
            return optax.apply_updates(params, updates), state

        params, state = start, optimizer.init(start)
        for _ in range(6):
            params, state = step(params, state)
        trajectories.append(params)
    jax.tree.map(np.testing.assert_array_equal, *trajectories)
    assert float(jnp.max(jnp.abs(trajectories[0]["w"] - start["w"]))) > 0.1


@pytest.mark.parametrize(
    "tableau", [t for t in METHODS if t.is_chain], ids=lambda tableau: tableau.name
)
def test_looped_and_unrolled_stages_agree_to_rounding(tableau):
    x = jnp.array([1.2, -0.7])
    looped, unrolled = (
        follow(tableau, x, 2.0, 10, unroll_stages=unroll)[0] for unroll in (False, True)
    )
    np.testing.assert_allclose(looped, unrolled, rtol=2e-6)


@pytest.mark.parametrize(
    ("tableau", "unroll", "traces"),
    [
        (RK4, None, 1),
        (RK4, False, 1),
        (RK4, True, 3),
        (KUTTA3, None, 2),
        (EULER, None, 0),
        (BOGACKI_SHAMPINE, True, 2),
        (BOGACKI_SHAMPINE, False, 1),
    ],
    ids=str,
)
def test_gradient_is_traced_once_in_a_loop_and_never_at_the_first_stage(tableau, unroll, traces):
    calls = []

    def grad_fn(x):
        calls.append(x)
        return jax.grad(loss)(x)

    x = jnp.array([1.0, 2.0])
    optimizer = runge_kutta(tableau, 0.1, unroll_stages=unroll)
    step = lambda g, s, p: optimizer.update(g, s, p, grad_fn=grad_fn)  # noqa: E731
    jax.make_jaxpr(step)(jax.grad(loss)(x), optimizer.init(x), x)
    assert len(calls) == traces


@pytest.mark.parametrize(
    ("tableau", "rate", "evaluations"),
    [(EULER, 0.1, 1), (RK4, 0.1, 4), (BOGACKI_SHAMPINE, 0.1, 3), (RK4, dalr(), 6)],
    ids=["euler", "rk4", "first-same-as-last", "rk4-dalr"],
)
def test_gradient_evaluations_are_counted(tableau, rate, evaluations):
    optimizer, x = runge_kutta(tableau, rate), jnp.ones(2)
    state = optimizer.init(x)
    for _ in range(3):
        _, state = optimizer.update(jax.grad(loss)(x), state, x, grad_fn=jax.grad(loss))
    assert state.grad_evals == 3 * evaluations
    assert state.count == 3


def test_schedule_is_read_at_the_step_count():
    rate = optax.linear_schedule(1.0, 0.0, 4)
    optimizer, x = runge_kutta(RK4, rate), jnp.ones(2)
    state, sizes = optimizer.init(x), []
    for _ in range(4):
        _, state = optimizer.update(jax.grad(loss)(x), state, x, grad_fn=jax.grad(loss))
        sizes.append(float(state.step_size))
    assert sizes == [1.0, 0.75, 0.5, 0.25]


def test_vmap_over_parameters_equals_one_after_the_other():
    optimizer = runge_kutta(RK4, dalr(c=2.0), preconditioner=natural(), momentum=0.9)

    def two_steps(x):
        state = optimizer.init(x)
        for _ in range(2):
            updates, state = optimizer.update(jax.grad(loss)(x), state, x, grad_fn=jax.grad(loss))
            x = x + updates
        return x

    starts = jax.random.normal(jax.random.key(1), (3, 2))
    one_by_one = jnp.stack([*map(jax.jit(two_steps), starts)])
    np.testing.assert_allclose(
        jax.jit(jax.vmap(two_steps))(starts), one_by_one, rtol=1e-5, atol=1e-6
    )


def test_bfloat16_and_float32_leaves_keep_their_dtypes():
    params = {"low": jnp.full((4,), 2.0, jnp.bfloat16), "high": jnp.full((2,), 3.0, jnp.float32)}

    def objective(p):
        return 0.5 * jnp.sum(p["low"].astype(jnp.float32) ** 2) + 0.5 * jnp.sum(p["high"] ** 2)

    optimizer = runge_kutta(RK4, dalr(c=1.0), preconditioner=natural(), momentum=0.9)
    grad_fn = jax.grad(objective)
    updates, state = optimizer.update(
        grad_fn(params), optimizer.init(params), params, grad_fn=grad_fn
    )
    assert optax.tree.dtype(updates["low"]) == jnp.bfloat16
    assert optax.tree.dtype(updates["high"]) == jnp.float32
    dtypes = [jax.tree.map(lambda x: x.dtype, s) for s in (state, optimizer.init(params))]
    assert dtypes[0] == dtypes[1]
    np.testing.assert_allclose(
        updates["low"].astype(jnp.float32), updates["high"][0] * 2 / 3, rtol=0.02
    )


def test_clipping_after_the_step_and_inside_the_field():
    x, clip = jnp.array([3.0, -2.0]), optax.clip_by_global_norm(0.5)
    grad_fn = jax.grad(loss)
    after = chain(runge_kutta(RK4, 0.1), clip)
    plain = runge_kutta(RK4, 0.1)
    step, _ = plain.update(grad_fn(x), plain.init(x), x, grad_fn=grad_fn)
    clipped, _ = after.update(grad_fn(x), after.init(x), x, grad_fn=grad_fn)
    np.testing.assert_allclose(clipped, 0.5 * step / jnp.linalg.norm(step), rtol=1e-6)

    def clipped_field(x):
        return clip.update(grad_fn(x), clip.init(x))[0]

    # Where every stage is clipped, the step is h times a mean of vectors of length 0.5.
    inside, _ = plain.update(clipped_field(x), plain.init(x), x, grad_fn=clipped_field)
    expected = -0.1 * numpy_rk4(lambda y: np.asarray(clipped_field(jnp.asarray(y))), x, 0.1)
    np.testing.assert_allclose(inside, expected, rtol=1e-5)


def test_update_without_grad_fn_says_who_needs_it_and_why():
    optimizer, x = runge_kutta(RK4, 0.1), jnp.ones(2)
    with pytest.raises(TypeError, match=r"'rk4'.*grad_fn.*same batch.*further points"):
        optimizer.update(x, optimizer.init(x), x)
    with pytest.raises(TypeError, match=r"needs params"):
        optimizer.update(x, optimizer.init(x), grad_fn=jax.grad(loss))


def test_euler_does_without_grad_fn():
    optimizer, x = runge_kutta(EULER, 0.1), jnp.ones(2)
    np.testing.assert_array_equal(optimizer.update(x, optimizer.init(x), x)[0], -0.1 * x)
    with pytest.raises(TypeError, match="grad_fn"):
        runge_kutta(EULER, dalr()).update(x, optimizer.init(x), x)


def test_tableau_with_a_first_weight_of_zero_and_long_memory():
    """A method that is no chain, with zeros where a stage or weight is left out, against numpy."""
    tableau = Tableau("mine", ((), (1.0,), (0.0, 0.5)), (0.0, 0.0, 1.0), order=1)
    x, h = np.array([0.3, 0.8]), 0.4
    k2 = numpy_gradient(x - h * numpy_gradient(x))
    expected = numpy_gradient(x - h * 0.5 * k2)
    for chain in (tableau, Tableau("mine", ((), (1.0,), (1e-300, 0.5)), (0, 0, 1), order=1)):
        found = rk_gradient(
            chain, jax.grad(loss), jnp.asarray(x), jnp.asarray(numpy_gradient(x)), h
        )
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert tableau.is_chain
    assert not chain.is_chain


def test_clipping_shortens_the_rk_gradient_before_momentum(x64):
    x, m, h, beta, longest = np.array([1.2, -0.7]), np.zeros(2), 0.2, 0.9, 0.3
    found, _ = follow(RK4, jnp.asarray(x), 5 * h, 5, momentum=beta, clip_norm=longest)
    for _ in range(5):
        g = numpy_rk4(numpy_gradient, x, h)
        m = beta * m + g * min(1, longest / np.linalg.norm(g))
        x = x - h * m
    np.testing.assert_allclose(found, x, rtol=1e-13)
