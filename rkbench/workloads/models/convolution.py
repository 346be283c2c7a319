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
    gathering the whole window (kh * kw times the input), larger products than shifting only. Rows
    that no window needs, as with a 1 x 1 kernel of stride 2, are left out first.

    Raises NotImplementedError for dilations other than 1, grouped features, and layouts other than
    NHWC with kernels HWIO.
    """
    _require_plain(lhs, lhs_dilation, rhs_dilation, feature_group_count)
    _require_nhwc(lhs, rhs, dimension_numbers)
    kh, kw, inputs, outputs = rhs.shape
    down, across = window_strides
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(lhs.shape[1:3], (kh, kw), window_strides, padding)
    (top, bottom), (left, right) = padding
    padded = jnp.pad(lhs, ((0, 0), (top, bottom), (left, right), (0, 0)))
    height, width = (padded.shape[1] - kh) // down + 1, (padded.shape[2] - kw) // across + 1
    if kh == 1:
        padded, down = padded[:, ::down], 1
    batch, rows = padded.shape[:2]
    shifted = [padded[:, :, j : j + across * (width - 1) + 1 : across] for j in range(kw)]
    kernel = rhs.transpose(1, 2, 0, 3).reshape(kw * inputs, kh * outputs)
    gathered = jnp.concatenate(shifted, axis=-1).reshape(-1, kw * inputs)
    products = jnp.matmul(gathered, kernel, precision=precision)
    products = products.reshape(batch, rows, width, kh, outputs)
    contributions = [products[:, i : i + down * (height - 1) + 1 : down, :, i] for i in range(kh)]
    return sum(contributions[1:], contributions[0])


def _require_plain(lhs, lhs_dilation, rhs_dilation, feature_group_count) -> None:
    ones = (1,) * (lhs.ndim - 2)
    settings = {
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
