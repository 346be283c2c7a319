"""The objective against a loss written out by hand, chunked and whole."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rkbench.gradients import Objective

EXAMPLES, FEATURES = 23, 5


@dataclasses.dataclass(frozen=True)
class Regression:
    """A linear model; its state counts the examples of the forward passes, as statistics would."""

    def losses(self, params, model_state, batch, key):
        noise = jax.random.normal(key, ())
        errors = batch["x"] @ params["w"] - batch["y"] + noise
        seen = {"seen": model_state["seen"] + len(errors)}
        return jnp.square(errors), seen

    def penalty(self, params):
        return 0.5 * jnp.sum(jnp.square(params["w"]))


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return {
        "x": jnp.asarray(rng.normal(size=(EXAMPLES, FEATURES))),
        "y": jnp.asarray(rng.normal(size=EXAMPLES)),
    }


@pytest.fixture
def params():
    return {"w": jnp.asarray(np.random.default_rng(1).normal(size=FEATURES))}


def objective(data, chunk, indices=range(3, 20)):
    state = {"seen": jnp.int32(0)}
    indices = jnp.asarray(list(indices), jnp.int32)
    return Objective(Regression(), data, indices, state, jax.random.key(0), chunk)


def by_hand(data, params, indices=range(3, 20)):
    x, y = np.asarray(data["x"])[list(indices)], np.asarray(data["y"])[list(indices)]
    w = np.asarray(params["w"])
    errors = x @ w - y + float(jax.random.normal(jax.random.key(0), ()))
    return np.mean(errors**2) + 0.5 * w @ w, 2 * x.T @ errors / len(x) + w


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("chunk", [0, 1, 4, 5, 17, 100])
def test_loss_and_gradient_are_the_exact_means_whatever_the_chunk(data, params, chunk):
    one = objective(data, chunk)
    (loss, _), gradient = one.value_and_gradient(params)
    expected_loss, expected_gradient = by_hand(data, params)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-13)
    np.testing.assert_allclose(gradient["w"], expected_gradient, rtol=1e-12)
    np.testing.assert_allclose(one.value(params), expected_loss, rtol=1e-13)
    np.testing.assert_array_equal(one.gradient(params)["w"], gradient["w"])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("chunk", [0, 5])
def test_hessian_vector_product_is_that_of_the_whole_batch(data, params, chunk):
    vector = {"w": jnp.arange(1.0, FEATURES + 1)}
    _, product = jax.jvp(objective(data, chunk).gradient, (params,), (vector,))
    x = np.asarray(data["x"])[3:20]
    hessian = 2 * x.T @ x / len(x) + np.eye(FEATURES)
    np.testing.assert_allclose(product["w"], hessian @ np.asarray(vector["w"]), rtol=1e-12)


def test_the_state_moves_once_for_each_chunk(data, params):
    (_, whole), _ = objective(data, 0).value_and_gradient(params)
    (_, chunked), _ = objective(data, 5).value_and_gradient(params)
    assert whole["seen"] == 17
    assert chunked["seen"] == 20  # four chunks of five, the last one padded


def test_memory_does_not_grow_with_the_batch(params):
    def temporary_bytes(examples, chunk):
        data = {"x": jnp.ones((examples, FEATURES)), "y": jnp.ones(examples)}

        def gradient(params, data):
            return objective(data, chunk, range(examples)).gradient(params)

        compiled = jax.jit(gradient).lower(params, data).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    def activations(examples, chunk):  # without the padded indices and weights, 8 bytes an example
        return temporary_bytes(examples, chunk) - 8 * examples

    assert abs(activations(80_000, 1_000) - activations(20_000, 1_000)) < 8_192
    assert activations(80_000, 0) - activations(20_000, 0) > 1_000_000
