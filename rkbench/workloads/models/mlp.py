"""The fully connected network of the paper ("DNN", "MLP"; Appendices D.1 to D.5)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype


class MLP(nn.Module):
    """Flatten, a dense layer with relu for each of `hidden_sizes`, then a dense layer of logits.

    Kernels are drawn by Flax's default (LeCun normal), biases start at zero. With the paper's three
    layers of 500 it has 898,510 parameters on 28x28 images with 10 classes. `dtype` is the
    computation's; parameters and logits are float32.
    """

    hidden_sizes: tuple[int, ...]
    num_classes: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Logits [B, num_classes] of `images` [B, ...]; the same in training and in evaluation."""
        del train
        hidden = images.reshape(images.shape[0], -1)
        for size in self.hidden_sizes:
            hidden = nn.relu(nn.Dense(size, dtype=self.dtype)(hidden))
        logits = nn.Dense(self.num_classes, dtype=self.dtype)(hidden)
        return logits.astype(jnp.float32)
