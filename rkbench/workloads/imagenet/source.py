"""Batches of ImageNet by step: read and preprocessed by Grain, in worker processes or in this one.

The batch of step n is a pure function of (seed, n): which examples it holds is
`workloads.batches.batch_indices`', and what is random about an example is drawn from (seed, step,
position in the batch). So a run resumes at any step without reading what was before, and any number
of processes read their slices of one global batch. Nothing here imports TensorFlow.
"""

import dataclasses
import functools
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
from absl import flags, logging

from rkbench.errors import UserError, unknown
from rkbench.workloads.base import ON_CORRUPT
from rkbench.workloads.batches import batch_indices
from rkbench.workloads.imagenet import preprocess
from rkbench.workloads.imagenet.draws import Draws
from rkbench.workloads.imagenet.rand_augment import RandAugment
from rkbench.workloads.imagenet.records import Records

CHUNK = 32  # examples that a worker prepares at a time, at most

Chunk = dict[str, np.ndarray]
Batch = dict[str, np.ndarray]


@dataclasses.dataclass(eq=False)
class HostStream:
    """This process's share of the batches of a split.

    Args:
      records: the split.
      rand_augment: None for only crop and flip.
      num_workers: worker processes; 0 prepares the batches in a thread of this one.
      on_corrupt: what happens to a damaged JPEG in training: "raise" a UserError that names it, or
        "skip" to the next sound example in the order of the files, with a warning, and count it.
        In evaluation it is an error always: every example must be scored once.

    Attributes:
      replaced: damaged images that were replaced in the batches given out so far.
      waited: seconds that callers have waited for batches so far.
    """

    records: Records
    rand_augment: RandAugment | None = dataclasses.field(default_factory=RandAugment)
    num_workers: int = 0
    on_corrupt: str = "raise"
    replaced: int = dataclasses.field(default=0, init=False)
    waited: float = dataclasses.field(default=0.0, init=False)

    def __post_init__(self):
        if self.on_corrupt not in ON_CORRUPT:
            raise unknown("on_corrupt", self.on_corrupt, ON_CORRUPT)
        if self.num_workers < 0:
            raise UserError(f"num_workers is {self.num_workers}, must be >= 0")

    @classmethod
    def open(cls, folder: Path, split: str, **options: Any) -> "HostStream":
        """The stream of a split of `folder` (see `records.locate`)."""
        return cls(Records(folder, split), **options)

    def __len__(self) -> int:
        return len(self.records)

    @property
    def spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shape and dtype of each array of one example."""
        return {
            "image": jax.ShapeDtypeStruct((preprocess.SIZE, preprocess.SIZE, 3), np.uint8),
            "label": jax.ShapeDtypeStruct((), np.int32),
        }

    def batches(
        self,
        seed: int,
        first_step: int,
        batch_size: int,
        places: Sequence[int] | np.ndarray | None = None,
    ) -> Generator[Batch, None, None]:
        """This process's share of the batches of the steps first_step, ... without end.

        Args:
          seed: of the order of the examples and of their augmentation.
          first_step: the step, from 0, of the first batch.
          batch_size: of the batch that all processes share.
          places: those in the batch, from 0 to batch_size - 1, that come here, in this order; None
            for all.

        Yields {"image": uint8 [B, 224, 224, 3], "label": int32 [B]} with B the number of places.
        Close the iterator (or let it go) to end its workers.
        """
        chunks = _TrainingChunks(
            self.records,
            _checked(places, batch_size),
            self.rand_augment,
            self.on_corrupt,
            seed,
            first_step,
            batch_size,
        )
        return self._read(chunks)

    def evaluation_batches(
        self, batch_size: int, places: Sequence[int] | np.ndarray | None = None
    ) -> Generator[Batch, None, None]:
        """The whole split once, in the order of the files, as `batches` shares and yields it.

        All processes get equally many batches; only the last may be short, or empty here.
        """
        local = _checked(places, batch_size)
        return self._read(_EvaluationChunks(self.records, local, batch_size))

    def _read(self, chunks: "_Chunks") -> Generator[Batch, None, None]:
        iterator = iter(_pipeline(chunks, self.num_workers))
        try:
            while True:
                begin = time.perf_counter()
                batch = next(iterator, None)
                self.waited += time.perf_counter() - begin
                if batch is None:
                    return
                self.replaced += int(batch.pop("replaced").sum())
                yield batch
        finally:
            iterator.close()


def _checked(places: Sequence[int] | np.ndarray | None, batch_size: int) -> tuple[int, ...]:
    """The places as whole numbers; ValueError where one is not in the batch."""
    local = tuple(range(batch_size)) if places is None else tuple(int(place) for place in places)
    if not local or min(local) < 0 or max(local) >= batch_size:
        raise ValueError(f"places {local} must lie in a batch of {batch_size}")
    return local


def _pipeline(chunks: "_Chunks", num_workers: int) -> grain.IterDataset:
    """The batches assembled from `chunks`, whole chunks going to the workers in turn.

    Workers and the assembling thread together are about two batches ahead.
    """
    if not flags.FLAGS.is_parsed():  # in a program without absl's flags; Grain reads its own
        flags.FLAGS.mark_as_parsed()
    # A chunk is prepared in one go: threads in a worker would only wait for the interpreter's lock.
    dataset = grain.MapDataset.source(chunks).to_iter_dataset(
        grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    )
    if num_workers:
        ahead = max(1, -(-chunks.per_batch // num_workers))
        dataset = dataset.mp_prefetch(
            grain.MultiprocessingOptions(num_workers, per_worker_buffer_size=ahead)
        )
    dataset = dataset.batch(chunks.per_batch, batch_fn=_concatenate)
    return grain.experimental.ThreadPrefetchIterDataset(dataset, prefetch_buffer_size=1)


def _concatenate(chunks: Sequence[Chunk]) -> Batch:
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


@dataclasses.dataclass(frozen=True, eq=False)
class _Chunks:
    """What Grain reads from: element i is chunk i mod per_batch of batch i // per_batch.

    `local` are the positions of the global batch that this process prepares.
    """

    records: Records
    local: tuple[int, ...]

    @functools.cached_property
    def per_batch(self) -> int:
        return -(-len(self.local) // CHUNK)

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> Chunk:
        batch, chunk = divmod(int(index), self.per_batch)
        bounds = np.linspace(0, len(self.local), self.per_batch + 1).astype(int)
        return self._chunk(batch, self.local[bounds[chunk] : bounds[chunk + 1]])

    def _chunk(self, batch: int, positions: tuple[int, ...]) -> Chunk:
        """The examples at `positions` of the batch."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, eq=False)
class _TrainingChunks(_Chunks):
    rand_augment: RandAugment | None
    on_corrupt: str
    seed: int
    first_step: int
    batch_size: int

    def __len__(self) -> int:
        return self.per_batch * 2**31  # steps without end

    def _chunk(self, batch: int, positions: tuple[int, ...]) -> Chunk:
        step = self.first_step + batch
        (indices,) = batch_indices(self.seed, step, 1, self.batch_size, len(self.records))
        chunk = _empty(len(positions))
        for row, position in enumerate(positions):
            image, label, skipped = self._example(int(indices[position]), step, position)
            chunk["image"][row], chunk["label"][row] = image, label
            chunk["replaced"][row] = skipped > 0
        return chunk

    def _example(self, index: int, step: int, position: int) -> tuple[np.ndarray, int, int]:
        """(image, label, how many damaged images were passed over)."""
        for skipped in range(len(self.records)):
            candidate = (index + skipped) % len(self.records)
            example = self.records.labelled(candidate)
            draws = Draws(self.seed, step, position)
            try:
                image = preprocess.train_image(example.image, draws, self.rand_augment)
            except preprocess.CorruptImageError as error:
                damaged = _damaged(self.records, candidate, example.file_name, error)
                if self.on_corrupt == "raise":
                    raise damaged from error
                logging.warning("%s; the next sound example takes its place", damaged)
            else:
                return image, example.label, skipped
        raise UserError(f"{self.records.folder}: no sound image in {self.records.split}")


@dataclasses.dataclass(frozen=True, eq=False)
class _EvaluationChunks(_Chunks):
    batch_size: int

    def __len__(self) -> int:
        return self.per_batch * -(-len(self.records) // self.batch_size)

    def _chunk(self, batch: int, positions: tuple[int, ...]) -> Chunk:
        begin = batch * self.batch_size
        indices = [begin + p for p in positions if begin + p < len(self.records)]
        chunk = _empty(len(indices))
        for row, index in enumerate(indices):
            example = self.records.labelled(index)
            try:
                chunk["image"][row] = preprocess.evaluation_image(example.image)
            except preprocess.CorruptImageError as error:
                raise _damaged(self.records, index, example.file_name, error) from error
            chunk["label"][row] = example.label
        return chunk


def _empty(examples: int) -> Chunk:
    return {
        "image": np.empty((examples, preprocess.SIZE, preprocess.SIZE, 3), np.uint8),
        "label": np.empty(examples, np.int32),
        "replaced": np.zeros(examples, bool),
    }


def _damaged(records: Records, index: int, file_name: str, error: Exception) -> UserError:
    return UserError(f"{records.where(index)} ({file_name}): damaged JPEG: {error}")
