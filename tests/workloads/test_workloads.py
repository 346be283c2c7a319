import importlib
import pathlib
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rkbench import workloads
from rkbench.errors import UserError
from rkbench.workloads.augment import Augmentation, mix
from rkbench.workloads.datasets import ArrayDataset
from rkbench.workloads.image_classification import ImageClassification, compute_dtype, input_scaling


def config_of(name, variant="adam", **fields):
    config = importlib.import_module(f"rkbench.configs.{name}").get_config(variant)
    for field, value in fields.items():
        config[field] = value
    return config


@pytest.fixture(scope="module")
def digits():
    return workloads.create(config_of("digits_mlp", label_smoothing=0.1, l2=0.3))


def batch_of(workload, size=8, first=0):
    """A chunk of the training set, taken for the whole batch: `size` examples from `first` on."""
    examples = len(workload.train["label"])

    def at(positions):
        stored = {key: jnp.asarray(array[positions]) for key, array in workload.train.items()}
        return stored | {"position": jnp.asarray(positions, jnp.int32)}

    positions = np.arange(first, first + size)
    partner = {"partner": at((positions - 1) % examples)} if workload.pairs else {}
    return at(positions) | partner


def tiny_dataset(images, max_value=255, labels=None, published=None):
    if labels is None:
        labels = np.arange(len(images)) % 10
    split = {"image": images.astype(np.uint8), "label": np.asarray(labels, np.int32)}
    return ArrayDataset("tiny", "1", "f", 10, max_value, split, split, published)


IN_TFDS = [name for name in workloads.names() if not name.startswith(("digits", "imagenet"))]


@pytest.mark.parametrize("name", IN_TFDS)
def test_every_workload_keeps_the_contract_on_real_data(name, tfds_dir):
    dataset = name.split("_")[0]
    if not (pathlib.Path(tfds_dir) / dataset.replace("fashion", "fashion_mnist")).is_dir():
        pytest.skip(f"no {dataset} prepared by TFDS in {tfds_dir}")
    check_contract(workloads.create(config_of(name, data_dir=tfds_dir)), name)


def test_digits_keep_the_contract_without_any_folder(digits):
    check_contract(digits, "digits_mlp")


def check_contract(workload, name):
    """Shapes and dtypes, of the models in full size: nothing is computed."""
    residual = "wrn" in name or "resnet" in name
    assert workload.name == name
    assert workload.convolves is False  # on a CPU the convolution is a matrix product
    assert workload.pairs is ("wrn" in name)
    for split in (workload.train, workload.test):
        assert split["image"].dtype == np.uint8
        assert split["label"].dtype == np.int32
    params, model_state = jax.eval_shape(workload.init, jax.random.key(0))
    assert set(model_state) == ({"batch_stats"} if residual else set())
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    batch = batch_of(workload)
    losses, new_state = jax.eval_shape(
        workload.losses, params, model_state, batch, jax.random.key(1)
    )
    assert (losses.shape, losses.dtype) == ((8,), jnp.float32)
    assert new_state == model_state
    loss, correct = jax.eval_shape(workload.evaluate, params, model_state, batch)
    assert (loss.shape, loss.dtype) == (correct.shape, correct.dtype) == ((8,), jnp.float32)
    assert jax.eval_shape(workload.penalty, params).shape == ()


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


def color_dataset(examples=12):
    return tiny_dataset(np.random.default_rng(0).integers(0, 256, (examples, 8, 8, 3)))


def augmented_mlp(**fields):
    """A small MLP on 12 images with every augmentation."""
    config = config_of("cifar10_mlp", "adam,smoke", input_scaling="channel_standardized", **fields)
    config.augment.update({"crop_padding": 2, "flip": True, "cutout": 3, "mixup_alpha": 1.0})
    return workloads.create(config, color_dataset())


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_of_a_mixture_is_the_mixture_of_the_losses(smoothing):
    workload = augmented_mlp(label_smoothing=smoothing)
    params, _ = workload.init(jax.random.key(0))
    batch, key = batch_of(workload, 12), jax.random.key(1)
    losses, _ = jax.jit(workload.losses)(params, {}, batch, key)
    images, shares = workload.augment(batch, jax.random.split(key)[0])
    logits = workload.model.apply({"params": params}, workload.scale(images), train=True)
    log_probabilities = np.asarray(jax.nn.log_softmax(logits))

    def cross_entropy(labels):
        nll = -log_probabilities[np.arange(12), np.asarray(labels)]
        return (1 - smoothing) * nll - smoothing * log_probabilities.mean(axis=1)

    own, partners = cross_entropy(batch["label"]), cross_entropy(batch["partner"]["label"])
    np.testing.assert_allclose(losses, mix(own, partners, shares), rtol=1e-5)


def test_a_chunk_of_an_augmented_batch_has_the_losses_of_the_whole():
    workload = augmented_mlp()
    params, _ = workload.init(jax.random.key(0))
    key = jax.random.key(1)
    whole, _ = workload.losses(params, {}, batch_of(workload, 12), key)
    chunk, _ = workload.losses(params, {}, batch_of(workload, 3, first=5), key)
    np.testing.assert_allclose(chunk, whole[5:8], rtol=1e-5)
    other, _ = workload.losses(params, {}, batch_of(workload, 12), jax.random.key(2))
    assert not np.allclose(other, whole, rtol=1e-2)


def test_evaluation_sees_the_images_as_they_are():
    augmented = augmented_mlp()
    plain = ImageClassification(
        "plain",
        augmented.dataset,
        augmented.model,
        augmented.scale,
        l2=0.0,
        label_smoothing=0.0,
        convolves=False,
        augment=Augmentation(),
        dtype=compute_dtype("float32"),
    )
    params, _ = plain.init(jax.random.key(0))
    batch = batch_of(plain, 12)
    losses, correct = augmented.evaluate(params, {}, batch)
    expected, _ = plain.losses(params, {}, batch, jax.random.key(1))
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    np.testing.assert_array_equal(correct, plain.evaluate(params, {}, batch)[1])


def test_a_small_wide_resnet_trains_on_an_augmented_batch():
    workload = workloads.create(config_of("cifar10_wrn", "momentum,smoke"), color_dataset())
    params, state = jax.jit(workload.init)(jax.random.key(0))
    batch = batch_of(workload)

    def mean_loss(params):
        losses, new_state = workload.losses(params, state, batch, jax.random.key(1))
        return losses.mean(), new_state

    (loss, new_state), gradient = jax.jit(jax.value_and_grad(mean_loss, has_aux=True))(params)
    assert 1 < loss < 5
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), state, new_state)
    assert all(jax.tree.leaves(moved))


@pytest.mark.standard_promotion  # Flax's batch norm subtracts a float32 mean
@pytest.mark.parametrize("name", ["cifar10_wrn", "cifar10_resnet18"])
def test_bfloat16_is_of_the_computation_only(name):
    config = config_of(name, "adam,smoke", dtype="bfloat16", remat=True)
    config.model.convolution = "xla"
    workload = workloads.create(config, color_dataset())
    params, state = jax.eval_shape(workload.init, jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves((params, state))} == {jnp.dtype(jnp.float32)}
    batch = batch_of(workload)
    program = jax.make_jaxpr(workload.losses)(params, state, batch, jax.random.key(1))
    assert {leaf.dtype for leaf in jax.tree.leaves(program.out_avals)} == {jnp.dtype(jnp.float32)}
    convolutions = [line for line in str(program).splitlines() if "conv_general_dilated" in line]
    assert convolutions
    assert all("bf16[" in line.split("=")[0] for line in convolutions)
    assert "remat" in str(program)


def test_a_subset_says_so_in_its_provenance():
    images = np.zeros((10, 2, 2, 1))
    workload = workloads.create(config_of("digits_mlp"), tiny_dataset(images))
    assert "subset" not in workload.provenance
    part = workloads.create(config_of("digits_mlp"), tiny_dataset(images, published=(50, 10)))
    assert part.provenance == {
        **workload.provenance,
        "subset": True,
        "full_train_examples": 50,
        "full_test_examples": 10,
    }
    whole = workloads.create(config_of("digits_mlp"), tiny_dataset(images, published=(10, 10)))
    assert whole.provenance == workload.provenance


def test_penalty_is_of_kernels_only(digits):
    params, _ = digits.init(jax.random.key(0))
    expected = 0.5 * 0.3 * sum(float((layer["kernel"] ** 2).sum()) for layer in params.values())
    assert float(digits.penalty(params)) == pytest.approx(expected, rel=1e-5)
    moved = {name: {**layer, "bias": layer["bias"] + 1.0} for name, layer in params.items()}
    assert digits.penalty(moved) == digits.penalty(params)


def test_input_scaling():
    images = np.random.default_rng(0).integers(0, [201, 101, 11], (100, 5, 4, 3))
    dataset = tiny_dataset(images, max_value=200)
    stored = jnp.asarray(dataset.train["image"])
    scaled = {
        name: np.asarray(input_scaling(name, dataset)(stored))
        for name in ("raw", "unit", "standardized", "channel_standardized")
    }
    assert {value.dtype for value in scaled.values()} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(scaled["raw"], images)
    np.testing.assert_allclose(scaled["unit"], images / 200, rtol=1e-6)
    np.testing.assert_allclose(
        scaled["standardized"], (images - images.mean()) / images.std(), rtol=1e-4, atol=1e-5
    )
    means, stds = images.mean(axis=(0, 1, 2)), images.std(axis=(0, 1, 2))
    np.testing.assert_allclose(
        scaled["channel_standardized"], (images - means) / stds, rtol=1e-4, atol=1e-5
    )


class Normalized(nn.Module):
    """Has running statistics."""

    @nn.compact
    def __call__(self, images, *, train):
        hidden = images.reshape(images.shape[0], -1)
        hidden = nn.BatchNorm(use_running_average=not train, momentum=0.5)(hidden)
        return nn.Dense(10)(hidden)


class Dropping(nn.Module):
    """Has dropout."""

    @nn.compact
    def __call__(self, images, *, train):
        hidden = images.reshape(images.shape[0], -1)
        return nn.Dense(10)(nn.Dropout(0.5, deterministic=not train)(hidden))


def on_ten_images(model, **fields):
    dataset = tiny_dataset(np.random.default_rng(0).integers(0, 256, (10, 4, 4, 1)))
    return ImageClassification(
        "tiny",
        dataset,
        model,
        input_scaling("unit", dataset),
        l2=0.0,
        label_smoothing=0.0,
        convolves=False,
        augment=Augmentation(),
        dtype=compute_dtype("float32"),
        **fields,
    )


def test_model_state_reaches_the_model():
    workload = on_ten_images(Normalized())
    params, state = workload.init(jax.random.key(0))
    batch = batch_of(workload, 10)
    losses, new_state = workload.losses(params, state, batch, jax.random.key(1))
    mean = (np.asarray(batch["image"]) / 255).reshape(10, -1).mean(axis=0)
    np.testing.assert_allclose(
        new_state["batch_stats"]["BatchNorm_0"]["mean"], 0.5 * mean, rtol=1e-5
    )
    assert losses.shape == (10,)
    before, _ = workload.evaluate(params, state, batch)
    after, _ = workload.evaluate(params, new_state, batch)
    assert not np.allclose(before, after)


def test_dropout_is_of_the_key_and_the_position_whatever_the_chunk():
    workload = on_ten_images(Dropping(), drops=True)
    params, state = workload.init(jax.random.key(0))
    batch = batch_of(workload, 10)

    def losses(batch, key=1):
        return np.asarray(workload.losses(params, state, batch, jax.random.key(key))[0])

    whole = losses(batch)
    np.testing.assert_array_equal(losses(batch), whole)
    assert not np.allclose(losses(batch, key=2), whole)
    chunk = batch_of(workload, 4, first=3)
    np.testing.assert_allclose(losses(chunk), whole[3:7], rtol=1e-5)
    elsewhere = chunk | {"position": np.arange(4)}  # other places: other units dropped
    assert not np.allclose(losses(elsewhere), whole[3:7])


@pytest.mark.parametrize(("name", "channels"), [("cifar10_mlp", 3), ("mnist_cnn", 1)])
def test_bfloat16_is_of_the_products_of_small_models(name, channels):
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, channels))
    low, full = (
        workloads.create(config_of(name, dtype=dtype), tiny_dataset(images))
        for dtype in ("bfloat16", "float32")
    )
    params, state = low.init(jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    losses = [w.losses(params, state, batch_of(w), jax.random.key(1))[0] for w in (low, full)]
    assert losses[0].dtype == jnp.float32
    np.testing.assert_allclose(*losses, rtol=0.05)
    assert np.abs(losses[0] - losses[1]).max() > 1e-5


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("workload", "mnist_mlpp", "unknown workload 'mnist_mlpp'; nearest: mnist_mlp"),
        ("input_scaling", "unti", "unknown input_scaling 'unti'; nearest: unit"),
        ("l2", -0.1, "l2 is -0.1"),
        ("l2", float("nan"), "l2 is nan"),
        ("label_smoothing", 1.0, "label_smoothing is 1.0"),
        ("dtype", "bfloat", "unknown dtype 'bfloat'; nearest: bfloat16"),
        ("remat", True, "remat=True: the model of digits_mlp has no blocks"),
    ],
)
def test_bad_settings_are_named(field, value, message):
    with pytest.raises(UserError, match=message):
        workloads.create(config_of("digits_mlp", **{field: value}))


def test_rand_augment_is_refused_where_it_would_do_nothing():
    config = config_of("digits_mlp")
    config.augment.rand_augment_layers = 2
    with pytest.raises(UserError, match="rand_augment_layers=2: only ImageNet"):
        workloads.create(config)


def test_names_need_no_heavy_import():
    program = (
        "import sys, workloads; workloads.names(); "
        "print({'jax', 'flax', 'numpy', 'tensorflow'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "set()"
