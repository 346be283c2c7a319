"""The compiled program: no sync, no recompilation, each stage of a chain traced once."""

import jax
import pytest

from configs import digits_mlp
from rkbench.experiment import Experiment

pytestmark = pytest.mark.standard_promotion


def program(variant, **changes):
    config = digits_mlp.get_config(variant)
    config.update({"total_steps": 50, "tensorboard": False} | changes)
    return Experiment.from_config(config.lock()).program


def gradients(variant, **changes):
    """How many gradients the lowered program holds, by its matrix products."""
    one = program(variant, **changes)
    state = jax.eval_shape(lambda: one.init((0,)))
    products = one.lower(state, (0,)).as_text().count("stablehlo.dot_general")
    layers = 3
    norm = layers  # a product a weight matrix, for the gradient's norm
    gradient = 3 * layers - 1  # forward, and backward to weights and to all inputs but the first
    return (products - norm) / gradient


def test_the_stages_of_a_chain_are_traced_once():
    assert gradients("sgd") == 1
    assert gradients("rk4") == gradients("midpoint") == 2  # the first stage and the loop's
    assert gradients("rk4", compiled_loops="off") == 4
    assert gradients("kutta3") == 3


def test_another_rate_seed_schedule_or_number_of_steps_is_not_another_program():
    def text(seed=0, **changes):
        one = program("rk4", **changes)
        state = jax.eval_shape(lambda: one.init((seed,)))
        return one.lower(state, (seed,)).as_text()

    first = text()
    assert text(seed=7) == first
    assert text(optimizer={"learning_rate": 0.01}) == first
    assert text(schedule={"name": "cosine"}) == first
    assert text(total_steps=400) == first


def test_steps_make_no_transfer_that_is_not_asked_for():
    one = program("rk4_dalr")
    state = one.init((0,))
    state, _ = one.advance(state, (0,), 0, 3)
    with jax.transfer_guard_device_to_host("disallow"):
        state, metrics = one.advance(state, (0,), 3, 40)
        jax.block_until_ready(state)
    assert one.compilations == 1
    assert len(metrics.loss) >= 40
