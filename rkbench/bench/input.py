"""ImageNet's input: images a second of the pipeline over those of plain loops on the same JPEGs."""

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator

import cv2
import numpy as np

from rkbench.bench.row import Ratio, Row, ratio, seconds
from rkbench.errors import UserError
from rkbench.workloads.imagenet import preprocess, records
from rkbench.workloads.imagenet.draws import Draws
from rkbench.workloads.imagenet.rand_augment import RandAugment

BATCH = 64
BATCHES = 12  # timed at a time
AHEAD = 4  # batches that the pipeline may have ready, not timed
PAIRS = 7
SETTLE = 1.0  # seconds in which the pipeline fills its buffers and falls silent
JPEGS = 256


def input_pipeline() -> Iterator[Row]:
    """The pipeline with one worker and with one a core, and RandAugment's share."""
    try:
        stored = records.Records(records.locate(), "train")
    except UserError as error:
        yield Row("ImageNet input", "not measured", "", str(error))
        return
    jpegs = [stored[i].image for i in range(min(JPEGS, len(stored)))]
    for workers in sorted({1, os.cpu_count() or 1}):
        yield from _against_loops(stored, jpegs, workers)
    yield _rand_augment(jpegs)


def _against_loops(stored: records.Records, jpegs: list[bytes], workers: int) -> Iterator[Row]:
    from rkbench.workloads.imagenet.source import HostStream

    stream = HostStream(stored, rand_augment=None, num_workers=workers)
    batches = stream.batches(0, 0, BATCH)
    images = BATCH * BATCHES

    def read(count: int) -> None:
        for _ in range(count):
            next(batches)

    with multiprocessing.get_context("spawn").Pool(workers, _keep, (jpegs,)) as pool:

        def loop(work: Callable[[bytes, int], np.ndarray]) -> float:
            share = images // workers
            return seconds(lambda: pool.map(_Loop(work, share), range(workers)))

        loop(decode_and_crop)  # starts the processes
        times = []
        for _ in range(PAIRS):
            read(AHEAD)
            pipeline = seconds(lambda: read(BATCHES))
            time.sleep(SETTLE)
            times.append((pipeline, loop(decode_and_crop), loop(decode_crop_resize_flip)))
    batches.close()
    rate = images / statistics.median(pipeline for pipeline, _, _ in times) / workers
    label = f"ImageNet input, {workers} worker{'s' * (workers > 1)}"
    yield Row(
        f"{label}: decode, crop, resize, flip over a bare decode-and-crop loop",
        str(_speed([(bare, pipeline) for pipeline, bare, _ in times])),
        ">= 0.8",
        f"ratio of images a second; {rate:.0f} images a second per worker",
    )
    yield Row(
        f"{label}: over a loop that also resizes and flips",
        str(_speed([(same, pipeline) for pipeline, _, same in times])),
        ">= 0.8",
        "what reading, batching and passing between processes leaves",
    )


def _speed(times: list[tuple[float, float]]) -> Ratio:
    ratios = sorted(a / b for a, b in times)
    a, b = (statistics.median(side) for side in zip(*times, strict=True))
    return Ratio(statistics.median(ratios), ratios[0], ratios[-1], a, b)


_kept: list[bytes] = []  # the JPEGs, in the processes of the plain loops


def _keep(jpegs: list[bytes]) -> None:
    _kept[:] = jpegs


class _Loop:
    """`count` of the kept JPEGs through `work`, one after the other."""

    def __init__(self, work: Callable[[bytes, int], np.ndarray], count: int):
        self._work, self._count = work, count

    def __call__(self, _: int) -> None:
        for i in range(self._count):
            self._work(_kept[i % len(_kept)], i)


def decode_and_crop(jpeg: bytes, number: int) -> np.ndarray:
    """The pixels of a random crop as they are: what decoding alone costs.

    By the decoder that the pipeline uses, without its checks, and the crop is not even copied.
    """
    pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), preprocess.READ_RGB)
    assert pixels is not None
    height, width = pixels.shape[:2]
    left, top, right, bottom = preprocess.random_box(width, height, Draws(0, 0, number))
    return pixels[int(top) : int(bottom), int(left) : int(right)]


def decode_crop_resize_flip(jpeg: bytes, number: int) -> np.ndarray:
    """What the pipeline does to an image."""
    return preprocess.train_image(jpeg, Draws(0, 0, number), None)


def _rand_augment(jpegs: list[bytes]) -> Row:
    augment = RandAugment()

    def work(rand_augment: RandAugment | None) -> None:
        for number, jpeg in enumerate(jpegs):
            preprocess.train_image(jpeg, Draws(0, 0, number), rand_augment)

    slower = ratio(lambda: work(augment), lambda: work(None), PAIRS)
    extra = (slower.numerator - slower.denominator) / len(jpegs) * 1e3
    return Row(
        f"ImageNet input: with RandAugment ({augment.layers}, {augment.magnitude}) over without",
        str(slower),
        "",
        f"time of one image in a loop; RandAugment takes {extra:.2f} ms",
    )
