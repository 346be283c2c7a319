"""Vision transformers: Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929."""

import re
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Dtype

from rkbench.errors import UserError, unknown


class Shape(NamedTuple):
    """Of an encoder: channels of a token, number of blocks, attention heads in each."""

    width: int
    depth: int
    heads: int


_SHAPES = {  # big_vision's names; "mu" is for tests
    "mu": Shape(32, 1, 2),
    "Ti": Shape(192, 12, 3),
    "S": Shape(384, 12, 6),
    "B": Shape(768, 12, 12),
    "L": Shape(1024, 24, 16),
}
_POOLINGS = ("mean", "class_token")
_POSITIONS = ("sincos", "learned")


def parse_variant(variant: str) -> tuple[Shape, int]:
    """The encoder's shape and the side of a patch in pixels: "B/16" is ((768, 12, 12), 16).

    Raises UserError for an unknown size and for what is not `<size>/<positive number>`.
    """
    match = re.fullmatch(r"(\w+)/([1-9]\d*)", str(variant))
    if match is None or match[1] not in _SHAPES:
        raise unknown("ViT variant", variant, [f"{name}/16" for name in _SHAPES])
    return _SHAPES[match[1]], int(match[2])


def sincos_positions(rows: int, columns: int, width: int) -> np.ndarray:
    """Fixed 2-d position embedding of a grid of patches, float32 [rows * columns, width].

    With omega_k = 10000^(-k / (width/4 - 1)), k = 0 .. width/4 - 1, the patch in row y and column x
    has the four quarters sin(x omega), cos(x omega), sin(y omega), cos(y omega): the form of MoCo
    v3 (https://arxiv.org/abs/2104.02057) that AlgoPerf uses. `width` is a multiple of 4 from 8.
    """
    omega = 10_000.0 ** -np.linspace(0, 1, width // 4)
    y, x = np.divmod(np.arange(rows * columns), columns)
    angles_x, angles_y = x[:, None] * omega, y[:, None] * omega
    quarters = [np.sin(angles_x), np.cos(angles_x), np.sin(angles_y), np.cos(angles_y)]
    return np.concatenate(quarters, axis=1).astype(np.float32)


def patches(images: jax.Array, side: int) -> jax.Array:
    """`images` [B, H, W, C] cut up: [B, H / side, W / side, side * side * C], in row-major order.

    Raises UserError when `side` does not divide H and W.
    """
    batch, height, width, channels = images.shape
    if height % side or width % side:
        raise UserError(f"images of {height}x{width} pixels are not whole patches of {side}x{side}")
    grid = images.reshape(batch, height // side, side, width // side, side, channels)
    return grid.swapaxes(2, 3).reshape(batch, height // side, width // side, -1)


class EncoderBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)): layer norm comes first ("pre-LN").

    The MLP widens four times, with GELU (its tanh form). Dropout acts inside the MLP and on what
    both add, not on the attention weights.
    """

    heads: int
    dropout: float
    dtype: Dtype
    train: bool

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """[B, T, width] -> [B, T, width]."""
        hidden = nn.LayerNorm(dtype=self.dtype, name="norm1")(tokens)
        attention = nn.MultiHeadDotProductAttention(
            self.heads,
            dtype=self.dtype,
            kernel_init=nn.initializers.xavier_uniform(),
            name="attention",
        )
        tokens = tokens + self._drop(attention(hidden))
        hidden = nn.LayerNorm(dtype=self.dtype, name="norm2")(tokens)
        hidden = nn.gelu(self._mlp_layer(4 * tokens.shape[-1], "mlp1")(hidden))
        hidden = self._mlp_layer(tokens.shape[-1], "mlp2")(self._drop(hidden))
        return tokens + self._drop(hidden)

    def _mlp_layer(self, features: int, name: str) -> nn.Dense:
        return nn.Dense(
            features,
            dtype=self.dtype,
            kernel_init=nn.initializers.xavier_uniform(),
            bias_init=nn.initializers.normal(1e-6),
            name=name,
        )

    def _drop(self, hidden: jax.Array) -> jax.Array:
        return nn.Dropout(self.dropout, deterministic=not self.train)(hidden)


class ViT(nn.Module):
    """A vision transformer by `variant`, `<size>/<patch>`: Ti/16, S/16, B/16, L/16, B/32, ...

    The defaults are AlgoPerf's form: fixed sin-cos positions, the mean over the tokens, a head that
    starts at zero (so that every class is equally probable). The original form has
    `pooling="class_token"` (the output at an extra token, first in the sequence, learned from zero)
    and `positions="learned"` (drawn with standard deviation 0.02, one for the extra token as well;
    sin-cos positions give it a zero). `representation_layer` puts a dense layer with tanh before
    the head; AlgoPerf's own code turns it on, the form that issues and papers count does not.

    At 224x224 with 1000 classes B/16 has 86,415,592 parameters, 87,006,184 with the representation
    layer, 86,567,656 in the original form.

    The embedding, a convolution of stride `patch` elsewhere, is written as the dense layer on
    patches that it is: no backend has to see a strided convolution, and its kernel starts the same.

    `dropout` is a rate in [0, 1), drawn from the stream "dropout" in training. `dtype` is the
    computation's; parameters and logits are float32. `remat` computes each block again in the
    backward pass instead of keeping its activations; the values are the same.

    Raises UserError for an unknown variant, pooling or positions, or a rate out of range.
    """

    variant: str
    num_classes: int
    pooling: str = "mean"
    positions: str = "sincos"
    representation_layer: bool = False
    dropout: float = 0.0
    dtype: Dtype = jnp.float32
    remat: bool = False

    def __post_init__(self):
        parse_variant(self.variant)
        if self.pooling not in _POOLINGS:
            raise unknown("pooling", self.pooling, _POOLINGS)
        if self.positions not in _POSITIONS:
            raise unknown("positions", self.positions, _POSITIONS)
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout is {self.dropout}, must be in [0, 1)")
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Logits [B, num_classes] float32 of `images` [B, H, W, C], each by itself.

        Learned positions fix H and W; otherwise they may change, in whole patches.
        """
        shape, patch = parse_variant(self.variant)
        tokens = self._embed(patches(images, patch), shape.width)
        tokens = nn.Dropout(self.dropout, deterministic=not train)(tokens)
        block = nn.remat(EncoderBlock) if self.remat else EncoderBlock
        for i in range(shape.depth):
            encode = block(shape.heads, self.dropout, self.dtype, train, name=f"block{i + 1}")
            tokens = encode(tokens)
        tokens = nn.LayerNorm(dtype=self.dtype, name="norm")(tokens)
        pooled = tokens[:, 0] if self.pooling == "class_token" else jnp.mean(tokens, axis=1)
        if self.representation_layer:
            pooled = nn.tanh(nn.Dense(shape.width, dtype=self.dtype, name="pre_logits")(pooled))
        head = nn.Dense(
            self.num_classes, dtype=self.dtype, kernel_init=nn.initializers.zeros, name="head"
        )
        return head(pooled).astype(jnp.float32)

    def _embed(self, grid: jax.Array, width: int) -> jax.Array:
        """Tokens [B, T, width] of patches [B, rows, columns, P], with their positions added."""
        batch, rows, columns, _ = grid.shape
        extra = int(self.pooling == "class_token")
        tokens = nn.Dense(width, dtype=self.dtype, name="embedding")(grid)
        tokens = tokens.reshape(batch, rows * columns, width)
        if extra:
            token = self.param("class_token", nn.initializers.zeros, (1, 1, width))
            token = jnp.broadcast_to(token.astype(self.dtype), (batch, 1, width))
            tokens = jnp.concatenate([token, tokens], axis=1)
        if self.positions == "learned":
            initial = nn.initializers.normal(0.02)
            positions = self.param("positions", initial, (1, extra + rows * columns, width))
        else:
            table = np.pad(sincos_positions(rows, columns, width), ((extra, 0), (0, 0)))
            positions = jnp.asarray(table[None])
        return tokens + positions.astype(self.dtype)
