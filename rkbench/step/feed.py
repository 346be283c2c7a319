"""How the examples of a step reach the compiled program.

A dataset that fits in memory lies on the device whole, and a step is told which examples to take
(`ResidentFeed`). A larger one is streamed: a step is handed its batch (`StreamedFeed`). In both
cases the batch is a pure function of (seed, step).
"""

import time
from collections.abc import Generator, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from rkbench.step.sharding import EXAMPLES, ONE_DEVICE, Layout
from rkbench.workloads.base import Arrays, Stream
from rkbench.workloads.batches import batch_indices

PyTree = Any


class Feed(Protocol):
    """What `Program` takes its examples from.

    Attributes:
      streamed: whether a call serves a single step, and examples come from the host.
      abstract: the `data` of a call as shapes and dtypes, or as it is.
      columns: examples that the indices of a step name; 0 where `data` is the batch itself.
    """

    streamed: bool
    abstract: PyTree
    columns: int

    def __call__(
        self, seeds: Sequence[int], first_step: int, steps: int
    ) -> tuple[PyTree, list[np.ndarray]]:
        """(data, for each seed the examples of each step in it: int32 [steps, columns])."""
        ...

    def counters(self) -> dict[str, float]:
        """What the input has cost since it was opened, by the names of the log."""
        ...

    def close(self) -> None:
        """Ends the threads and processes of the input; the next call starts them again."""
        ...


class ResidentFeed:
    """Arrays that lie on the device for the whole run."""

    streamed = False

    def __init__(self, arrays: Arrays, batch_size: int, layout: Layout = ONE_DEVICE):
        self.abstract = layout.put(arrays) if layout.mesh else jax.tree.map(jax.device_put, arrays)
        self._examples = len(next(iter(arrays.values())))
        self.columns = batch_size if batch_size < self._examples else 0

    def __call__(self, seeds, first_step, steps):
        if not self.columns:
            return self.abstract, [np.zeros((steps, 0), np.int32) for _ in seeds]
        return self.abstract, [
            batch_indices(seed, first_step, steps, self.columns, self._examples) for seed in seeds
        ]

    def counters(self) -> dict[str, float]:
        return {}

    def close(self) -> None:
        pass


class StreamedFeed:
    """Batches that the host prepares while the device computes, in rows [chunks, chunk, ...].

    Each process prepares what its own devices need. `input/wait_seconds` counts the time in which a
    step had to wait for its batch.
    """

    streamed = True
    columns = 0

    def __init__(self, stream: Stream, batch_size: int, chunk: int, layout: Layout):
        """`chunk` divides `batch_size`, and the devices of `layout` divide `chunk`."""
        self._stream = stream
        self._batch_size, self._chunk, self._layout = batch_size, chunk, layout
        places = np.arange(batch_size).reshape(-1, chunk)
        self._places = places[:, layout.local_columns(chunk)]
        self._batches: Generator[Arrays] | None = None
        self._next: tuple[int, int] | None = None  # (seed, step) of what the generator yields next
        self._waited, self._replaced = 0.0, 0
        self.abstract = {
            name: jax.ShapeDtypeStruct(
                (*places.shape, *leaf.shape), leaf.dtype, sharding=layout.sharding(None, EXAMPLES)
            )
            for name, leaf in stream.spec.items()
        }

    def __call__(self, seeds, first_step, steps):
        (seed,), indices = seeds, np.zeros((steps, 0), np.int32)
        if steps != 1:
            raise ValueError(f"a stream gives one step at a time, not {steps}")
        if self._batches is None or self._next != (seed, first_step):
            self._end()
            places = self._places.ravel()
            self._batches = self._stream.batches(seed, first_step, self._batch_size, places)
        begin, replaced = time.perf_counter(), self._stream.replaced
        batch = next(self._batches)
        self._waited += time.perf_counter() - begin
        self._replaced += self._stream.replaced - replaced
        self._next = seed, first_step + 1
        return jax.tree.map(self._placed, batch), [indices]

    def _placed(self, leaf: np.ndarray) -> jax.Array:
        rows = leaf.reshape(*self._places.shape, *leaf.shape[1:])
        return self._layout.from_local(rows, self._chunk, axis=1)

    def counters(self) -> dict[str, float]:
        return {"input/wait_seconds": self._waited, "input/replaced": self._replaced}

    def _end(self) -> None:
        if self._batches is not None:
            self._batches.close()
        self._batches = self._next = None

    def close(self) -> None:
        self._end()
        self._waited, self._replaced = 0.0, 0


def open_feed(
    examples: Arrays | Stream, batch_size: int, chunk: int = 0, layout: Layout = ONE_DEVICE
) -> Feed:
    """The feed of a training set, which is in memory or streamed; `chunk` 0 is the whole batch."""
    if isinstance(examples, dict):
        return ResidentFeed(examples, batch_size, layout)
    return StreamedFeed(examples, batch_size, chunk or batch_size, layout)
