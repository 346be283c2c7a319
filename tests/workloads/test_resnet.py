import functools

import jax
import jax.numpy as jnp
import model_checks as checks
import numpy as np
import pytest
from jax import lax

from rkbench.workloads.models.convolution import matmul_convolution
from rkbench.workloads.models.resnet import ResNet18

CIFAR = (2, 32, 32, 3)
SMALL = (3, 8, 8, 3)
STRIDED = ("stage2_block1", "stage3_block1", "stage4_block1")


def small(**settings):
    return ResNet18(10, features=4, **settings)


def test_published_parameter_counts():
    assert checks.count(ResNet18(10), CIFAR) == 11_173_962
    assert checks.count(ResNet18(100), CIFAR) == 11_173_962 + 90 * 513


def norm(name, features):
    return {f"{name}/scale": (features,), f"{name}/bias": (features,)}


def block(name, inputs, features):
    layers = {
        f"{name}/conv1/kernel": (3, 3, inputs, features),
        **norm(f"{name}/norm1", features),
        f"{name}/conv2/kernel": (3, 3, features, features),
        **norm(f"{name}/norm2", features),
    }
    if inputs != features:
        layers[f"{name}/projection/kernel"] = (1, 1, inputs, features)
        layers.update(norm(f"{name}/projection_norm", features))
    return layers


def test_layers():
    assert checks.table(ResNet18(10), CIFAR) == {
        "stem/kernel": (3, 3, 3, 64),
        **norm("stem_norm", 64),
        **block("stage1_block1", 64, 64),
        **block("stage1_block2", 64, 64),
        **block("stage2_block1", 64, 128),
        **block("stage2_block2", 128, 128),
        **block("stage3_block1", 128, 256),
        **block("stage3_block2", 256, 256),
        **block("stage4_block1", 256, 512),
        **block("stage4_block2", 512, 512),
        "head/kernel": (512, 10),
        "head/bias": (10,),
    }


def test_output_of_the_full_size():
    variables = checks.abstract(ResNet18(10), CIFAR)
    apply = ResNet18(10).apply
    logits = jax.eval_shape(lambda v: apply(v, jnp.zeros(CIFAR), train=False), variables)
    assert (logits.shape, logits.dtype) == ((2, 10), jnp.float32)


def reference(variables, images, train):
    """ResNet-18 written out."""
    params, stats = variables["params"], variables["batch_stats"]

    def normalise(x, p, s):
        mean = jnp.mean(x, (0, 1, 2), keepdims=True) if train else s["mean"].reshape(1, 1, 1, -1)
        var = jnp.var(x, (0, 1, 2), keepdims=True) if train else s["var"].reshape(1, 1, 1, -1)
        scaled = (x - mean) / jnp.sqrt(var + 1e-5) * p["scale"].reshape(1, 1, 1, -1)
        return scaled + p["bias"].reshape(1, 1, 1, -1)

    def conv(x, p, strides=1):
        layout = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(
            x, p["kernel"], (strides, strides), "SAME", dimension_numbers=layout
        )

    x = conv(images, params["stem"])
    x = jnp.maximum(normalise(x, params["stem_norm"], stats["stem_norm"]), 0)
    for name in (f"stage{stage}_block{i}" for stage in (1, 2, 3, 4) for i in (1, 2)):
        p, s, strides = params[name], stats[name], 2 if name in STRIDED else 1
        y = normalise(conv(x, p["conv1"], strides), p["norm1"], s["norm1"])
        y = normalise(conv(jnp.maximum(y, 0), p["conv2"]), p["norm2"], s["norm2"])
        if name in STRIDED:
            x = conv(x, p["projection"], strides)
            x = normalise(x, p["projection_norm"], s["projection_norm"])
        x = jnp.maximum(x + y, 0)
    x = jnp.mean(x, (1, 2))
    return x @ params["head"]["kernel"] + params["head"]["bias"].reshape(1, -1)


@pytest.mark.parametrize("train", [False, True])
def test_is_the_published_network(train):
    model, images = small(), checks.random_images(SMALL)
    variables = checks.random_variables(model, SMALL)

    @checks.jit
    def logits(variables):
        return model.apply(variables, images, train=train, mutable=["batch_stats"])[0]

    expected = checks.jit(lambda v: reference(v, images, train))(variables)
    np.testing.assert_allclose(logits(variables), expected, rtol=1e-3, atol=1e-3)


def test_running_statistics_change_in_training_only():
    checks.check_batch_stats(small(), SMALL)


def test_matrix_product_convolution_gives_the_same():
    images = checks.random_images(SMALL)
    models = [small(convolve=convolve) for convolve in (None, matmul_convolution)]
    variables = checks.random_variables(models[0], SMALL)

    logits = [functools.partial(m.apply, images=images, train=False) for m in models]
    programs = [str(jax.make_jaxpr(f)(variables)) for f in logits]
    assert [p.count("conv_general_dilated[") for p in programs] == [20, 0]
    expected, actual = (checks.jit(f)(variables) for f in logits)
    checks.assert_alike(actual, expected, 1e-5)


def test_remat_changes_memory_only():
    checks.check_remat(small(), small(remat=True), SMALL, blocks=8)


@pytest.mark.standard_promotion  # flax's batch norm subtracts a float32 mean from bfloat16
def test_bfloat16():
    checks.check_bfloat16(small(), small(dtype=jnp.bfloat16), SMALL)
