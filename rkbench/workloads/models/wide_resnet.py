"""Wide residual networks: Zagoruyko & Komodakis 2016, https://arxiv.org/abs/1605.07146."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from rkbench.errors import UserError
from rkbench.workloads.models.residual import Convolve, Layers


class PreActivationBlock(nn.Module):
    """x + f(x) with f two 3x3 convolutions, each after batch norm and relu.

    Where f changes the shape, x is replaced by a 1x1 convolution of its first activation, without
    batch norm. No dropout.
    """

    features: int
    strides: int
    layers: Layers

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """[B, H, W, I] -> [B, H / strides, W / strides, features], rounded up."""
        layers, features, strides = self.layers, self.features, self.strides
        hidden = nn.relu(layers.batch_norm("norm1")(inputs))
        shortcut = inputs
        if strides != 1 or inputs.shape[-1] != features:
            project = layers.convolution(features, 1, strides=strides, name="projection")
            shortcut = project(hidden)
        hidden = layers.convolution(features, 3, strides=strides, name="conv1")(hidden)
        hidden = nn.relu(layers.batch_norm("norm2")(hidden))
        return shortcut + layers.convolution(features, 3, name="conv2")(hidden)


class WideResNet(nn.Module):
    """WRN-`depth`-`width`: three groups of (depth - 4) / 6 pre-activation blocks.

    The groups have 16, 32 and 64 times `width` channels; the second and third halve the
    resolution. WRN-28-10 has 36,479,194 parameters with 10 classes, 36,536,884 with 100; WRN-10-1
    has 77,850 with 10.

    Where the original differs, this is init2winit's form, from which the paper's baselines come:
    LeCun normal kernels (there He normal) and SAME padding, which at stride 2 pads the far side
    only (there both sides).

    `convolve` is what convolves. `dtype` is the computation's; parameters and logits are float32.
    `remat` computes each block again in the backward pass instead of keeping its activations; the
    values are the same. Batch statistics are averaged over the mesh axes `batch_axes`.

    Raises UserError for a depth other than 10, 16, 22, 28, ... and a width below 1.
    """

    depth: int
    width: int
    num_classes: int
    convolve: Convolve | None = None
    dtype: Dtype = jnp.float32
    remat: bool = False
    batch_axes: tuple[str, ...] = ()

    def __post_init__(self):
        if self.depth < 10 or (self.depth - 4) % 6:
            raise UserError(f"depth of a wide ResNet is {self.depth}, must be 10, 16, 22, 28, ...")
        if self.width < 1:
            raise UserError(f"width of a wide ResNet is {self.width}, must be at least 1")
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Logits [B, num_classes] float32 of `images` [B, H, W, C].

        In training every example's logits depend on the whole batch, through its statistics, and
        the collection "batch_stats" changes.
        """
        layers = Layers(train, self.convolve, self.dtype, self.batch_axes)
        block = nn.remat(PreActivationBlock) if self.remat else PreActivationBlock
        hidden = layers.convolution(16, 3, name="stem")(images)
        for group in range(3):
            for i in range((self.depth - 4) // 6):
                strides = 2 if group > 0 and i == 0 else 1
                name = f"group{group + 1}_block{i + 1}"
                hidden = block(16 * 2**group * self.width, strides, layers, name=name)(hidden)
        return layers.head(nn.relu(layers.batch_norm("norm")(hidden)), self.num_classes)
