"""Crops, resizing and RandAugment of ImageNet against references of NumPy, JAX and Pillow."""

import io
import itertools

import imagenet_data
import jax
import numpy as np
import pytest
from PIL import Image, ImageOps

from rkbench.errors import UserError
from rkbench.workloads.imagenet import preprocess, rand_augment
from rkbench.workloads.imagenet.draws import Draws
from rkbench.workloads.imagenet.rand_augment import RandAugment


class Fixed(Draws):
    """Draws that are given."""

    def __init__(self, *numbers: float):
        self._numbers = itertools.cycle(numbers)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * next(self._numbers)


def decoded(jpeg: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))


def resized(pixels: np.ndarray, height: int, width: int, antialias: bool = True) -> np.ndarray:
    """Bilinear, by JAX."""
    shape = (height, width, 3)
    return np.asarray(jax.image.resize(pixels.astype(np.float32), shape, "linear", antialias))


def encoded(image: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


def striped(width: int, height: int) -> Image.Image:
    """Columns of light and dark by turns, fine enough to alias."""
    columns = np.where(np.arange(width) % 2, 200, 50).astype(np.uint8)
    return Image.fromarray(np.broadcast_to(columns[:, None], (height, width, 3)).copy())


# Draws


def test_draws_are_a_function_of_their_place():
    def numbers(*place):
        draws = Draws(*place)
        return [draws.uniform() for _ in range(8)]

    places = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 2)]
    assert numbers(1, 2, 3) == numbers(1, 2, 3)
    assert len({tuple(numbers(*place)) for place in places}) == len(places)
    assert len(set(numbers(0, 0, 0))) == 8


def test_draws_are_uniform():
    numbers = np.array([Draws(0, step, p).uniform() for step in range(40) for p in range(100)])
    counts = np.histogram(numbers, bins=10, range=(0, 1))[0]
    assert ((counts - 400) ** 2 / 400).sum() < 27.9  # chi-squared, 9 degrees, 0.1 %
    assert {Draws(0, 0, p).below(3) for p in range(50)} == {0, 1, 2}


# Training


def test_random_boxes_have_area_and_ratio_in_range():
    width, height = 500, 375
    areas, ratios = [], []
    for position in range(500):
        left, top, right, bottom = preprocess.random_box(width, height, Draws(0, 0, position))
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        areas.append((right - left) * (bottom - top) / (width * height))
        ratios.append((right - left) / (bottom - top))
    assert 0.075 < min(areas) < 0.1
    assert 0.9 < max(areas) <= 1
    assert 0.74 < min(ratios) < 0.77
    assert 1.3 < max(ratios) < 1.35


def test_random_box_of_a_narrow_image_is_the_centre():
    assert preprocess.random_box(100, 2560, Fixed(1.0)) == (6.25, 1236.25, 93.75, 1323.75)


@pytest.mark.parametrize(("coin", "step"), [(0.2, -1), (0.7, 1)])
def test_train_image_is_the_box_resized_and_mirrored(coin, step):
    jpeg = imagenet_data.jpeg(imagenet_data.picture(3, 300, 320))
    # area (0.08 + 0.92 x 0.5) x 300 x 320 = 51,840 at ratio 1: a side of 228, placed at 1/4
    image = preprocess.train_image(jpeg, Fixed(0.5, 0.5, 0.25, 0.25, coin), None)
    box = decoded(jpeg)[23 : 23 + 228, 18 : 18 + 228]
    expected = resized(box, 224, 224)[:, ::step]
    assert image.dtype == np.uint8
    np.testing.assert_allclose(image.astype(np.float32), expected, atol=2)


@pytest.mark.parametrize(("width", "height", "factor"), [(1503, 1301, 4), (640, 700, 2)])
def test_large_image_is_decoded_smaller_with_the_same_window(monkeypatch, width, height, factor):
    jpeg = imagenet_data.jpeg(imagenet_data.picture(4, width, height))
    draws = (0.5, 0.5, 0.25, 0.75, 0.9)
    sizes = []
    decode = preprocess._decoded

    def recorded(*arguments):
        pixels = decode(*arguments)
        sizes.append(pixels.shape[:2])
        return pixels

    monkeypatch.setattr(preprocess, "_decoded", recorded)
    scaled = preprocess.train_image(jpeg, Fixed(*draws), None)
    monkeypatch.setattr(preprocess, "_reduction", lambda *_: 1)
    whole = preprocess.train_image(jpeg, Fixed(*draws), None)
    assert sizes == [(-(-height // factor), -(-width // factor)), (height, width)]
    np.testing.assert_allclose(scaled.astype(int), whole.astype(int), atol=4)


def test_image_is_not_decoded_smaller_than_needed():
    for size, at_least, factor in [
        ((448, 448), (224, 224), 2),
        ((447, 9999), (224, 224), 1),
        ((1791, 1792), (224, 224), 4),
        ((9999, 9999), (224, 224), 8),
        ((100, 100), (300, 300), 1),
    ]:
        assert preprocess._reduction(size, at_least) == factor


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 1000), (1001, 1), (3, 640)])
def test_train_image_of_a_tiny_side(width, height):
    jpeg = imagenet_data.jpeg(Image.new("RGB", (width, height), (40, 80, 160)))
    image = preprocess.train_image(jpeg, Fixed(0.999), None)
    np.testing.assert_allclose(image, np.broadcast_to([40, 80, 160], (224, 224, 3)), atol=2)


# What JPEGs there are


def pictures() -> dict[str, bytes]:
    rgb = imagenet_data.picture(5, 256, 256)
    turned = Image.Exif()
    turned[0x0112] = 6  # to be shown turned by a quarter
    return {
        "grey": encoded(rgb.convert("L")),
        "CMYK": encoded(rgb.convert("CMYK")),
        "progressive": encoded(rgb, progressive=True),
        "turned": encoded(rgb, exif=turned),
        "RGB": encoded(rgb, keep_rgb=True),
        "full chroma": encoded(rgb, subsampling=0),
        "restarts": encoded(rgb, restart_marker_rows=1),
        "commented": encoded(rgb, comment=b"\xff\xd9 is no end here"),
        "padded": encoded(rgb) + bytes(5),
        "followed": encoded(rgb) + b"\xff\xd8 and more",
    }


@pytest.mark.parametrize("kind", pictures())
def test_every_form_of_jpeg_becomes_rgb(kind):
    jpeg = pictures()[kind]
    pixels = decoded(jpeg)
    np.testing.assert_array_equal(preprocess.evaluation_image(jpeg), pixels[16:240, 16:240])
    # a side of 244 at 1/4 of the rest, mirrored
    image = preprocess.train_image(jpeg, Fixed(0.9, 0.5, 0.25, 0.25, 0.1), None)
    expected = resized(pixels[3 : 3 + 244, 3 : 3 + 244], 224, 224)[:, ::-1]
    np.testing.assert_allclose(image.astype(np.float32), expected, atol=2)
    assert preprocess.train_image(jpeg, Draws(0, 0, 0), RandAugment()).shape == (224, 224, 3)


def test_only_rare_forms_are_left_to_pillow(monkeypatch):
    def refuse(jpeg):
        raise preprocess.CorruptImageError("left to Pillow")

    monkeypatch.setattr(preprocess, "_open", refuse)
    left = set()
    for kind, jpeg in pictures().items():
        try:
            preprocess.evaluation_image(jpeg)
        except preprocess.CorruptImageError:
            left.add(kind)
    assert left == {"CMYK", "progressive", "padded", "followed"}


# Damage

SOUND = encoded(imagenet_data.picture(9, 300, 260))
TABLE, FRAME, SCAN = (SOUND.index(marker) for marker in (b"\xff\xc4", b"\xff\xc0", b"\xff\xda"))
DATA = SCAN + 14  # where the scan's begins


def png() -> bytes:
    buffer = io.BytesIO()
    imagenet_data.picture(9).save(buffer, "PNG")
    return buffer.getvalue()


def replaced(begin: int, part: bytes) -> bytes:
    return SOUND[:begin] + part + SOUND[begin + len(part) :]


def assert_corrupt(jpeg: bytes):
    for prepare in (
        preprocess.evaluation_image,
        lambda jpeg: preprocess.train_image(jpeg, Draws(0, 0, 0), None),
    ):
        with pytest.raises(preprocess.CorruptImageError):
            prepare(jpeg)


@pytest.mark.parametrize("progressive", [False, True])
def test_truncated_jpeg(progressive):
    jpeg = encoded(imagenet_data.picture(9, 300, 260), progressive=progressive)
    whole = len(jpeg)
    inside = range(1, whole, whole // 40)
    for length in (0, 2, 3, 20, DATA - 1, DATA, DATA + 1, *inside, *range(whole - 5, whole)):
        assert_corrupt(jpeg[:length])


@pytest.mark.parametrize(
    "damaged",
    [
        pytest.param(b"no picture at all" * 20, id="garbage"),
        pytest.param(b"\xff\xd8\xff\xd9", id="nothing between start and end"),
        pytest.param(png(), id="PNG"),
        pytest.param(b"\0" + SOUND[1:], id="no start"),
        pytest.param(SOUND[: DATA - 20] + b"\xff\xd9", id="no scan"),
        pytest.param(replaced(DATA + 900, SOUND[:500]), id="a header in the data"),
        pytest.param(replaced(TABLE + 5, b"\xee" * 16), id="Huffman table"),
        pytest.param(replaced(FRAME + 5, b"\xff" * 4), id="65,535 a side"),
        pytest.param(replaced(FRAME + 5, bytes(4)), id="0 a side"),
    ],
)
def test_damaged_jpeg(damaged):
    assert_corrupt(damaged)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        pytest.param(0, b"\0", id="start"),
        pytest.param(FRAME + 1, b"\xc2", id="progressive"),
        pytest.param(FRAME + 4, b"\x0c", id="12 bits"),
        pytest.param(FRAME + 5, b"\xff\xff\xff\xff", id="65,535 a side"),
        pytest.param(FRAME + 9, b"\x04", id="four colours"),
        pytest.param(SCAN + 1, b"\xcc", id="no scan"),
        pytest.param(SCAN + 4, b"\x01", id="scan of one colour"),
        pytest.param(DATA + 900, b"\xff\xe0", id="marker in the data"),
        pytest.param(len(SOUND) - 1, b"\xda", id="no end"),
    ],
)
def test_what_is_left_to_pillow(place, value):
    assert preprocess._usual_size(SOUND) == (300, 260)
    assert preprocess._usual_size(replaced(place, value)) is None


# Evaluation


@pytest.mark.parametrize(("width", "height"), [(256, 300), (341, 256), (257, 256)])
def test_evaluation_of_a_shorter_side_of_256_is_its_centre(width, height):
    jpeg = imagenet_data.jpeg(imagenet_data.picture(6, width, height))
    left, top = (width - 224) // 2, (height - 224) // 2
    expected = decoded(jpeg)[top : top + 224, left : left + 224]
    np.testing.assert_array_equal(preprocess.evaluation_image(jpeg), expected)


@pytest.mark.parametrize(
    ("width", "height", "to"),
    [(500, 375, (341, 256)), (100, 150, (256, 384)), (1500, 1100, (349, 256))],
)
def test_evaluation_resizes_the_shorter_side_to_256(width, height, to):
    jpeg = imagenet_data.jpeg(imagenet_data.picture(7, width, height))
    left, top = (to[0] - 224) // 2, (to[1] - 224) // 2
    expected = resized(decoded(jpeg), to[1], to[0])[top : top + 224, left : left + 224]
    image = preprocess.evaluation_image(jpeg).astype(np.float32)
    np.testing.assert_allclose(image, expected, atol=4)


def test_shrinking_to_no_less_than_half_is_bilinear():
    jpeg = encoded(striped(400, 384), subsampling=0)
    expected = resized(decoded(jpeg), 256, 267, antialias=False)[16:240, 21:245]
    image = preprocess.evaluation_image(jpeg).astype(np.float32)
    assert np.ptp(expected) > 60
    np.testing.assert_allclose(image, expected, atol=2)


def test_shrinking_to_less_than_half_takes_the_mean_of_areas(monkeypatch):
    jpeg = encoded(striped(640, 640), subsampling=0)
    monkeypatch.setattr(preprocess, "_reduction", lambda *_: 1)  # 2 otherwise
    doubled = decoded(jpeg).repeat(2, axis=0).repeat(2, axis=1)  # 5 x 5 of these for a new one
    expected = doubled.reshape(256, 5, 256, 5, 3).mean((1, 3))[16:240, 16:240]
    image = preprocess.evaluation_image(jpeg).astype(np.float32)
    np.testing.assert_allclose(image, expected, atol=1)


# RandAugment


@pytest.fixture
def image() -> Image.Image:
    return imagenet_data.picture(8, 224, 224)


def apply(operation, image: Image.Image, strength: float = 1.0, *draws: float) -> np.ndarray:
    return np.asarray(operation(image, strength, Fixed(*(draws or (0.0,)))))


def test_pointwise_operations_at_full_strength(image):
    pixels = np.asarray(image)
    values = {
        rand_augment._invert: 255 - pixels,
        rand_augment._posterize: pixels // 16 * 16,
        rand_augment._solarize: pixels,  # the threshold is 256
        rand_augment._solarize_add: np.where(
            pixels < 128, np.minimum(pixels.astype(int) + 110, 255), pixels
        ),
    }
    for operation, expected in values.items():
        np.testing.assert_array_equal(apply(operation, image), expected)
    half = np.where(pixels < 128, pixels, 255 - pixels)
    np.testing.assert_array_equal(apply(rand_augment._solarize, image, 0.5), half)


def test_brightness_and_colour_extrapolate_by_1_9(image):
    pixels = np.asarray(image).astype(np.float32)
    brightness, colour = (rand_augment._OPERATIONS[i] for i in (8, 6))
    np.testing.assert_allclose(apply(brightness, image), np.clip(pixels * 1.9, 0, 255), atol=1)
    grey = np.asarray(ImageOps.grayscale(image)).astype(np.float32)[..., None]
    np.testing.assert_allclose(
        apply(colour, image), np.clip(grey + 1.9 * (pixels - grey), 0, 255), atol=1
    )


def test_contrast_extrapolates_from_the_mean_grey(image):
    mean = np.round(np.asarray(ImageOps.grayscale(image)).mean())
    expected = np.clip(mean + 1.9 * (np.asarray(image) - mean), 0, 255)
    np.testing.assert_allclose(apply(rand_augment._OPERATIONS[7], image), expected, atol=1)


def test_translation_fills_with_grey_on_either_side(image):
    pixels = np.asarray(image)
    left = apply(rand_augment._translate_x, image, 1.0, 0.0)  # the coin's first side
    np.testing.assert_array_equal(left[:, :124], pixels[:, 100:])
    assert (left[:, 124:] == 128).all()
    down = apply(rand_augment._translate_y, image, 0.5, 0.9)
    np.testing.assert_array_equal(down[50:], pixels[:174])
    assert (down[:50] == 128).all()


def test_shear_moves_rows_in_proportion(image):
    pixels, sheared = np.asarray(image), apply(rand_augment._shear_x, image)
    for row in (0, 100, 223):
        shift = int((row + 0.5) * 0.3 + 0.5)
        np.testing.assert_array_equal(sheared[row, : 224 - shift - 1], pixels[row, shift:-1])


def test_rotation_is_by_30_degrees_either_way(image):
    for coin, degrees in ((0.0, 30), (0.9, -30)):
        expected = np.asarray(image.rotate(degrees, fillcolor=(128, 128, 128)))
        np.testing.assert_array_equal(apply(rand_augment._rotate, image, 1.0, coin), expected)


def test_cutout_is_a_grey_square_around_its_centre(image):
    original = np.asarray(image).copy()
    cut = apply(rand_augment._cutout, image, 1.0, 0.5, 0.1)  # x 112, y 22
    expected = original.copy()
    expected[0:62, 72:152] = 128
    np.testing.assert_array_equal(cut, expected)
    np.testing.assert_array_equal(np.asarray(image), original)


def test_every_operation_keeps_the_form_at_every_magnitude(image):
    for operation, strength in itertools.product(rand_augment._OPERATIONS, (0.0, 0.3, 1.0)):
        result = operation(image, strength, Draws(0, 0, 0))
        assert (result.size, result.mode) == ((224, 224), "RGB")
    assert len(set(rand_augment._OPERATIONS)) == 16


def test_layers_apply_drawn_operations_in_turn(image):
    class Recorded(Fixed):
        pass

    # invert (number 2 of 16), then posterize (number 4)
    draws = Recorded(2.5 / 16, 4.5 / 16)
    expected = (255 - np.asarray(image)) // 16 * 16
    np.testing.assert_array_equal(np.asarray(RandAugment(2, 10)(image, draws)), expected)
    np.testing.assert_array_equal(np.asarray(RandAugment(0, 10)(image, draws)), np.asarray(image))


def test_bad_rand_augment():
    for arguments in ((-1, 10), (2, 10.5), (2, -1)):
        with pytest.raises(UserError, match="RandAugment"):
            RandAugment(*arguments)
