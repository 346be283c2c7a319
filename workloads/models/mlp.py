"""The fully connected network of the paper ("DNN", "MLP"; Appendices D.1 to D.5)."""

import flax.linen as nn
import jax


class MLP(nn.Module):
    """Flatten, a dense layer with relu for each of `hidden_sizes`, then a dense layer of logits.

    Kernels are drawn by Flax's default (LeCun normal), biases start at zero. With the paper's three
    layers of 500 it has 898,510 parameters on 28x28 images with 10 classes.
    """

    hidden_sizes: tuple[int, ...]
    num_classes: int

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Logits [B, num_classes] of `images` [B, ...]; the same in training and in evaluation."""
        del train
        hidden = images.reshape(images.shape[0], -1)
        for size in self.hidden_sizes:
            hidden = nn.relu(nn.Dense(size)(hidden))
        return nn.Dense(self.num_classes)(hidden)
