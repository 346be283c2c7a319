import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from rkbench.errors import UserError
from rkbench.workloads.models import convolution
from rkbench.workloads.models.cnn import CNN
from rkbench.workloads.models.convolution import matmul_convolution
from rkbench.workloads.models.mlp import MLP

NHWC = ("NHWC", "HWIO", "NHWC")


def initial(model, shape) -> dict[str, Any]:
    init = jax.jit(functools.partial(model.init, train=False))  # quicker than one op at a time
    return init(jax.random.key(0), jnp.ones(shape))["params"]


def apply(model, params, images) -> np.ndarray:
    return np.asarray(
        jax.jit(functools.partial(model.apply, train=False))({"params": params}, images)
    )


def count(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def test_mlp_has_the_papers_shape():
    params = initial(MLP((500, 500, 500), 10), (2, 28, 28, 1))
    kernels = [layer["kernel"].shape for layer in params.values()]
    assert kernels == [(784, 500), (500, 500), (500, 500), (500, 10)]
    assert count(params) == 898_510
    assert not any(np.any(layer["bias"]) for layer in params.values())
    # LeCun normal: variance 1 / fan-in
    assert np.std(params["Dense_1"]["kernel"]) == pytest.approx(500**-0.5, rel=0.01)


def test_mlp_is_relu_layers():
    model = MLP((5, 4), 3)
    images = jax.random.normal(jax.random.key(1), (7, 2, 3, 1))
    params = initial(model, images.shape)
    params = jax.tree.map(np.asarray, params)
    hidden = np.asarray(images).reshape(7, 6)
    for name in ("Dense_0", "Dense_1"):
        hidden = np.maximum(hidden @ params[name]["kernel"] + params[name]["bias"], 0)
    expected = hidden @ params["Dense_2"]["kernel"] + params["Dense_2"]["bias"]
    np.testing.assert_allclose(apply(model, params, images), expected, rtol=1e-5, atol=1e-6)


def test_cnn_has_the_papers_shape():
    params = initial(CNN((20, 10), 3, 10, lax.conv_general_dilated), (2, 28, 28, 1))
    kernels = [layer["kernel"].shape for layer in params.values()]
    assert kernels == [(3, 3, 1, 20), (3, 3, 20, 10), (28 * 28 * 10, 10)]
    assert count(params) == 80_420


def test_cnn_is_the_same_with_either_convolution():
    images = jax.random.normal(jax.random.key(1), (3, 9, 8, 2))
    models = [CNN((4, 3), 3, 5, convolution.choose(name)) for name in ("xla", "matmul")]
    params = initial(models[0], images.shape)
    assert jax.tree.map(jnp.shape, initial(models[1], images.shape)) == jax.tree.map(
        jnp.shape, params
    )
    expected, actual = (apply(model, params, images) for model in models)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("padding", "window", "channels", "strides"),
    [
        ("SAME", (3, 3), (1, 6), (1, 1)),
        ("SAME", (3, 3), (6, 2), (2, 2)),
        ("SAME", (2, 4), (3, 2), (1, 1)),  # an even window: the odd one of the padding goes after
        ("SAME", (1, 1), (3, 2), (2, 2)),
        ("VALID", (5, 3), (3, 2), (2, 3)),
        ("VALID", (1, 1), (3, 2), (1, 1)),
        ([(2, 0), (1, 3)], (3, 2), (2, 2), (1, 2)),
    ],
)
def test_matmul_convolution_equals_xlas(padding, window, channels, strides):
    keys = jax.random.split(jax.random.key(0), 4)
    images = jax.random.normal(keys[0], (2, 7, 6, channels[0]))
    kernel = jax.random.normal(keys[1], (*window, *channels))

    def convolve(convolution, images, kernel):
        return convolution(images, kernel, strides, padding, dimension_numbers=NHWC)

    directions = (
        jax.random.normal(keys[2], images.shape),
        jax.random.normal(keys[3], kernel.shape),
    )

    def results(convolution):
        """The value, gradients of a non-linear function of it, and a Hessian-vector product."""

        def loss(images, kernel):
            return jnp.sum(jnp.sin(convolve(convolution, images, kernel)))

        gradient = jax.grad(loss, argnums=(0, 1))
        value = convolve(convolution, images, kernel)
        return value, *jax.jvp(gradient, (images, kernel), directions)

    expected = jax.jit(lambda: results(lax.conv_general_dilated))()
    actual = jax.jit(lambda: results(matmul_convolution))()
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), actual, expected
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lhs_dilation": (2, 2)}, "lhs_dilation"),
        ({"rhs_dilation": (1, 2)}, "rhs_dilation"),
        ({"feature_group_count": 2}, "feature_group_count"),
        ({"dimension_numbers": ("NCHW", "OIHW", "NCHW")}, "layout"),
        ({"dimension_numbers": None}, "layout"),
    ],
)
def test_matmul_convolution_refuses_what_it_does_not_do(settings, message):
    arguments = {"window_strides": (1, 1), "padding": "SAME", "dimension_numbers": NHWC}
    with pytest.raises(NotImplementedError, match=message):
        matmul_convolution(
            jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 2)), **{**arguments, **settings}
        )


def test_matmul_convolution_inside_flax_with_several_batch_dimensions():
    images = jnp.sin(jnp.arange(360.0)).reshape(2, 3, 6, 5, 2)
    layers = [
        nn.Conv(4, (3, 3), conv_general_dilated=convolve) for convolve in (None, matmul_convolution)
    ]
    variables = jax.jit(layers[0].init)(jax.random.key(1), images)
    expected, actual = (np.asarray(jax.jit(layer.apply)(variables, images)) for layer in layers)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_auto_is_the_matrix_product_on_a_cpu():
    expected = {"cpu": matmul_convolution}.get(jax.default_backend(), lax.conv_general_dilated)
    assert convolution.choose("auto") is expected


def test_unknown_convolution_names_the_nearest():
    with pytest.raises(UserError, match="'matmull'; nearest: matmul"):
        convolution.choose("matmull")
