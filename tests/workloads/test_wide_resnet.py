import functools

import jax
import jax.numpy as jnp
import model_checks as checks
import numpy as np
import pytest
from jax import lax

from rkbench.errors import UserError
from rkbench.workloads.models.convolution import matmul_convolution
from rkbench.workloads.models.wide_resnet import WideResNet

CIFAR = (2, 32, 32, 3)
SMALL = (3, 8, 8, 3)


@pytest.mark.parametrize(
    ("depth", "width", "classes", "parameters"),
    [
        (28, 10, 10, 36_479_194),
        (28, 10, 100, 36_536_884),
        (10, 1, 10, 77_850),
    ],
)
def test_published_parameter_counts(depth, width, classes, parameters):
    assert checks.count(WideResNet(depth, width, classes), CIFAR) == parameters


def norm(name, features):
    return {f"{name}/scale": (features,), f"{name}/bias": (features,)}


def block(name, inputs, features):
    layers = {
        **norm(f"{name}/norm1", inputs),
        f"{name}/conv1/kernel": (3, 3, inputs, features),
        **norm(f"{name}/norm2", features),
        f"{name}/conv2/kernel": (3, 3, features, features),
    }
    if inputs != features:
        layers[f"{name}/projection/kernel"] = (1, 1, inputs, features)
    return layers


def test_layers_of_wrn_10_1():
    assert checks.table(WideResNet(10, 1, 10), CIFAR) == {
        "stem/kernel": (3, 3, 3, 16),
        **block("group1_block1", 16, 16),
        **block("group2_block1", 16, 32),
        **block("group3_block1", 32, 64),
        **norm("norm", 64),
        "head/kernel": (64, 10),
        "head/bias": (10,),
    }


def test_layers_of_wrn_16_2():
    layers = checks.table(WideResNet(16, 2, 10), CIFAR)
    for group, inputs, features in ((1, 16, 32), (2, 32, 64), (3, 64, 128)):
        for i in (1, 2):
            expected = block(f"group{group}_block{i}", inputs if i == 1 else features, features)
            assert expected.items() <= layers.items()
    assert sum(name.endswith("conv1/kernel") for name in layers) == 6
    assert sum("projection" in name for name in layers) == 3


def test_running_statistics_of_every_norm():
    layers = checks.table(WideResNet(10, 1, 10), CIFAR)
    statistics = checks.table(WideResNet(10, 1, 10), CIFAR, "batch_stats")
    assert statistics == {
        name.replace("/scale", f"/{kind}"): shape
        for name, shape in layers.items()
        if name.endswith("/scale")
        for kind in ("mean", "var")
    }


def reference(variables, images, train):
    """WRN-10-1 written out."""
    params, stats = variables["params"], variables["batch_stats"]

    def activate(x, p, s):
        mean = jnp.mean(x, (0, 1, 2), keepdims=True) if train else s["mean"].reshape(1, 1, 1, -1)
        var = jnp.var(x, (0, 1, 2), keepdims=True) if train else s["var"].reshape(1, 1, 1, -1)
        scaled = (x - mean) / jnp.sqrt(var + 1e-5) * p["scale"].reshape(1, 1, 1, -1)
        return jnp.maximum(scaled + p["bias"].reshape(1, 1, 1, -1), 0)

    def conv(x, p, strides=1):
        layout = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(
            x, p["kernel"], (strides, strides), "SAME", dimension_numbers=layout
        )

    x = conv(images, params["stem"])
    for group in (1, 2, 3):
        name, strides = f"group{group}_block1", 1 if group == 1 else 2
        p, s = params[name], stats[name]
        y = activate(x, p["norm1"], s["norm1"])
        shortcut = x if group == 1 else conv(y, p["projection"], strides)
        y = activate(conv(y, p["conv1"], strides), p["norm2"], s["norm2"])
        x = shortcut + conv(y, p["conv2"])
    x = jnp.mean(activate(x, params["norm"], stats["norm"]), (1, 2))
    return x @ params["head"]["kernel"] + params["head"]["bias"].reshape(1, -1)


@pytest.mark.parametrize("train", [False, True])
def test_is_the_published_network(train):
    model, images = WideResNet(10, 1, 10), checks.random_images(SMALL)
    variables = checks.random_variables(model, SMALL)

    @checks.jit
    def logits(variables):
        return model.apply(variables, images, train=train, mutable=["batch_stats"])[0]

    actual = logits(variables)
    assert (actual.shape, actual.dtype) == ((3, 10), jnp.float32)
    expected = checks.jit(lambda v: reference(v, images, train))(variables)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def test_running_statistics_change_in_training_only():
    checks.check_batch_stats(WideResNet(10, 1, 10), SMALL)


def test_running_statistics_are_the_batchs():
    model, images = WideResNet(10, 1, 10), checks.random_images(SMALL)
    variables = checks.random_variables(model, SMALL)
    _, state = checks.jit(lambda v: model.apply(v, images, train=True, mutable=["batch_stats"]))(
        variables
    )
    before = variables["batch_stats"]["group1_block1"]["norm1"]
    after = state["batch_stats"]["group1_block1"]["norm1"]
    kernel = variables["params"]["stem"]["kernel"]
    layout = ("NHWC", "HWIO", "NHWC")
    stem = lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=layout)
    batch = {"mean": np.mean(stem, (0, 1, 2)), "var": np.var(stem, (0, 1, 2))}
    for kind, value in batch.items():
        expected = 0.9 * np.asarray(before[kind]) + 0.1 * value
        np.testing.assert_allclose(after[kind], expected, rtol=1e-4, atol=1e-5)


def test_matrix_product_convolution_gives_the_same():
    images = checks.random_images(SMALL)
    models = [WideResNet(10, 1, 10, convolve) for convolve in (None, matmul_convolution)]
    variables = checks.random_variables(models[0], SMALL)
    logits = [functools.partial(m.apply, images=images, train=False) for m in models]
    programs = [str(jax.make_jaxpr(f)(variables)) for f in logits]
    assert [p.count("conv_general_dilated[") for p in programs] == [9, 0]
    expected, actual = (checks.jit(f)(variables) for f in logits)
    checks.assert_alike(actual, expected, 1e-5)


def test_remat_changes_memory_only():
    plain, remat = WideResNet(10, 1, 10), WideResNet(10, 1, 10, remat=True)
    checks.check_remat(plain, remat, SMALL, blocks=3)
    initial = [checks.initial_variables(m, checks.random_images(SMALL)) for m in (plain, remat)]
    jax.tree.map(np.testing.assert_array_equal, *initial)


@pytest.mark.standard_promotion  # flax's batch norm subtracts a float32 mean from bfloat16
def test_bfloat16():
    checks.check_bfloat16(WideResNet(10, 1, 10), WideResNet(10, 1, 10, dtype=jnp.bfloat16), SMALL)


@pytest.mark.parametrize(("depth", "width"), [(4, 1), (12, 1), (29, 10), (-2, 1), (10, 0)])
def test_refuses_what_is_no_wide_resnet(depth, width):
    with pytest.raises(UserError, match="must be"):
        WideResNet(depth, width, 10)
