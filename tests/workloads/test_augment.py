import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from rkbench.errors import UserError
from rkbench.workloads import augment
from rkbench.workloads.augment import Augmentation

EVERYTHING = Augmentation(crop_padding=2, flip=True, cutout=3, mixup_alpha=1.0)


@functools.cache
def pictures(count, height=6, width=7):
    """Random pixels from 1 on, so that black is what the augmentation put there."""
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.integers(1, 256, (count, height, width, 3)), jnp.uint8)


def keys_of(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def examples(images, positions):
    positions = jnp.asarray(positions, jnp.int32)
    return {"image": images[positions], "label": positions % 10, "position": positions}


def batch_of(images, positions):
    positions = np.asarray(positions)
    partners = (positions - 1) % len(images)
    return examples(images, positions) | {"partner": examples(images, partners)}


def test_crop_against_numpy_at_every_offset():
    padding, images = 2, np.asarray(pictures(25))
    offsets = np.stack(np.divmod(np.arange(25), 5), axis=1)
    cropped = jax.jit(augment.crop, static_argnums=2)(images, jnp.asarray(offsets), padding)
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    for image, (row, column), result in zip(padded, offsets, cropped, strict=True):
        np.testing.assert_array_equal(result, image[row : row + 6, column : column + 7])
    np.testing.assert_array_equal(cropped[12], images[12])  # offset (2, 2)


def test_random_crop_takes_every_offset_alike():
    image = pictures(1)
    crop = jax.jit(augment.random_crop, static_argnums=2)
    cropped = np.asarray(crop(jnp.tile(image, (5_000, 1, 1, 1)), keys_of(5_000), 1))
    offsets = jnp.asarray(np.stack(np.divmod(np.arange(9), 3), axis=1))
    possible = augment.crop(jnp.tile(image, (9, 1, 1, 1)), offsets, 1)
    counts = [(cropped == np.asarray(window)).all(axis=(1, 2, 3)).sum() for window in possible]
    assert sum(counts) == 5_000
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_half_of_the_images_are_mirrored():
    images = pictures(2_000)
    flipped = np.asarray(jax.jit(augment.random_flip)(images, keys_of(2_000)))
    mirrored = (flipped == np.asarray(images)[:, :, ::-1]).all(axis=(1, 2, 3))
    kept = (flipped == np.asarray(images)).all(axis=(1, 2, 3))
    assert (mirrored ^ kept).all()
    assert scipy.stats.binomtest(int(mirrored.sum()), 2_000).pvalue > 1e-3


@pytest.mark.parametrize("size", [1, 3, 4])
def test_cutout_blackens_a_square_of_its_size_less_what_is_outside(size):
    images = pictures(2_000)
    cut = np.asarray(jax.jit(augment.cutout, static_argnums=2)(images, keys_of(2_000), size))
    black = (cut == 0).all(axis=3)
    np.testing.assert_array_equal(cut[~black], np.asarray(images)[~black])
    rows, columns = black.any(axis=2), black.any(axis=1)
    np.testing.assert_array_equal(black, rows[:, :, None] & columns[:, None, :])  # a rectangle
    # As many as of the centres whose square is inside; the rest is cut off at the border.
    heights, widths = rows.sum(axis=1), columns.sum(axis=1)
    assert (heights.max(), widths.max()) == (size, size)
    inside = (6 - size + 1) / 6 * (7 - size + 1) / 7
    whole = int(((heights == size) & (widths == size)).sum())
    assert scipy.stats.binomtest(whole, 2_000, min(inside, 1.0)).pvalue > 1e-3
    assert (heights >= size // 2).all()  # the centre itself is never outside
    assert black.any(axis=0).all()  # every pixel is reached


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_shares_of_mixup_are_beta_distributed(alpha):
    shares = np.asarray(jax.jit(augment.mixup_shares)(keys_of(2_000), alpha))
    assert shares.dtype == np.float32
    assert scipy.stats.kstest(shares, scipy.stats.beta(alpha, alpha).cdf).pvalue > 1e-3


def test_mixed_images_lie_between_the_two():
    images = pictures(16)
    plain = Augmentation(mixup_alpha=1.0)
    mixed, shares = jax.jit(plain)(batch_of(images, np.arange(16)), jax.random.key(0))
    first, second = np.asarray(images, np.float64), np.roll(images, 1, axis=0).astype(np.float64)
    weights = np.asarray(shares, np.float64).reshape(-1, 1, 1, 1)
    assert ((weights > 0) & (weights < 1)).all()
    assert len(np.unique(weights)) == 16  # each example its own
    np.testing.assert_allclose(mixed, weights * first + (1 - weights) * second, rtol=1e-5)
    assert (np.minimum(first, second) - 1e-3 <= np.asarray(mixed)).all()
    assert (np.asarray(mixed) <= np.maximum(first, second) + 1e-3).all()


def test_an_example_depends_on_key_and_position_alone():
    images, key = pictures(12), jax.random.key(3)
    apply = jax.jit(EVERYTHING)
    whole, shares = apply(batch_of(images, np.arange(12)), key)
    for positions in ([4, 5, 6], [11, 0, 3], [7]):
        part, part_shares = apply(batch_of(images, positions), key)
        np.testing.assert_array_equal(part, whole[np.array(positions)])
        np.testing.assert_array_equal(part_shares, shares[np.array(positions)])
    other, _ = apply(batch_of(images, np.arange(12)), jax.random.key(4))
    assert (np.asarray(other) != np.asarray(whole)).any(axis=(1, 2, 3)).all()


def test_an_example_looks_the_same_as_partner():
    images, key = pictures(12), jax.random.key(3)
    views, none = Augmentation(crop_padding=2, flip=True, cutout=3)(
        examples(images, np.arange(12)), key
    )
    assert none is None
    assert views.dtype == jnp.uint8
    mixed, shares = EVERYTHING(batch_of(images, np.arange(12)), key)
    assert shares is not None
    expected = augment.mix(views, jnp.roll(views, 1, axis=0), shares)
    np.testing.assert_array_equal(mixed, expected)


def test_the_parts_do_not_share_their_randomness():
    """With or without the others, a part does the same; and crop and flip are independent."""
    images, key = pictures(12), jax.random.key(5)
    batch = examples(images, np.arange(12))
    both, _ = Augmentation(crop_padding=2, flip=True)(batch, key)
    cropped, _ = Augmentation(crop_padding=2)(batch, key)
    flips = [(a != b).any() for a, b in zip(np.asarray(both), np.asarray(cropped), strict=True)]
    flipped, _ = Augmentation(flip=True)(batch, key)
    alone = [(a != b).any() for a, b in zip(np.asarray(flipped), np.asarray(images), strict=True)]
    assert flips == alone
    assert 0 < sum(alone) < 12


def test_nothing_is_done_by_default_and_no_position_is_needed():
    batch = {"image": pictures(2), "label": jnp.zeros(2, jnp.int32)}
    images, shares = Augmentation()(batch, jax.random.key(0))
    assert images is batch["image"]
    assert shares is None
    assert not Augmentation().pairs
    assert EVERYTHING.pairs


@pytest.mark.parametrize("field", ["crop_padding", "cutout", "mixup_alpha"])
def test_a_negative_setting_is_named(field):
    with pytest.raises(UserError, match=f"augment.{field} is -1"):
        Augmentation(**{field: -1})  # pyright: ignore[reportArgumentType]
