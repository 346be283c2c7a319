"""Datasets in memory that are given out as streams, for tests of streamed training."""

import jax

from rkbench.workloads.batches import batch_indices


class ArrayStream:
    """Arrays read as a stream; the batch of every odd step counts a replaced example."""

    def __init__(self, arrays):
        self.arrays, self.replaced, self.opened = arrays, 0, []
        self.places: list[int] = []  # of the batches asked for last

    @property
    def spec(self):
        return {k: jax.ShapeDtypeStruct(v.shape[1:], v.dtype) for k, v in self.arrays.items()}

    def __len__(self):
        return len(self.arrays["label"])

    def batches(self, seed, first_step, batch_size, places):
        self.opened.append((seed, first_step))
        self.places = [int(place) for place in places]
        step = first_step
        while True:
            (rows,) = batch_indices(seed, step, 1, batch_size, len(self))
            self.replaced += step % 2
            yield {name: array[rows[places]] for name, array in self.arrays.items()}
            step += 1

    def evaluation_batches(self, batch_size, places):
        for begin in range(0, len(self), batch_size):
            rows = begin + places[begin + places < len(self)]
            yield {name: array[rows] for name, array in self.arrays.items()}


class Streamed:
    """A dataset in memory, streamed."""

    def __init__(self, dataset):
        self._dataset = dataset
        self.train, self.test = ArrayStream(dataset.train), ArrayStream(dataset.test)

    def __getattr__(self, name):
        return getattr(self._dataset, name)
