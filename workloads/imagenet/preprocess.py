"""From a JPEG to 224 x 224 pixels: Inception-style for training, the centre for evaluation."""

import io
import math
import struct

import numpy as np
from PIL import Image, ImageFile

from workloads.imagenet.draws import Draws
from workloads.imagenet.rand_augment import RandAugment

SIZE = 224
SHORTER_SIDE = 256
AREA = (0.08, 1.0)  # of the crop, as a share of the image's
RATIO = (3 / 4, 4 / 3)  # of the crop's width to its height
_ATTEMPTS = 10
_DECODING = (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)

Box = tuple[float, float, float, float]  # left, top, right, bottom


class CorruptImageError(ValueError):
    """The bytes are not a whole JPEG."""


def train_image(jpeg: bytes, draws: Draws, rand_augment: RandAugment | None) -> np.ndarray:
    """A random crop, resized (bilinear), mirrored half of the time, then RandAugment.

    AlgoPerf resizes bicubically; its TensorFlow sampler draws a crop's height evenly, where the
    area is even here, as in Szegedy et al., arXiv:1409.4842, and the logarithm of the ratio.

    Returns uint8 [224, 224, 3]. Raises CorruptImageError.
    """
    file = _open(jpeg)
    image = _crop_and_resize(file, random_box(*file.size, draws))
    if draws.coin():
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if rand_augment is not None:
        image = rand_augment(image, draws)
    return np.asarray(image)


def evaluation_image(jpeg: bytes) -> np.ndarray:
    """The shorter side resized to 256 (bilinear), of that the central 224 x 224.

    Returns uint8 [224, 224, 3]. Raises CorruptImageError.
    """
    image = _open(jpeg)
    scale = SHORTER_SIDE / min(image.size)
    width, height = (round(side * scale) for side in image.size)
    image.draft(None, (width, height))
    resized = _rgb(_loaded(image).resize((width, height), Image.Resampling.BILINEAR))
    left, top = (width - SIZE) // 2, (height - SIZE) // 2
    return np.asarray(resized.crop((left, top, left + SIZE, top + SIZE)))


def random_box(width: int, height: int, draws: Draws) -> Box:
    """A box of whole pixels with area and ratio drawn from AREA and RATIO, evenly placed.

    Where ten draws do not fit into the image, the centre that evaluation sees (AlgoPerf's way).
    """
    log_ratios = [math.log(ratio) for ratio in RATIO]
    for _ in range(_ATTEMPTS):
        area = width * height * draws.uniform(*AREA)
        ratio = math.exp(draws.uniform(*log_ratios))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = draws.below(width - w + 1), draws.below(height - h + 1)
            return left, top, left + w, top + h
    side = min(width, height) * SIZE / SHORTER_SIDE
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def _crop_and_resize(image: ImageFile.ImageFile, box: Box) -> Image.Image:
    """The `box` of `image`, 224 x 224, RGB.

    An image much larger than needed is decoded at 1/2, 1/4 or 1/8 (libjpeg's scaled transform), as
    long as the box keeps 224 pixels on both sides: the same window, several times faster.
    """
    width, height = image.size
    left, top, right, bottom = box
    needed = (
        math.ceil(width * SIZE / (right - left)),
        math.ceil(height * SIZE / (bottom - top)),
    )
    if image.draft(None, needed) is not None:
        x, y = image.size[0] / width, image.size[1] / height
        box = (left * x, top * y, right * x, bottom * y)
    return _rgb(_loaded(image).resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=box))


def _open(jpeg: bytes) -> ImageFile.ImageFile:
    """The image with its header read, its pixels not yet."""
    try:
        return Image.open(io.BytesIO(jpeg), formats=("JPEG",))
    except _DECODING as error:
        raise CorruptImageError(str(error).partition(" <")[0]) from error


def _loaded(image: ImageFile.ImageFile) -> ImageFile.ImageFile:
    try:
        image.load()
    except _DECODING as error:
        raise CorruptImageError(str(error)) from error
    return image


def _rgb(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" else image.convert("RGB")
