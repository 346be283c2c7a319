import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import model_checks as checks
import numpy as np
import pytest

from rkbench.errors import UserError
from rkbench.workloads.models.vit import ViT, parse_variant, patches, sincos_positions

IMAGENET = (2, 224, 224, 3)
SMALL = (3, 8, 12, 3)  # six patches of 4x4
CLASS_TOKEN: dict[str, Any] = {"pooling": "class_token", "positions": "learned"}


@pytest.mark.parametrize(
    ("variant", "settings", "parameters"),
    [
        ("B/16", {}, 86_415_592),
        ("B/16", {"representation_layer": True}, 87_006_184),
        ("B/16", CLASS_TOKEN, 86_567_656),
        ("S/16", CLASS_TOKEN, 22_050_664),  # DeiT's table: 22 M, 5.7 M (Ti); ViT's: 304 M (L)
        ("Ti/16", CLASS_TOKEN, 5_717_416),
        ("L/16", CLASS_TOKEN, 304_326_632),
    ],
)
def test_published_parameter_counts(variant, settings, parameters):
    assert checks.count(ViT(variant, 1000, **settings), IMAGENET) == parameters


def dense(name, inputs, outputs):
    return {f"{name}/kernel": (inputs, outputs), f"{name}/bias": (outputs,)}


def norm(name):
    return {f"{name}/scale": (192,), f"{name}/bias": (192,)}


def block(name):
    projections = {}
    for part in ("query", "key", "value"):
        projections[f"{name}/attention/{part}/kernel"] = (192, 3, 64)
        projections[f"{name}/attention/{part}/bias"] = (3, 64)
    return {
        **norm(f"{name}/norm1"),
        **projections,
        f"{name}/attention/out/kernel": (3, 64, 192),
        f"{name}/attention/out/bias": (192,),
        **norm(f"{name}/norm2"),
        **dense(f"{name}/mlp1", 192, 768),
        **dense(f"{name}/mlp2", 768, 192),
    }


def test_layers_of_ti_16():
    layers = {**dense("embedding", 16 * 16 * 3, 192), **norm("norm"), **dense("head", 192, 1000)}
    for i in range(1, 13):
        layers |= block(f"block{i}")
    assert checks.table(ViT("Ti/16", 1000), IMAGENET) == layers
    with_layer = ViT("Ti/16", 1000, representation_layer=True)
    assert checks.table(with_layer, IMAGENET) == {**layers, **dense("pre_logits", 192, 192)}
    original = {"class_token": (1, 1, 192), "positions": (1, 197, 192)}
    assert checks.table(ViT("Ti/16", 1000, **CLASS_TOKEN), IMAGENET) == {**layers, **original}


def test_variants():
    assert parse_variant("B/16") == ((768, 12, 12), 16)
    assert parse_variant("Ti/8") == ((192, 12, 3), 8)


@pytest.mark.parametrize("variant", ["Tj/16", "B", "B/0", "B/", "/16", "b/16", "B/16/2", "B/1x"])
def test_unknown_variant(variant):
    with pytest.raises(UserError, match=f"unknown ViT variant '{variant}'; nearest: .*/16"):
        ViT(variant, 10)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pooling": "meen"}, "unknown pooling 'meen'; nearest: mean"),
        ({"positions": "sincos2"}, "unknown positions 'sincos2'; nearest: sincos"),
        ({"dropout": 1.0}, "dropout is 1.0"),
    ],
)
def test_unknown_settings(settings, message):
    with pytest.raises(UserError, match=message):
        ViT("mu/4", 10, **settings)


def test_positions_are_the_formula():
    rows, columns, width = 3, 5, 24
    table = sincos_positions(rows, columns, width)
    assert (table.shape, table.dtype) == ((15, 24), np.float32)
    for y in range(rows):
        for x in range(columns):
            omegas = [1 / 10_000 ** (k / 5) for k in range(6)]
            expected = [f(at * w) for at in (x, y) for f in (math.sin, math.cos) for w in omegas]
            np.testing.assert_allclose(table[y * columns + x], expected, rtol=1e-6, atol=1e-6)


def test_patches_are_the_images_squares():
    images = checks.random_images(SMALL)
    grid = patches(images, 4)
    assert grid.shape == (3, 2, 3, 48)
    np.testing.assert_array_equal(grid[2, 1, 2], images[2, 4:8, 8:12].reshape(-1))
    with pytest.raises(UserError, match="8x12 pixels are not whole patches of 5x5"):
        patches(images, 5)


def reference(model, variables, images):
    """ViT "mu/4" in NumPy, one example at a time."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])

    def dense(x, p):
        return x @ p["kernel"] + p["bias"]

    def norm(x, p):
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]

    def attention(x, p):
        total = p["out"]["bias"]
        for head in range(2):
            q, k, v = (
                x @ p[part]["kernel"][:, head] + p[part]["bias"][head]
                for part in ("query", "key", "value")
            )
            weights = np.exp(q @ k.T / 4)  # sqrt(width / heads)
            weights /= weights.sum(-1, keepdims=True)
            total = total + weights @ v @ p["out"]["kernel"][head]
        return total

    def gelu(x):
        return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    def logits(image):
        squares = [image[4 * y : 4 * y + 4, 4 * x : 4 * x + 4] for y in (0, 1) for x in (0, 1, 2)]
        x = np.stack([dense(square.reshape(-1), p["embedding"]) for square in squares])
        if model.positions == "sincos":
            x = x + sincos_positions(2, 3, 32)
        if model.pooling == "class_token":
            x = np.concatenate([p["class_token"][0], x])
        if model.positions == "learned":
            x = x + p["positions"][0]
        block = p["block1"]
        x = x + attention(norm(x, block["norm1"]), block["attention"])
        hidden = gelu(dense(norm(x, block["norm2"]), block["mlp1"]))
        x = norm(x + dense(hidden, block["mlp2"]), p["norm"])
        x = x[0] if model.pooling == "class_token" else x.mean(0)
        if model.representation_layer:
            x = np.tanh(dense(x, p["pre_logits"]))
        return dense(x, p["head"])

    return np.stack([logits(np.asarray(image, np.float64)) for image in images])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"positions": "learned", "representation_layer": True},
        {"pooling": "class_token"},
        {**CLASS_TOKEN, "representation_layer": True},
    ],
)
def test_is_the_published_network(settings):
    model, images = ViT("mu/4", 10, **settings), checks.random_images(SMALL)
    variables = checks.random_variables(model, SMALL)
    actual = checks.jit(functools.partial(model.apply, train=True))(variables, images)
    assert (actual.shape, actual.dtype) == ((3, 10), jnp.float32)
    np.testing.assert_allclose(actual, reference(model, variables, images), rtol=1e-4, atol=1e-4)


def test_every_class_is_equally_probable_at_first():
    model, images = ViT("mu/4", 10), checks.random_images(SMALL)
    variables = checks.initial_variables(model, images)
    logits = checks.jit(functools.partial(model.apply, train=False))(variables, images)
    np.testing.assert_array_equal(jax.nn.softmax(logits), np.full((3, 10), 0.1, np.float32))


def test_initial_values():
    model, images = ViT("mu/4", 10, **CLASS_TOKEN), checks.random_images((1, 128, 128, 3))
    params = checks.initial_variables(model, images)["params"]
    assert np.std(params["positions"]) == pytest.approx(0.02, rel=0.02)
    assert not np.any(params["class_token"])
    assert np.std(params["embedding"]["kernel"]) == pytest.approx(48**-0.5, rel=0.05)  # LeCun
    xavier = math.sqrt(6 / (32 + 128))
    assert np.max(np.abs(params["block1"]["mlp1"]["kernel"])) == pytest.approx(xavier, rel=0.01)


def test_dropout_acts_in_training_and_follows_its_key():
    model, images = ViT("mu/4", 10, dropout=0.5), checks.random_images(SMALL)
    variables = checks.random_variables(model, SMALL)

    @functools.partial(checks.jit, static_argnames="train")
    def logits(key, train):
        return model.apply(variables, images, train=train, rngs={"dropout": key})

    first, second = (logits(jax.random.key(seed), train=True) for seed in (0, 1))
    assert np.all(first != second)
    np.testing.assert_array_equal(first, logits(jax.random.key(0), train=True))
    expected = reference(model, variables, images)
    for seed in (0, 1):
        actual = logits(jax.random.key(seed), train=False)
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def test_remat_changes_memory_only():
    plain, remat = ViT("mu/4", 10, dropout=0.3), ViT("mu/4", 10, dropout=0.3, remat=True)
    checks.check_remat(plain, remat, SMALL, blocks=1)
    initial = [checks.initial_variables(m, checks.random_images(SMALL)) for m in (plain, remat)]
    jax.tree.map(np.testing.assert_array_equal, *initial)


@pytest.mark.standard_promotion  # flax's layer norm subtracts a float32 mean from bfloat16
def test_bfloat16():
    model = ViT("mu/4", 10, pooling="class_token")
    checks.check_bfloat16(model, model.clone(dtype=jnp.bfloat16), SMALL)
