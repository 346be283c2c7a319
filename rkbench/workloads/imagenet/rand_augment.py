"""RandAugment (Cubuk et al., arXiv:1909.13719) with the operations of AutoAugment, on PIL images.

Operations, their strengths at a magnitude, and grey as the fill are AlgoPerf's. Each operation is
Pillow's own, as in AutoAugment's first code. AlgoPerf's TensorFlow version differs in one: its
contrast blends with the number of pixels / 256 as the grey level, here it is the mean grey level.
"""

import dataclasses
from collections.abc import Callable

from PIL import Image, ImageEnhance, ImageOps

from rkbench.errors import UserError
from rkbench.workloads.imagenet.draws import Draws

_GREY = (128, 128, 128)
_TRANSLATION = 100  # pixels at full strength
_CUTOUT = 40  # half of the square's side at full strength, pixels

Operation = Callable[[Image.Image, float, Draws], Image.Image]


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """Applies `layers` operations, each drawn evenly from `_OPERATIONS`, at one `magnitude`.

    Called with an RGB image and the example's draws, returns an RGB image of the same size.
    Magnitude 10 is full strength.
    """

    layers: int = 2
    magnitude: float = 10

    def __post_init__(self):
        if self.layers < 0:
            raise UserError(f"RandAugment: {self.layers} layers, must be >= 0")
        if not 0 <= self.magnitude <= 10:
            raise UserError(f"RandAugment: magnitude {self.magnitude}, must be in [0, 10]")

    def __call__(self, image: Image.Image, draws: Draws) -> Image.Image:
        for _ in range(self.layers):
            operation = _OPERATIONS[draws.below(len(_OPERATIONS))]
            image = operation(image, self.magnitude / 10, draws)
        return image


# All take (image, strength in [0, 1], draws).


def _auto_contrast(image: Image.Image, strength: float, draws: Draws) -> Image.Image:
    return ImageOps.autocontrast(image)


def _equalize(image: Image.Image, strength: float, draws: Draws) -> Image.Image:
    return ImageOps.equalize(image)


def _invert(image: Image.Image, strength: float, draws: Draws) -> Image.Image:
    return ImageOps.invert(image)


def _posterize(image: Image.Image, strength: float, draws: Draws) -> Image.Image:
    """Keeps up to 4 bits; the weaker the strength, the fewer, as AutoAugment has it."""
    mask = 0xFF00 >> int(strength * 4) & 0xFF  # Pillow's own refuses to keep none
    return image.point([value & mask for value in range(256)] * 3)


def _solarize(image: Image.Image, strength: float, draws: Draws) -> Image.Image:
    """Inverts pixels from a threshold on: at full strength (256) none, as AutoAugment has it."""
    return ImageOps.solarize(image, int(strength * 256))


def _solarize_add(image: Image.Image, strength: float, draws: Draws) -> Image.Image:
    addition = int(strength * 110)
    table = [min(255, value + addition) if value < 128 else value for value in range(256)]
    return image.point(table * 3)


def _enhance(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Operation:
    def operation(image: Image.Image, strength: float, draws: Draws) -> Image.Image:
        return kind(image).enhance(strength * 1.8 + 0.1)

    return operation


def _signed(value: float, draws: Draws) -> float:
    return value if draws.coin() else -value


def _rotate(image: Image.Image, strength: float, draws: Draws) -> Image.Image:
    return image.rotate(_signed(strength * 30, draws), fillcolor=_GREY)


def _affine(image: Image.Image, *coefficients: float) -> Image.Image:
    """Output (x, y) is input (a x + b y + c, d x + e y + f), the nearest pixel."""
    return image.transform(image.size, Image.Transform.AFFINE, coefficients, fillcolor=_GREY)


def _shear_x(image: Image.Image, strength: float, draws: Draws) -> Image.Image:
    return _affine(image, 1, _signed(strength * 0.3, draws), 0, 0, 1, 0)


def _shear_y(image: Image.Image, strength: float, draws: Draws) -> Image.Image:
    return _affine(image, 1, 0, 0, _signed(strength * 0.3, draws), 1, 0)


def _translate_x(image: Image.Image, strength: float, draws: Draws) -> Image.Image:
    return _affine(image, 1, 0, _signed(strength * _TRANSLATION, draws), 0, 1, 0)


def _translate_y(image: Image.Image, strength: float, draws: Draws) -> Image.Image:
    return _affine(image, 1, 0, 0, 0, 1, _signed(strength * _TRANSLATION, draws))


def _cutout(image: Image.Image, strength: float, draws: Draws) -> Image.Image:
    half = int(strength * _CUTOUT)
    x, y = draws.below(image.width), draws.below(image.height)
    image = image.copy()
    image.paste(_GREY, (x - half, y - half, x + half, y + half))
    return image


_OPERATIONS: tuple[Operation, ...] = (
    _auto_contrast,
    _equalize,
    _invert,
    _rotate,
    _posterize,
    _solarize,
    _enhance(ImageEnhance.Color),
    _enhance(ImageEnhance.Contrast),
    _enhance(ImageEnhance.Brightness),
    _enhance(ImageEnhance.Sharpness),
    _shear_x,
    _shear_y,
    _translate_x,
    _translate_y,
    _cutout,
    _solarize_add,
)
