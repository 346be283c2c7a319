"""Augmentation of image batches on the device, each example with a key of its own.

The key of an example is fold_in(step's key, its position in the step's batch). What happens to an
example is thus a function of seed, step and position: chunks, resuming and the number of devices
change nothing, and all stages of a Runge-Kutta step see the same batch.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from rkbench.errors import UserError
from rkbench.workloads.base import Batch

_CROP, _FLIP, _CUTOUT, _MIXUP = range(4)  # streams of an example's key


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Crop, flip, cutout and mixup, in this order and on pixels as stored; the default is none.

    Attributes:
      crop_padding: pixels of black added on each side, of which a random window is kept.
      flip: whether half of the examples are mirrored left to right.
      cutout: side of a random black square, in pixels; 0 for none.
      mixup_alpha: mix with the partner by a share drawn from Beta(alpha, alpha); 0 for no mixup.
    """

    crop_padding: int = 0
    flip: bool = False
    cutout: int = 0
    mixup_alpha: float = 0.0

    def __post_init__(self):
        for name in ("crop_padding", "cutout", "mixup_alpha"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise UserError(f"augment.{name} is {value}, must be a finite number >= 0")

    @property
    def pairs(self) -> bool:
        """Whether a batch needs the partner of each example."""
        return self.mixup_alpha > 0

    def __call__(self, batch: Batch, key: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        """The augmented images, and the share that each example has in its own.

        An example looks the same in its own place and as a partner: there its own key acts too.

        Args:
          batch: "image" uint8 [B, H, W, C] and "position" int32 [B]; with mixup also "partner".
          key: the step's key.

        Returns:
          (images, shares). Without mixup the images are uint8 [B, H, W, C] and the shares None.
          With it they are share * image + (1 - share) * partner, float32, and the shares
          float32 [B].
        """
        images = self._view(batch, key)
        if not self.pairs:
            return images, None
        shares = mixup_shares(_stream(example_keys(key, batch), _MIXUP), self.mixup_alpha)
        return mix(images, self._view(batch["partner"], key), shares), shares

    def _view(self, examples: Batch, key: jax.Array) -> jax.Array:
        images = examples["image"]
        if not (self.crop_padding or self.flip or self.cutout):
            return images
        keys = example_keys(key, examples)
        if self.crop_padding:
            images = random_crop(images, _stream(keys, _CROP), self.crop_padding)
        if self.flip:
            images = random_flip(images, _stream(keys, _FLIP))
        if self.cutout:
            images = cutout(images, _stream(keys, _CUTOUT), self.cutout)
        return images


def example_keys(key: jax.Array, examples: Batch) -> jax.Array:
    """fold_in(key, position) for each of the `examples`: keys [B]."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, examples["position"])


def _stream(keys: jax.Array, number: int) -> jax.Array:
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number)


def crop(images: jax.Array, offsets: jax.Array, padding: int) -> jax.Array:
    """The windows of the padded images that begin at `offsets`.

    Args:
      images: [B, H, W, C].
      offsets: (row, column) int32 [B, 2], each from 0 to 2 * padding; `padding` changes nothing.
      padding: pixels of zeros on each of the four sides.
    """
    sides = (padding, padding)
    padded = jnp.pad(images, ((0, 0), sides, sides, (0, 0)))

    def window(image: jax.Array, offset: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (offset[0], offset[1], 0), images.shape[1:])

    return jax.vmap(window)(padded, offsets)


def random_crop(images: jax.Array, keys: jax.Array, padding: int) -> jax.Array:
    """`crop` at offsets uniform over 0, ..., 2 * padding; images [B, H, W, C], keys [B]."""
    offsets = jax.vmap(lambda key: jax.random.randint(key, (2,), 0, 2 * padding + 1))(keys)
    return crop(images, offsets, padding)


def random_flip(images: jax.Array, keys: jax.Array) -> jax.Array:
    """`images` [B, H, W, C], each mirrored left to right with probability 0.5; keys [B]."""
    flipped = jax.vmap(jax.random.bernoulli)(keys)
    return jnp.where(_per_image(flipped), images[:, :, ::-1], images)


def cutout(images: jax.Array, keys: jax.Array, size: int) -> jax.Array:
    """`images` [B, H, W, C] with a square of zeros each; keys [B].

    The square of side `size` lies around a pixel uniform over the image, and what of it is outside
    is lost, as in DeVries & Taylor, arXiv:1708.04552 (who fill with the mean, not with black).
    """
    _, height, width, _ = images.shape

    def square(key: jax.Array) -> jax.Array:
        centre = jax.random.randint(key, (2,), 0, jnp.array([height, width]))
        top, left = centre - size // 2
        rows, columns = jnp.arange(height) - top, jnp.arange(width) - left
        in_rows, in_columns = (rows >= 0) & (rows < size), (columns >= 0) & (columns < size)
        return in_rows[:, None] & in_columns[None, :]

    return jnp.where(jax.vmap(square)(keys)[..., None], jnp.zeros((), images.dtype), images)


def mixup_shares(keys: jax.Array, alpha: float) -> jax.Array:
    """The lambda of mixup for each key, from Beta(alpha, alpha): float32 [B].

    Zhang et al., arXiv:1710.09412. One share for each example, where init2winit draws one for the
    whole batch: only so is it the same whatever the chunk.
    """
    return jax.vmap(lambda key: jax.random.beta(key, alpha, alpha, dtype=jnp.float32))(keys)


def mix(first: jax.Array, second: jax.Array, shares: jax.Array) -> jax.Array:
    """shares * first + (1 - shares) * second along the leading axis, in float32."""
    shares = shares.reshape(-1, *(1,) * (first.ndim - 1))
    return shares * first.astype(jnp.float32) + (1 - shares) * second.astype(jnp.float32)


def _per_image(values: jax.Array) -> jax.Array:
    return values[:, None, None, None]
