"""DALR's Hessian-vector product through batch norm, attention and chunks of the batch."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rkbench import optimizers
from rkbench.rk.vector_space import norm
from rkbench.step.gradients import Objective
from rkbench.workloads.augment import Augmentation
from rkbench.workloads.datasets import ArrayDataset
from rkbench.workloads.image_classification import ImageClassification, compute_dtype, input_scaling


class Mixed(nn.Module):
    """The kinds of layers of the large models, in small."""

    @nn.compact
    def __call__(self, images, *, train):
        tokens = nn.Conv(8, (2, 2), strides=2)(images)
        tokens = nn.gelu(nn.BatchNorm(use_running_average=not train)(tokens))
        tokens = nn.LayerNorm()(tokens.reshape(len(images), -1, 8))
        tokens = tokens + nn.MultiHeadDotProductAttention(2)(tokens)
        return nn.Dense(3)(tokens.mean(axis=1))


@pytest.mark.parametrize("chunk", [0, 3])
def test_it_goes_through_batch_norm_and_attention(chunk):
    """||H g|| / ||g||, from the step size, against the gradient of <g(theta), g>, which is H g too.

    (The step differentiates forwards through the gradient, the check backwards.)
    """
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 4, 4, 1), np.uint8)
    split = {"image": images, "label": np.arange(6, dtype=np.int32) % 3}
    dataset = ArrayDataset("tiny", "1", "f", 3, 255, split, split)
    workload = ImageClassification(
        "tiny",
        dataset,
        Mixed(),
        input_scaling("unit", dataset),
        l2=0.1,
        label_smoothing=0.1,
        convolves=True,
        augment=Augmentation(),
        dtype=compute_dtype("float32"),
    )
    params, state = jax.jit(workload.init)(jax.random.key(0))
    data = jax.tree.map(jnp.asarray, split)
    objective = Objective(workload, data, jnp.arange(6), state, jax.random.key(2), chunk)
    optimizer = optimizers.create("euler", step_size="dalr", c=1.0, p=1.0)

    @jax.jit
    def both(params):
        g = objective.gradient(params)
        start = optimizer.init(params)
        after = optimizer.update(g, start, params, grad_fn=objective.gradient)[1]
        product = jax.grad(lambda p: optax.tree.vdot(objective.gradient(p), g))(params)
        return optimizers.step_size(after, default=None), norm(product) / norm(g)

    step_size, curvature = map(float, both(params))
    # h = c / (1 + c/2 (||H g|| / ||g||)^p) with c = p = 1
    assert 2 * (1 / step_size - 1) == pytest.approx(curvature, rel=1e-3)
