"""The objective against a loss written out by hand, chunked and whole."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rkbench.step.gradients import Objective

EXAMPLES, FEATURES = 23, 5


@dataclasses.dataclass(frozen=True)
class Regression:
    """A linear model with noise of the step, noise of each example, and a running mean of x."""

    pairs: bool = False

    def losses(self, params, model_state, batch, key):
        x = batch["x"]
        if self.pairs:
            x = 0.7 * x + 0.3 * batch["partner"]["x"]
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, batch["position"])
        noise = jax.random.normal(key, ()) + jax.vmap(jax.random.normal)(keys)
        state = {"mean": 0.9 * model_state["mean"] + 0.1 * jnp.mean(batch["x"])}
        return jnp.square(x @ params["w"] - batch["y"] + noise), state

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


def objective(data, chunk, indices=range(3, 20), pairs=False):
    state = {"mean": jnp.ones(())}
    indices = jnp.asarray(list(indices), jnp.int32)
    return Objective(Regression(pairs), data, indices, state, jax.random.key(0), chunk)


def by_hand(data, params, pairs):
    x, y = np.asarray(data["x"])[3:20], np.asarray(data["y"])[3:20]
    if pairs:
        x = 0.7 * x + 0.3 * np.roll(x, 1, axis=0)
    w, key = np.asarray(params["w"]), jax.random.key(0)
    noise = [float(jax.random.normal(jax.random.fold_in(key, i))) for i in range(len(x))]
    errors = x @ w - y + float(jax.random.normal(key, ())) + np.array(noise)
    return np.mean(errors**2) + 0.5 * w @ w, 2 * x.T @ errors / len(x) + w


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("chunk", [0, 1, 5, 17, 100])
def test_loss_and_gradient_are_the_exact_means_whatever_the_chunk(data, params, chunk, pairs):
    one = objective(data, chunk, pairs=pairs)
    (loss, _), gradient = one.value_and_gradient(params)
    expected_loss, expected_gradient = by_hand(data, params, pairs)
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


def test_the_state_moves_once_to_the_mean_of_the_chunks(data, params):
    x = np.asarray(data["x"])
    means = [x[i : i + 4].mean() for i in range(3, 19, 4)]
    (_, whole), _ = objective(data, 0, range(3, 19)).value_and_gradient(params)
    (_, chunked), _ = objective(data, 4, range(3, 19)).value_and_gradient(params)
    np.testing.assert_allclose(chunked["mean"], 0.9 + 0.1 * np.mean(means), rtol=1e-6)
    np.testing.assert_allclose(whole["mean"], chunked["mean"], rtol=1e-6)


def test_memory_does_not_grow_with_the_batch(params):
    def temporary_bytes(examples, chunk):
        data = {"x": jnp.ones((examples, FEATURES)), "y": jnp.ones(examples)}

        def gradient(params, data):
            return objective(data, chunk, range(examples)).gradient(params)

        compiled = jax.jit(gradient).lower(params, data).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    def activations(examples, chunk):  # without the rows: position, index and whether it counts
        return temporary_bytes(examples, chunk) - 9 * examples

    assert abs(activations(80_000, 1_000) - activations(20_000, 1_000)) < 8_192
    assert activations(80_000, 0) - activations(20_000, 0) > 1_000_000
