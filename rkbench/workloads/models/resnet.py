"""ResNet-18 in the form customary for CIFAR; He et al. 2015, https://arxiv.org/abs/1512.03385."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from rkbench.workloads.models.residual import Convolve, Layers


class BasicBlock(nn.Module):
    """relu(x + f(x)) with f two 3x3 convolutions, each before batch norm, relu between.

    Where f changes the shape, x is replaced by batch norm of a 1x1 convolution of it.
    """

    features: int
    strides: int
    layers: Layers

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """[B, H, W, I] -> [B, H / strides, W / strides, features], rounded up."""
        layers, features, strides = self.layers, self.features, self.strides
        hidden = layers.convolution(features, 3, strides=strides, name="conv1")(inputs)
        hidden = nn.relu(layers.batch_norm("norm1")(hidden))
        hidden = layers.convolution(features, 3, name="conv2")(hidden)
        hidden = layers.batch_norm("norm2")(hidden)
        shortcut = inputs
        if strides != 1 or inputs.shape[-1] != features:
            project = layers.convolution(features, 1, strides=strides, name="projection")
            shortcut = layers.batch_norm("projection_norm")(project(inputs))
        return nn.relu(shortcut + hidden)


class ResNet18(nn.Module):
    """Four stages of two basic blocks with 1, 2, 4 and 8 times `features` channels.

    Stages after the first halve the resolution. The stem is a 3x3 convolution of stride 1 with
    batch norm and relu, without the 7x7 kernel, stride and max pooling of the form for ImageNet.
    11,173,962 parameters with the standard 64 features and 10 classes.

    The paper names no implementation. Kernels start LeCun normal (He et al.: He normal), and SAME
    padding at stride 2 pads the far side only (PyTorch's: both), as in init2winit.

    `convolve` is what convolves. `dtype` is the computation's; parameters and logits are float32.
    `remat` computes each block again in the backward pass instead of keeping its activations; the
    values are the same. Batch statistics are averaged over the mesh axes `batch_axes`.
    """

    num_classes: int
    convolve: Convolve | None = None
    dtype: Dtype = jnp.float32
    remat: bool = False
    batch_axes: tuple[str, ...] = ()
    features: int = 64

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Logits [B, num_classes] float32 of `images` [B, H, W, C].

        In training every example's logits depend on the whole batch, through its statistics, and
        the collection "batch_stats" changes.
        """
        layers = Layers(train, self.convolve, self.dtype, self.batch_axes)
        block = nn.remat(BasicBlock) if self.remat else BasicBlock
        hidden = layers.convolution(self.features, 3, name="stem")(images)
        hidden = nn.relu(layers.batch_norm("stem_norm")(hidden))
        for stage in range(4):
            for i in range(2):
                strides = 2 if stage > 0 and i == 0 else 1
                name = f"stage{stage + 1}_block{i + 1}"
                hidden = block(self.features * 2**stage, strides, layers, name=name)(hidden)
        return layers.head(hidden, self.num_classes)
