"""The step-size rules, DALR against a dense Hessian."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from rkbench import rk
from rkbench.errors import UserError
from rkbench.rk import EULER, HEUN, RK4, SSPRK3, Start, adagrad, dal, dalr, fixed, rkc1

# optax types updates and states as wide unions; here they are what they are.
runge_kutta: Any = rk.runge_kutta


def network_loss(params):
    """A small network's mean cross-entropy on six fixed examples."""
    inputs = np.random.default_rng(3).normal(size=(6, 4))
    hidden = jnp.tanh(inputs @ params["w"])
    logits = hidden @ params["v"] + jnp.broadcast_to(params["b"], (6, 3))
    labels = np.eye(3)[np.arange(6) % 3]
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - jnp.sum(labels * logits, axis=1))


def network_params():
    rng = np.random.default_rng(0)
    shapes = {"w": (4, 5), "v": (5, 3), "b": (3,)}
    return {name: jnp.asarray(rng.normal(size=shape)) for name, shape in shapes.items()}


def rule_step_size(rule, params, grad_fn):
    g = grad_fn(params)
    start = Start(jnp.zeros((), jnp.int32), params, g, grad_fn, lambda g: g, g)
    return rule.choose(start, rule.init(params)).step_size


def test_dalr_against_a_dense_hessian(x64):
    params = network_params()
    ratio = dense_ratio(params)
    step_size = jax.jit(lambda c, p: rule_step_size(dalr(c, p), params, jax.grad(network_loss)))
    for c, p in ((4.0, 0.8), (1.0, 0.8), (0.5, 2.0), (100.0, 1.0), (2.0, 0.0)):
        expected = c / (1 + c / 2 * ratio**p)  # Eq. (8)
        assert float(step_size(c, p)) == pytest.approx(expected, rel=1e-12)
        assert expected < c


def test_dalr_never_exceeds_its_cap_and_reaches_it_without_curvature():
    flat = lambda x: jnp.full_like(x, 2.0)  # a constant gradient: H = 0  # noqa: E731
    steep = lambda x: 1e8 * x  # noqa: E731
    x = jnp.ones(3)
    assert rule_step_size(dalr(c=3.0), x, flat) == 3.0
    assert 0 < rule_step_size(dalr(c=3.0, p=1.0), x, steep) == pytest.approx(2e-8)


def test_dalr_at_a_critical_point_is_its_cap():
    minimum = jnp.zeros(3)
    for p in (0.0, 0.8, 2.0):
        assert rule_step_size(dalr(c=4.0, p=p), minimum, lambda x: 5.0 * x) == 4.0


def step_of(rate, params, **parts):
    """One compiled RK4 step: the update, flattened, and the step size taken."""

    @jax.jit
    def step(params):
        optimizer, grad_fn = runge_kutta(RK4, rate, **parts), jax.grad(network_loss)
        state = optimizer.init(params)
        updates, state = optimizer.update(grad_fn(params), state, params, grad_fn=grad_fn)
        return ravel_pytree(updates)[0], state.step_size

    return step(params)


def test_rk4_dalr_step_is_the_rk4_step_of_that_size(x64):
    updates, h = step_of(dalr(4.0, 0.8), network_params())
    expected, _ = step_of(float(h), network_params())
    np.testing.assert_allclose(updates, expected, rtol=1e-12)


def test_dalr_with_a_preconditioner_measures_the_loss_itself(x64):
    _, plain = step_of(dalr(4.0, 0.8), network_params())
    _, preconditioned = step_of(dalr(4.0, 0.8), network_params(), preconditioner=adagrad(0.1))
    assert float(preconditioned) == pytest.approx(float(plain), rel=1e-14)


def test_dalr_with_traced_c_and_p():
    x, grad_fn = jnp.ones(2), lambda x: 3.0 * x
    found = jax.jit(lambda c, p: rule_step_size(dalr(c, p), x, grad_fn))(2.0, 1.0)
    assert float(found) == pytest.approx(2 / (1 + 3), rel=1e-6)


def dense_ratio(params):
    """||H g|| / ||g|| by a dense Hessian."""
    flat, unravel = ravel_pytree(params)
    objective = lambda x: network_loss(unravel(x))  # noqa: E731
    gradient, hessian = jax.jit(lambda x: (jax.grad(objective)(x), jax.hessian(objective)(x)))(flat)
    return np.linalg.norm(hessian @ gradient) / np.linalg.norm(gradient)


def test_dal_against_a_dense_hessian_is_the_limit_of_dalr(x64):
    params, grad_fn = network_params(), jax.grad(network_loss)
    ratio = dense_ratio(params)
    step_size = jax.jit(lambda p, cap: rule_step_size(dal(p, cap), params, grad_fn))
    for p in (1.0, 0.5):
        found = float(step_size(p, 1e6))
        assert found == pytest.approx(2 / ratio**p, rel=1e-12)
        assert float(step_size(p, found / 2)) == found / 2
        assert float(rule_step_size(dalr(1e9, p), params, grad_fn)) == pytest.approx(found)


def test_dal_without_curvature_is_its_cap():
    for grad_fn, x in ((lambda x: jnp.full_like(x, 2.0), jnp.ones(3)), (lambda x: x, jnp.zeros(3))):
        assert rule_step_size(dal(max_step=3.0), x, grad_fn) == 3.0


def steps_of(rule, tableau, steps, **parts):
    """Parameters before each step, and the states after, on the network's loss."""
    optimizer = runge_kutta(tableau, rule, **parts)

    @jax.jit
    def step(params, state):
        grad_fn = jax.grad(network_loss)
        updates, state = optimizer.update(grad_fn(params), state, params, grad_fn=grad_fn)
        return jax.tree.map(jnp.add, params, updates), state

    params = network_params()
    points, states = [], [optimizer.init(params)]
    for _ in range(steps):
        points.append(params)
        params, state = step(params, states[-1])
        states.append(state)
    return points, states[1:]


@pytest.mark.parametrize("tableau", [RK4, HEUN, SSPRK3], ids=lambda tableau: tableau.name)
def test_dalr_by_stages_measures_the_exact_ratio_up_to_order_h(tableau, x64):
    exact, off = dense_ratio(network_params()), []
    for c in (0.4, 0.2):  # the first step has length c / 100
        _, (state,) = steps_of(dalr(c, curvature="stages"), tableau, 1)
        assert float(state.step_size) == pytest.approx(c / 100)
        off.append(abs(float(state.rule) - exact))
    assert 0 < off[1] < 0.05 * exact
    assert np.log2(off[0] / off[1]) == pytest.approx(1, abs=0.2)


def test_dalr_by_stages_follows_the_exact_rule_a_step_later_for_four_evaluations(x64):
    c, p = 0.5, 0.8
    points, states = steps_of(dalr(c, p, curvature="stages"), RK4, 12)
    for before, state in zip(points, states[1:], strict=False):
        late = float(rule_step_size(dalr(c, p), before, jax.grad(network_loss)))
        assert float(state.step_size) == pytest.approx(late, rel=0.1)
    assert int(states[-1].grad_evals) == 4 * 12
    assert int(steps_of(dalr(c, p), RK4, 1)[1][-1].grad_evals) == 6


def test_dalr_by_stages_keeps_its_ratio_where_there_is_none_to_measure():
    optimizer = runge_kutta(RK4, dalr(2.0, curvature="stages"))
    x, state = jnp.zeros(2), optimizer.init(jnp.zeros(2))
    for curvature, ratio in ((3.0, -1.0), (jnp.nan, -1.0)):  # a critical point; no number
        grad_fn = lambda x, curvature=curvature: curvature * x  # noqa: E731
        _, state = optimizer.update(grad_fn(x), state, x, grad_fn=grad_fn)
        assert float(state.rule) == ratio
        assert float(state.step_size) == pytest.approx(0.02)


@pytest.mark.parametrize("method", [EULER, rkc1(4)], ids=["euler", "rkc1"])
def test_dalr_by_stages_needs_two_stages(method):
    with pytest.raises(UserError, match=f"two stages.*'{method.name}'.*curvature='exact'"):
        runge_kutta(method, dalr(curvature="stages"))


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (lambda: dalr(c=0.0), "c must be a finite number > 0"),
        (lambda: dalr(c=-1.0), "c must be a finite number > 0"),
        (lambda: dalr(c=np.inf), "c must be a finite number > 0"),
        (lambda: dalr(p=-0.1), "p must be a finite number >= 0"),
        (lambda: dalr(p=np.nan), "p must be a finite number >= 0"),
        (lambda: dalr(curvature="exakt"), "unknown curvature 'exakt'; nearest: exact"),
        (lambda: dal(p=-1.0), "p must be a finite number >= 0"),
        (lambda: dal(max_step=0.0), "max_step must be a finite number > 0"),
        (lambda: dal(hvp="backward"), "unknown hvp 'backward'"),
        (lambda: fixed(-0.1), "learning_rate must be a finite number >= 0"),
        (lambda: fixed(np.nan), "learning_rate must be a finite number >= 0"),
        (lambda: fixed("fast"), "learning_rate must be a finite number >= 0, not 'fast'"),
        (lambda: fixed(np.ones(2)), "learning_rate must be a finite number >= 0"),
    ],
)
def test_numbers_out_of_range_are_refused(rule, message):
    with pytest.raises(UserError, match=message):
        rule()
