import jax.numpy as jnp
import numpy as np
import pytest

from rkbench.trainer.evaluate import Evaluator, all_finite, cut


class Threshold:
    """Predicts whether x exceeds params; the loss is x itself."""

    def evaluate(self, params, model_state, batch):
        del model_state
        correct = (batch["x"] > params) == (batch["label"] > 0)
        return batch["x"], correct.astype(jnp.float32)


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        "x": rng.normal(size=23).astype(np.float32),
        "label": rng.integers(0, 2, 23, dtype=np.int32),
    }


@pytest.mark.parametrize("loop", [True, False])
@pytest.mark.parametrize("batch_size", [1, 5, 23, 100])
def test_every_example_counts_once_whatever_the_batch_size(arrays, batch_size, loop):
    evaluate = Evaluator(Threshold(), loop, seeds_at_once=1)
    result = evaluate(jnp.float32(0.1), {}, cut(arrays, batch_size))
    correct = (arrays["x"] > 0.1) == (arrays["label"] > 0)
    assert result["accuracy"] == pytest.approx(correct.mean(), abs=1e-7)
    assert result["loss"] == pytest.approx(arrays["x"].mean(dtype=np.float64), rel=1e-5)


def test_padding_with_an_infinite_loss_changes_nothing(arrays):
    class Logarithm(Threshold):
        def evaluate(self, params, model_state, batch):
            losses, correct = super().evaluate(params, model_state, batch)
            return -jnp.log(jnp.abs(losses)), correct  # infinite at 0, which pads

    result = Evaluator(Logarithm(), True, 1)(jnp.float32(0), {}, cut(arrays, 10))
    assert result["loss"] == pytest.approx(-np.log(np.abs(arrays["x"])).mean(), rel=1e-5)


def test_several_seeds_at_once(arrays):
    evaluate = Evaluator(Threshold(), True, seeds_at_once=2)
    result = evaluate(jnp.array([0.1, -0.5]), jnp.zeros(2), cut(arrays, 10))
    expected = [((arrays["x"] > t) == (arrays["label"] > 0)).mean() for t in (0.1, -0.5)]
    np.testing.assert_allclose(result["accuracy"], expected, atol=1e-7)


@pytest.mark.parametrize(("value", "finite"), [(1.0, True), (np.nan, False), (-np.inf, False)])
def test_all_finite_looks_at_every_leaf(value, finite):
    params = {"a": jnp.ones((2, 3)), "b": jnp.ones(4).at[2].set(value)}
    assert bool(all_finite(params)) is finite
