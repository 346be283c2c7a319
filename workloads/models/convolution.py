"""Convolution written as matrix products: the fast form inside a compiled loop on a CPU.

XLA's CPU backend runs its own convolution 5 to 16 times slower inside a compiled loop than outside.
`matmul_convolution` has the signature of `jax.lax.conv_general_dilated` as Flax calls it, so that a
model takes either: `nn.Conv(..., conv_general_dilated=matmul_convolution)`.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from rkbench.errors import unknown

_NHWC = ("NHWC", "HWIO", "NHWC")


def matmul_convolution(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    *,
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: object = None,
    feature_group_count: int = 1,
    precision: lax.PrecisionLike = None,
) -> jax.Array:
    """The convolution of `lhs` [B, H, W, I] with the kernel `rhs` [kh, kw, I, O]: [B, H', W', O].

    Equal to `lax.conv_general_dilated` up to rounding, and so are its derivatives. The horizontal
    shifts are gathered beside the input channels, one matrix product makes the contribution of
    every kernel row, and the rows are then summed at their vertical shifts: less copying than
    gathering the whole window (kh * kw times the input), larger products than shifting only.

    Raises NotImplementedError for strides or dilations other than 1, grouped features, and layouts
    other than NHWC with kernels HWIO.
    """
    _require_plain(lhs, window_strides, lhs_dilation, rhs_dilation, feature_group_count)
    _require_nhwc(lhs, rhs, dimension_numbers)
    kh, kw, inputs, outputs = rhs.shape
    (top, bottom), (left, right) = _explicit_padding(padding, (kh, kw))
    padded = jnp.pad(lhs, ((0, 0), (top, bottom), (left, right), (0, 0)))
    batch, rows, columns, _ = padded.shape
    height, width = rows - kh + 1, columns - kw + 1
    shifted = jnp.concatenate([padded[:, :, j : j + width] for j in range(kw)], axis=-1)
    kernel = rhs.transpose(1, 2, 0, 3).reshape(kw * inputs, kh * outputs)
    products = jnp.matmul(shifted.reshape(-1, kw * inputs), kernel, precision=precision)
    products = products.reshape(batch, rows, width, kh, outputs)
    total = products[:, :height, :, 0]
    for i in range(1, kh):
        total += products[:, i : i + height, :, i]
    return total


def _require_plain(lhs, strides, lhs_dilation, rhs_dilation, feature_group_count) -> None:
    ones = (1,) * (lhs.ndim - 2)
    settings = {
        "window_strides": (tuple(strides), ones),
        "lhs_dilation": (tuple(lhs_dilation or ones), ones),
        "rhs_dilation": (tuple(rhs_dilation or ones), ones),
        "feature_group_count": (feature_group_count, 1),
    }
    for name, (value, supported) in settings.items():
        if value != supported:
            raise NotImplementedError(
                f"matmul_convolution: {name}={value}, only {supported} is supported"
            )


def _require_nhwc(lhs, rhs, dimension_numbers) -> None:
    if lhs.ndim != 4 or rhs.ndim != 4:
        raise NotImplementedError(
            f"matmul_convolution: two spatial dimensions only, not shape {lhs.shape}"
        )
    given = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    if given != lax.conv_dimension_numbers(lhs.shape, rhs.shape, _NHWC):
        raise NotImplementedError(f"matmul_convolution: layout {given}, only {_NHWC} is supported")


def _explicit_padding(
    padding: str | Sequence[tuple[int, int]], window: tuple[int, int]
) -> Sequence[tuple[int, int]]:
    """(before, after) for height and width; SAME puts the odd one after, as XLA does."""
    if padding == "SAME":
        return [((size - 1) // 2, size // 2) for size in window]
    if padding == "VALID":
        return [(0, 0), (0, 0)]
    if isinstance(padding, str):
        raise NotImplementedError(f"matmul_convolution: padding {padding!r}")
    return padding


_CONVOLUTIONS = {"xla": lax.conv_general_dilated, "matmul": matmul_convolution}


def choose(name: str) -> Callable[..., jax.Array]:
    """The convolution called `name`: "xla", "matmul", or "auto".

    "auto" is "matmul" where the default backend is the CPU and "xla" elsewhere. Any other name
    raises a UserError.
    """
    if name == "auto":
        name = "matmul" if jax.default_backend() == "cpu" else "xla"
    if name not in _CONVOLUTIONS:
        raise unknown("convolution", name, ("auto", *_CONVOLUTIONS))
    return _CONVOLUTIONS[name]
