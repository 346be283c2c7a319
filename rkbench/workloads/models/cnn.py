"""The paper's "Simple CNN" (Table 1, Appendix D.5), read as init2winit's `simple_cnn`."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype


class CNN(nn.Module):
    """Convolutions with relu, one for each of `features`, then a dense layer of logits.

    Stride 1, SAME padding, no pooling: with features (20, 10), 3x3 kernels, 28x28 images and
    10 classes it has 80,420 parameters. `convolution` stands in for `jax.lax.conv_general_dilated`;
    `dtype` is the computation's; parameters and logits are float32.
    """

    features: tuple[int, ...]
    kernel_size: int
    num_classes: int
    convolution: Callable[..., jax.Array]
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Logits [B, num_classes] of `images` [B, H, W, C]; the same in training and evaluation."""
        del train
        hidden = images
        for features in self.features:
            convolve = nn.Conv(
                features,
                (self.kernel_size, self.kernel_size),
                dtype=self.dtype,
                conv_general_dilated=self.convolution,
            )
            hidden = nn.relu(convolve(hidden))
        head = nn.Dense(self.num_classes, dtype=self.dtype)
        return head(hidden.reshape(hidden.shape[0], -1)).astype(jnp.float32)
