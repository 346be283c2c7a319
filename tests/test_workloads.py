import importlib
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import workloads
from rkbench.errors import UserError
from workloads.datasets import ArrayDataset
from workloads.image_classification import ImageClassification, input_scaling


def config_of(name, variant="adam", **fields):
    config = importlib.import_module(f"configs.{name}").get_config(variant)
    for field, value in fields.items():
        config[field] = value
    return config


@pytest.fixture(scope="module")
def digits():
    return workloads.create(config_of("digits_mlp", label_smoothing=0.1, l2=0.3))


def batch_of(workload, size=8):
    return {key: jnp.asarray(array[:size]) for key, array in workload.train.items()}


def tiny_dataset(images, max_value=255, labels=None):
    if labels is None:
        labels = np.arange(len(images)) % 10
    split = {"image": images.astype(np.uint8), "label": np.asarray(labels, np.int32)}
    return ArrayDataset("tiny", "1", "f", 10, max_value, split, split)


@pytest.mark.parametrize("name", [name for name in workloads.names() if name != "digits_mlp"])
def test_every_workload_keeps_the_contract_on_real_data(name, tfds_dir):
    check_contract(workloads.create(config_of(name, data_dir=tfds_dir)), name)


def test_digits_keep_the_contract_without_any_folder(digits):
    check_contract(digits, "digits_mlp")


def check_contract(workload, name):
    assert workload.name == name
    assert workload.convolves is False  # on a CPU the convolution is a matrix product
    for split in (workload.train, workload.test):
        assert split["image"].dtype == np.uint8
        assert split["label"].dtype == np.int32
    params, model_state = jax.jit(workload.init)(jax.random.key(0))
    assert model_state == {}
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    batch = batch_of(workload)
    losses, new_state = jax.jit(workload.losses)(params, model_state, batch, jax.random.key(1))
    assert (losses.shape, losses.dtype, new_state) == ((8,), jnp.float32, {})
    loss, correct = jax.jit(workload.evaluate)(params, model_state, batch)
    assert (loss.shape, loss.dtype) == (correct.shape, correct.dtype) == ((8,), jnp.float32)
    assert workload.penalty(params).shape == ()


def test_convolves_only_with_xlas_own_convolution(tfds_dir):
    config = config_of("mnist_cnn", data_dir=tfds_dir)
    config.model.convolution = "xla"
    assert workloads.create(config).convolves is True


def test_losses_and_evaluation_against_numpy(digits):
    params, _ = digits.init(jax.random.key(0))
    batch = batch_of(digits)
    logits = digits.model.apply(
        {"params": params}, batch["image"].astype(jnp.float32) / 16, train=False
    )
    log_probabilities = np.asarray(logits - jax.nn.logsumexp(logits, axis=1, keepdims=True))
    labels = np.asarray(batch["label"])
    nll = -log_probabilities[np.arange(8), labels]
    smoothed = 0.9 * nll - 0.1 * log_probabilities.mean(axis=1)
    losses, _ = digits.losses(params, {}, batch, jax.random.key(0))
    np.testing.assert_allclose(losses, smoothed, rtol=1e-5)
    loss, correct = digits.evaluate(params, {}, batch)
    np.testing.assert_allclose(loss, nll, rtol=1e-5)
    np.testing.assert_array_equal(correct, log_probabilities.argmax(axis=1) == labels)


def test_penalty_is_of_kernels_only(digits):
    params, _ = digits.init(jax.random.key(0))
    expected = 0.5 * 0.3 * sum(float((layer["kernel"] ** 2).sum()) for layer in params.values())
    assert float(digits.penalty(params)) == pytest.approx(expected, rel=1e-5)
    moved = {name: {**layer, "bias": layer["bias"] + 1.0} for name, layer in params.items()}
    assert digits.penalty(moved) == digits.penalty(params)


def test_input_scaling():
    images = np.random.default_rng(0).integers(0, 201, (100, 5, 4, 1))
    dataset = tiny_dataset(images, max_value=200)
    stored = jnp.asarray(dataset.train["image"])
    scaled = {
        name: np.asarray(input_scaling(name, dataset)(stored))
        for name in ("raw", "unit", "standardized")
    }
    assert {value.dtype for value in scaled.values()} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(scaled["raw"], images)
    np.testing.assert_allclose(scaled["unit"], images / 200, rtol=1e-6)
    np.testing.assert_allclose(
        scaled["standardized"], (images - images.mean()) / images.std(), rtol=1e-4, atol=1e-5
    )


class NoisyModel(nn.Module):
    """Has what the larger models bring: running statistics and dropout."""

    @nn.compact
    def __call__(self, images, *, train):
        hidden = images.reshape(images.shape[0], -1)
        hidden = nn.BatchNorm(use_running_average=not train, momentum=0.5)(hidden)
        hidden = nn.Dropout(0.5, deterministic=not train)(hidden)
        return nn.Dense(10)(hidden)


def test_model_state_and_key_reach_the_model():
    dataset = tiny_dataset(np.random.default_rng(0).integers(0, 256, (10, 4, 4, 1)))
    scale = input_scaling("unit", dataset)
    workload = ImageClassification("noisy", dataset, NoisyModel(), scale, 0.0, 0.0, False)
    params, state = workload.init(jax.random.key(0))
    batch = batch_of(workload, 10)
    losses, new_state = workload.losses(params, state, batch, jax.random.key(1))
    mean = (np.asarray(batch["image"]) / 255).reshape(10, -1).mean(axis=0)
    np.testing.assert_allclose(
        new_state["batch_stats"]["BatchNorm_0"]["mean"], 0.5 * mean, rtol=1e-5
    )
    again, _ = workload.losses(params, state, batch, jax.random.key(1))
    other, _ = workload.losses(params, state, batch, jax.random.key(2))
    np.testing.assert_array_equal(losses, again)
    assert not np.allclose(losses, other)
    before, _ = workload.evaluate(params, state, batch)
    after, _ = workload.evaluate(params, new_state, batch)
    assert not np.allclose(before, after)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("workload", "mnist_mlpp", "unknown workload 'mnist_mlpp'; nearest: mnist_mlp"),
        ("input_scaling", "unti", "unknown input_scaling 'unti'; nearest: unit"),
        ("l2", -0.1, "l2 is -0.1"),
        ("l2", float("nan"), "l2 is nan"),
        ("label_smoothing", 1.0, "label_smoothing is 1.0"),
    ],
)
def test_bad_settings_are_named(field, value, message):
    with pytest.raises(UserError, match=message):
        workloads.create(config_of("digits_mlp", **{field: value}))


def test_names_need_no_heavy_import():
    program = (
        "import sys, workloads; workloads.names(); "
        "print({'jax', 'flax', 'numpy', 'tensorflow'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "set()"
