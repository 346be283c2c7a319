"""One step with batch norm, dropout and clipping against four gradients written out by hand."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rkbench import optimizers
from rkbench.step.feed import ResidentFeed
from rkbench.step.program import Program
from rkbench.step.train_step import StepFunction, StepInputs

pytestmark = pytest.mark.standard_promotion
H = 0.3


class Model(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.Dense(6)(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        x = nn.Dropout(0.3, deterministic=not train)(jnp.tanh(x))
        return nn.Dense(1)(x)[:, 0]


@dataclasses.dataclass(frozen=True)
class Regression:
    pairs = False
    model = Model()

    def init(self, key):
        variables = dict(self.model.init(key, jnp.ones((2, 3)), train=False))
        return variables.pop("params"), variables

    def losses(self, params, model_state, batch, key):
        outputs, state = self.model.apply(
            {"params": params, **model_state},
            batch["x"],
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        return jnp.square(outputs - batch["y"]), dict(state)

    def penalty(self, params):
        return jnp.zeros(())


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return {
        "x": jnp.asarray(rng.normal(size=(16, 3)), jnp.float32),
        "y": jnp.asarray(rng.normal(size=16), jnp.float32),
    }


INDICES = np.array([3, 1, 4, 15, 9, 2, 6, 5], np.int32)


def by_hand(data, state, step, clip_stages=None, clip_gradient=None):
    """(parameters, [model state after each stage]) of the classical method, Eqs. (36)-(40)."""
    workload, key = Regression(), jax.random.fold_in(jax.random.key(7), step)
    batch = {name: array[INDICES] for name, array in data.items()}
    states = []

    def clipped(g, longest):
        if longest is None:
            return g
        return jax.tree.map(lambda leaf: leaf * jnp.minimum(1, longest / optax.tree.norm(g)), g)

    def gradient(params):
        def loss(params):
            losses, new_state = workload.losses(params, state.model_state, batch, key)
            return jnp.mean(losses), new_state

        g, new_state = jax.grad(loss, has_aux=True)(params)
        states.append(new_state)
        return clipped(g, clip_stages)

    def moved(g, h):
        return jax.tree.map(lambda theta, leaf: theta - h * leaf, state.params, g)

    k1 = gradient(state.params)
    k2 = gradient(moved(k1, H / 2))
    k3 = gradient(moved(k2, H / 2))
    k4 = gradient(moved(k3, H))
    mean = jax.tree.map(lambda a, b, c, d: (a + 2 * b + 2 * c + d) / 6, k1, k2, k3, k4)
    return moved(clipped(mean, clip_gradient), H), states


def take_step(data, unroll=False, clip_norm=None, stage_clip_norm=None, name="rk4", **settings):
    def optimizer(learning_rate):
        return optimizers.create(
            name,
            None if name == "rk4_dalr" else learning_rate,
            unroll_stages=unroll,
            clip_norm=clip_norm,
            stage_clip_norm=stage_clip_norm,
        )

    step = StepFunction(Regression(), optimizer, len(INDICES), 0, **settings)
    state = step.init(jax.random.key(0))
    scalars = {"learning_rate": jnp.float32(H)}
    inputs = StepInputs(data, jnp.asarray(INDICES), jnp.int32(5), jax.random.key(7))
    after, metrics = jax.jit(step)(state, inputs, scalars)
    return state, after, metrics


def assert_close(found, expected):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), found, expected
    )


@pytest.mark.parametrize("unroll", [False, True])
def test_all_stages_see_one_field_and_the_statistics_move_once_from_the_first(data, unroll):
    state, after, metrics = take_step(data, unroll)
    params, states = by_hand(data, state, 5)
    assert_close(after.params, params)
    assert_close(after.model_state, states[0])
    assert metrics.grad_evals == 4
    moved = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b))), states[0], states[3])
    assert max(jax.tree.leaves(moved)) > 1e-3  # first and last can be told apart


def test_the_statistics_of_the_last_stage(data):
    state, after, _ = take_step(data, unroll=True, last_stage_state=True)
    params, states = by_hand(data, state, 5)
    assert_close(after.params, params)
    assert_close(after.model_state, states[3])


def test_clipping_acts_on_the_rk_gradient(data):
    state, after, _ = take_step(data, clip_norm=0.2)
    assert_close(after.params, by_hand(data, state, 5, clip_gradient=0.2)[0])


def test_clipping_each_stage_is_another_step(data):
    state, after, _ = take_step(data, stage_clip_norm=0.2)
    expected = by_hand(data, state, 5, clip_stages=0.2)[0]
    assert_close(after.params, expected)
    other = by_hand(data, state, 5, clip_gradient=0.2)[0]
    apart = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b))), expected, other)
    assert max(jax.tree.leaves(apart)) > 1e-4


@pytest.mark.parametrize("name", ["rk4", "sgd"])
def test_the_logged_norm_is_that_of_the_gradient_whatever_is_clipped(data, name):
    free = take_step(data, name=name)[2].grad_norm
    clipped = [
        take_step(data, name=name, clip_norm=gradient, stage_clip_norm=stages)[2].grad_norm
        for gradient, stages in ((0.2, None), (None, 0.2))
    ]
    assert free > 0.4
    np.testing.assert_allclose(clipped, free, rtol=1e-5)


def test_dalr_takes_the_curvature_of_the_loss_also_where_stages_are_clipped(data):
    free, clipped = (
        take_step(data, name="rk4_dalr", stage_clip_norm=longest)[2].learning_rate
        for longest in (None, 0.2)
    )
    np.testing.assert_allclose(clipped, free, rtol=1e-5)
    assert free < 0.9  # its cap is 1: there is a curvature


def test_another_step_draws_another_dropout_mask(data):
    state, after, _ = take_step(data)
    other = by_hand(data, state, 6)[0]
    apart = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b))), after.params, other)
    assert max(jax.tree.leaves(apart)) > 1e-3


def test_statistics_estimated_again_are_those_of_the_parameters(data):
    workload = Regression()
    step = StepFunction(
        workload,
        lambda learning_rate: optimizers.create("sgd", learning_rate),
        batch_size=16,
        chunk=0,
    )
    feed = ResidentFeed(data, batch_size=16)
    scalars = {"learning_rate": np.zeros(100, np.float32)}
    program = Program(step, feed, scalars, seeds_at_once=1, loop=True)
    state = program.init((0,))
    found = program.with_new_statistics(state, (0,), 3)
    assert_close(found.params, state.params)
    inputs = data["x"] @ state.params["Dense_0"]["kernel"]  # the bias is zero still
    statistics = found.model_state["batch_stats"]["BatchNorm_0"]
    np.testing.assert_allclose(statistics["mean"], inputs.mean(axis=0), atol=2e-2)
    np.testing.assert_allclose(statistics["var"], inputs.var(axis=0), rtol=2e-2)
