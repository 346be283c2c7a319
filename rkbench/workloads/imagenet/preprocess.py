"""From a JPEG to 224 x 224 pixels: Inception-style for training, the centre for evaluation.

OpenCV decodes the JPEGs of the usual form; the rare others, and damaged ones, are left to Pillow.
"""

import io
import math
import re
import struct
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from rkbench.workloads.imagenet.draws import Draws
from rkbench.workloads.imagenet.rand_augment import RandAugment

cv2.setNumThreads(0)  # each worker has one core

SIZE = 224
SHORTER_SIDE = 256
AREA = (0.08, 1.0)  # of the crop, as a share of the image's
RATIO = (3 / 4, 4 / 3)  # of the crop's width to its height
READ_RGB = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
_ATTEMPTS = 10
_REDUCED = {  # for READ_RGB; what is called COLOR would ask for BGR besides
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
}

# Segments of a JPEG: a marker, the length of what follows, and what is read of it.
_SEGMENT = struct.Struct(">HH")
_FRAME_HEADER = struct.Struct(">HHBHHB")  # bits of a value, height, width, colours
_SCAN_HEADER = struct.Struct(">HHB")  # colours
_BASELINE = (0xFFC0, 0xFFC1)
_SCAN = 0xFFDA
_SKIPPED = (0xFFC4, 0xFFDB, 0xFFDD, 0xFFFE, *range(0xFFE0, 0xFFF0))  # tables, comments, metadata
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7]")  # that ends a scan's data
_START, _END = b"\xff\xd8", b"\xff\xd9"
_USUAL_PIXELS = 2**26  # at most; of more, Pillow decides whether it is a decompression bomb
_DAMAGE = (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)

Box = tuple[float, float, float, float]  # left, top, right, bottom
Size = tuple[int, int]  # width, height


class CorruptImageError(ValueError):
    """The bytes are not a whole JPEG."""


def train_image(jpeg: bytes, draws: Draws, rand_augment: RandAugment | None) -> np.ndarray:
    """A random crop, resized (see `_resized`), mirrored half of the time, then RandAugment.

    AlgoPerf resizes bicubically; its TensorFlow sampler draws a crop's height evenly, where the
    area is even here, as in Szegedy et al., arXiv:1409.4842, and the logarithm of the ratio.

    Returns uint8 [224, 224, 3]. Raises CorruptImageError.
    """
    source = _read_header(jpeg)
    image = _crop_and_resize(source, random_box(*source.size, draws))
    if draws.coin():
        image = cv2.flip(image, 1)
    if rand_augment is not None:
        image = np.asarray(rand_augment(Image.fromarray(image), draws))
    return image


def evaluation_image(jpeg: bytes) -> np.ndarray:
    """The shorter side resized to 256 (see `_resized`), of that the central 224 x 224.

    Returns uint8 [224, 224, 3]. Raises CorruptImageError.
    """
    source = _read_header(jpeg)
    scale = SHORTER_SIDE / min(source.size)
    width, height = (round(side * scale) for side in source.size)
    resized = _resized(_decoded(source, (width, height)), (width, height))
    left, top = (width - SIZE) // 2, (height - SIZE) // 2
    return resized[top : top + SIZE, left : left + SIZE]


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


class _Source(NamedTuple):
    """A JPEG with its header read, its pixels not yet.

    `usual`: baseline, grey or three colours in one scan, without any marker from there to the end
    marker, the last two bytes. A marker in between is likely damage, which OpenCV may pass over.
    """

    jpeg: bytes
    size: Size
    usual: bool


def _crop_and_resize(source: _Source, box: Box) -> np.ndarray:
    """The `box` of the image, its bounds rounded to decoded pixels, as uint8 [224, 224, 3]."""
    width, height = source.size
    left, top, right, bottom = box
    at_least = (
        math.ceil(width * SIZE / (right - left)),
        math.ceil(height * SIZE / (bottom - top)),
    )
    pixels = _decoded(source, at_least)
    x, y = pixels.shape[1] / width, pixels.shape[0] / height
    return _resized(pixels[_whole(top * y, bottom * y), _whole(left * x, right * x)], (SIZE, SIZE))


def _whole(begin: float, end: float) -> slice:
    """The bounds rounded, but at least one pixel."""
    first = round(begin)
    return slice(first, max(first + 1, round(end)))


def _resized(pixels: np.ndarray, size: Size) -> np.ndarray:
    """Bilinear; where a side shrinks to less than half, the mean over each new pixel's area.

    `pixels` and the result are uint8 [height, width, 3].
    """
    shrinking = max(pixels.shape[1] / size[0], pixels.shape[0] / size[1])
    # Bilinear reads 2 x 2 pixels for a new one: down to a half, where it is their mean, no pixel is
    # left out. Further down some would be, and fine patterns would alias.
    interpolation = cv2.INTER_LINEAR if shrinking <= 2 else cv2.INTER_AREA
    return cv2.resize(pixels, size, interpolation=interpolation)


def _decoded(source: _Source, at_least: Size) -> np.ndarray:
    """The pixels as uint8 [height, width, 3], RGB, as they are stored (EXIF may say turned).

    A usual image much larger than `at_least` is decoded at 1/2, 1/4 or 1/8 (libjpeg's scaled
    transform), as long as neither side becomes smaller than that: the same picture, several times
    faster. Raises CorruptImageError.
    """
    if source.usual:
        flags = READ_RGB | _REDUCED.get(_reduction(source.size, at_least), 0)
        pixels = cv2.imdecode(np.frombuffer(source.jpeg, np.uint8), flags)
        if pixels is not None:
            return pixels
    image = _open(source.jpeg)
    try:
        return np.asarray(image.convert("RGB"))
    except _DAMAGE as error:
        raise CorruptImageError(str(error)) from error


def _reduction(size: Size, at_least: Size) -> int:
    """The largest of 1, 2, 4 and 8 that `size` can be divided by."""
    most = min(size[0] // at_least[0], size[1] // at_least[1])
    return next((factor for factor in _REDUCED if factor <= most), 1)


def _read_header(jpeg: bytes) -> _Source:
    """Raises CorruptImageError where the bytes do not begin as a JPEG."""
    size = _usual_size(jpeg)
    if size is None:
        return _Source(jpeg, _open(jpeg).size, usual=False)
    return _Source(jpeg, size, usual=True)


def _usual_size(jpeg: bytes) -> Size | None:
    """The size of a usual JPEG (see `_Source`), None for all other bytes.

    Without Pillow, which takes as long for a header as a tenth of a small image's decoding.
    """
    try:
        at = _after_skipped(jpeg, len(_START))
        marker, length, bits, height, width, colours = _FRAME_HEADER.unpack_from(jpeg, at)
        at = _after_skipped(jpeg, at + 2 + length)
        scan, scan_length, scanned = _SCAN_HEADER.unpack_from(jpeg, at)
    except struct.error:  # the bytes end before the scan does begin
        return None
    end = _MARKER.search(jpeg, at + 2 + scan_length)
    usual = (
        jpeg.startswith(_START)
        and (marker in _BASELINE and bits == 8 and colours in (1, 3))
        and 0 < width * height <= _USUAL_PIXELS
        and (scan == _SCAN and scanned == colours)
        and (end is not None and end.group() == _END and end.end() == len(jpeg))
    )
    return (width, height) if usual else None


def _after_skipped(jpeg: bytes, at: int) -> int:
    """The place of the first segment from `at` on that is not one of `_SKIPPED`."""
    while True:
        marker, length = _SEGMENT.unpack_from(jpeg, at)
        if marker not in _SKIPPED:
            return at
        at += 2 + length


def _open(jpeg: bytes) -> Image.Image:
    """By Pillow: the image with its header read, its pixels not yet."""
    try:
        return Image.open(io.BytesIO(jpeg), formats=("JPEG",))
    except _DAMAGE as error:
        raise CorruptImageError(str(error).partition(" <")[0]) from error
