"""Which examples make up the batch of a step: a pure function of (seed, step).

The stream of examples is one fresh permutation of the training set after another, cut into
batches; a batch may therefore end one epoch and begin the next, and in every epoch each example is
seen exactly once, whatever the batch size. Nothing is stored, so resuming costs nothing.
"""

import functools

import numpy as np

FULL = "full"  # the config's `batch_size` for the whole training set


def resolve_batch_size(batch_size: int | str, examples: int) -> int:
    """The number of examples a batch: `batch_size`, or all `examples` where it is "full"."""
    return examples if batch_size == FULL else int(batch_size)


@functools.lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, examples: int) -> np.ndarray:
    """A permutation of range(examples), int32 [examples], drawn from (seed, epoch) alone.

    It sorts the raw output of the counter-based Philox generator, which NumPy keeps stable between
    versions (it does not promise that for `Generator.permutation`).
    """
    bits = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(examples)
    order = np.argsort(bits, kind="stable").astype(np.int32)
    order.flags.writeable = False  # it is shared through the cache
    return order


def batch_indices(
    seed: int, first_step: int, steps: int, batch_size: int, examples: int
) -> np.ndarray:
    """The examples of the steps first_step, ..., first_step + steps - 1: int32 [steps, batch_size].

    Step n (from 0) takes the positions n * batch_size, ... of the stream; position p is entry
    p mod examples of the permutation of epoch p // examples.
    """
    begin, end = first_step * batch_size, (first_step + steps) * batch_size
    pieces = []
    while begin < end:
        epoch, offset = divmod(begin, examples)
        piece = permutation(seed, epoch, examples)[offset : offset + end - begin]
        pieces.append(piece)
        begin += len(piece)
    return np.concatenate(pieces).reshape(steps, batch_size)
