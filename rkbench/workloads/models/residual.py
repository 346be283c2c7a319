"""What the residual networks share: their convolutions, batch norms and averaging head."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

Convolve = Callable[..., jax.Array]
"""What `nn.Conv` takes as `conv_general_dilated`; see `workloads/models/convolution.py`."""


@dataclasses.dataclass(frozen=True)
class Layers:
    """Makes the layers of one network: all convolve and normalise in the same way.

    `train` chooses between the statistics of the batch, with an update of the running ones, and the
    running ones. Computation is in `dtype`; parameters and statistics are float32, and the
    statistics are summed in float32 whatever `dtype` is. None for `convolve` is XLA's convolution.
    Statistics are those of the whole chunk, averaged over the mesh axes `batch_axes`.
    """

    train: bool
    convolve: Convolve | None
    dtype: Dtype
    batch_axes: tuple[str, ...] = ()

    def convolution(self, features: int, size: int, *, strides: int = 1, name: str) -> nn.Conv:
        """A `size` x `size` convolution without bias, padded SAME: [B, H, W, I] -> [B, H', W', O].

        Kernels start LeCun normal, as init2winit's networks do.
        """
        return nn.Conv(
            features,
            (size, size),
            strides,
            padding="SAME",
            use_bias=False,
            dtype=self.dtype,
            conv_general_dilated=self.convolve,
            name=name,
        )

    def batch_norm(self, name: str) -> nn.BatchNorm:
        """Over batch and space, with scale and bias; running <- 0.9 running + 0.1 batch."""
        axes: Any = self.batch_axes or None  # Flax's type names one axis, JAX takes several
        return nn.BatchNorm(
            use_running_average=not self.train,
            momentum=0.9,
            epsilon=1e-5,
            dtype=self.dtype,
            axis_name=axes,
            name=name,
        )

    def head(self, hidden: jax.Array, num_classes: int) -> jax.Array:
        """Average over space, then a dense layer: [B, H, W, C] -> float32 logits [B, K]."""
        pooled = jnp.mean(hidden, axis=(1, 2))
        return nn.Dense(num_classes, dtype=self.dtype, name="head")(pooled).astype(jnp.float32)
