"""The scripts of docs/own_loop.md, and frameworks' training states against a plain loop."""

import pathlib
import runpy
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from flax.training import train_state
from test_combine import H, assert_close, direction, plain_loop, start, value_fn, vector
from test_preconditioners import START, gradient

from rkbench import optimizers

create: Any = optimizers.create

EXAMPLES = pathlib.Path(__file__).parents[2] / "docs" / "examples"
FILES = sorted(EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_example_of_the_docs_trains(file):
    if file.stem == "equinox_module":
        pytest.importorskip("equinox")
    assert len(file.read_text().splitlines()) <= 40
    # As the reader has it.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        losses = np.array(runpy.run_path(str(file))["train"](steps=25))
    assert losses[-3:].mean() < 0.7 * losses[:3].mean()


def test_every_example_is_in_the_docs():
    page = (EXAMPLES.parent / "own_loop.md").read_text()
    assert [file.name for file in FILES if f"examples/{file.name}" not in page] == []


def test_flax_train_state_passes_grad_fn_on_and_keeps_one_compilation(x64):
    optimizer = create("rk4", H, momentum=0.5)

    @jax.jit
    def step(state):
        return state.apply_gradients(grads=gradient(state.params), grad_fn=gradient)

    state = optimizers.TrainState.create(apply_fn=value_fn, params=start(), tx=optimizer)
    m, x, compiled = 0.0, START, None
    for n in range(3):
        state = step(state)
        m = 0.5 * m + direction(x)
        x = x - H * m
        assert_close(vector(state.params), x)
        assert state.step == n + 1
        if n == 1:  # flax begins with a Python number as its step
            compiled = step._cache_size()
    assert step._cache_size() == compiled
    assert state.tx is optimizer
    assert isinstance(state, train_state.TrainState)


def test_flax_train_state_replaces_fields_and_refuses_others():
    class State(optimizers.TrainState):
        batch_stats: Any = None

    sgd = State.create(apply_fn=None, params=start(), tx=optax.sgd(0.1))
    moved = sgd.apply_gradients(grads=start(), value=jnp.ones(()), batch_stats={"mean": 1})
    assert isinstance(moved, State)
    assert moved.batch_stats == {"mean": 1}
    assert_close(vector(moved.params), 0.9 * START, rtol=1e-6)
    with pytest.raises(TypeError, match="grad_fun"):
        sgd.apply_gradients(grads=start(), grad_fun=gradient)


def test_flaxs_own_train_state_is_refused_with_the_remedy():
    state = train_state.TrainState.create(apply_fn=None, params=start(), tx=create("rk4", H))
    with pytest.raises(TypeError, match=r"rkbench\.optimizers\.TrainState"):
        state.apply_gradients(grads=start())


def test_asking_for_the_train_state_is_what_imports_flax():
    # As in a process without flax: neither the module nor its class is looked at before.
    kept = {name: sys.modules.pop(name) for name in list(sys.modules) if "flax_train" in name}
    try:
        assert "bind" in dir(optimizers)
        assert "rkbench.optimizers.flax_train_state" not in sys.modules
        assert optimizers.TrainState.__module__ == "rkbench.optimizers.flax_train_state"
    finally:
        sys.modules.update(kept)
    with pytest.raises(AttributeError, match="no attribute 'TrainStat'"):
        _ = optimizers.TrainStat


def test_nnx_optimizer_steps_as_the_plain_loop(x64):
    class Model(nnx.Module):
        def __init__(self):
            self.u, self.v = (nnx.Param(leaf) for leaf in start().values())
            self.calls = nnx.Variable(jnp.asarray(0))

    model = Model()
    optimizer = nnx.Optimizer(model, create("rk4", H), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        graph, params, rest = nnx.split(model, nnx.Param, ...)

        def loss(params):
            merged = nnx.merge(graph, params, rest)
            return value_fn({"u": merged.u[...], "v": merged.v[...]})

        optimizer.update(model, jax.grad(loss)(params), grad_fn=jax.grad(loss))

    for expected in plain_loop(lambda x, n: x - H * direction(x), steps=2):
        step(model, optimizer)
        assert_close([float(model.u[...]), float(model.v[...])], expected)
    assert optimizers.grad_evals(nnx.as_pure(optimizer.opt_state)) == 8


def step_of_least_squares(params: Any, predict) -> Any:
    """(a step by RK4 for the module, the same step for its weight in NumPy)."""
    inputs, targets = np.array([[1.0, 0.5], [0.2, -1.0]]), np.array([1.0, -0.5])
    loss = lambda params: 0.5 * jnp.sum((predict(params, inputs) - targets) ** 2)  # noqa: E731
    optimizer = create("rk4", H)
    grad_fn = jax.grad(loss)
    updates, _ = optimizer.update(grad_fn(params), optimizer.init(params), params, grad_fn=grad_fn)
    # theta' = R(-h A) theta + (1 - R(-h A)) theta*, exactly, on a quadratic
    hessian = inputs.T @ inputs
    best = np.linalg.solve(hessian, inputs.T @ targets)
    z = -H * hessian
    power = np.linalg.matrix_power
    growth = np.eye(2) + z + power(z, 2) / 2 + power(z, 3) / 6 + power(z, 4) / 24
    return updates, lambda weight: best + growth @ (weight - best) - weight


def test_a_haiku_transform_steps_as_the_closed_form(x64):
    hk = pytest.importorskip("haiku")
    network = hk.without_apply_rng(hk.transform(lambda x: hk.Linear(1, with_bias=False)(x)[:, 0]))
    params = network.init(jax.random.key(0), np.ones((1, 2)))
    updates, expected = step_of_least_squares(params, network.apply)
    assert_close(updates["linear"]["w"][:, 0], expected(np.asarray(params["linear"]["w"])[:, 0]))


def test_a_linen_module_steps_as_the_closed_form(x64):
    network: Any = linen.Dense(1, use_bias=False, param_dtype=float)
    params = network.init(jax.random.key(0), np.ones((1, 2)))
    predict = lambda params, x: network.apply(params, x)[:, 0]  # noqa: E731
    updates, expected = step_of_least_squares(params, predict)
    kernel = np.asarray(params["params"]["kernel"])[:, 0]
    assert_close(updates["params"]["kernel"][:, 0], expected(kernel))


def test_an_equinox_module_steps_as_the_closed_form(x64):
    eqx = pytest.importorskip("equinox")
    model = eqx.nn.Linear(2, "scalar", use_bias=False, dtype=float, key=jax.random.key(0))
    params, static = eqx.partition(model, eqx.is_inexact_array)
    predict = lambda params, x: jax.vmap(eqx.combine(params, static))(x)  # noqa: E731
    updates, expected = step_of_least_squares(params, predict)
    assert_close(updates.weight[0], expected(np.asarray(model.weight)[0]))
