"""Random numbers of one example: a pure function of seed, step and place in the batch."""

import numpy as np

_STREAM = 1  # last word of the counter; 0 is `workloads.batches.permutation`'s


class Draws:
    """The stream of uniform numbers of (seed, step, position), read one after the other.

    From the raw output of the counter-based Philox generator, which NumPy keeps stable between
    versions (it does not promise that for `Generator`'s methods).
    """

    def __init__(self, seed: int, step: int, position: int):
        key = np.array([seed, step], np.uint64)
        counter = np.array([0, 0, position, _STREAM], np.uint64)
        self._bits = np.random.Philox(key=key, counter=counter)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A number in [low, high)."""
        return low + (high - low) * (self._bits.random_raw() >> 11) * 2.0**-53

    def below(self, n: int) -> int:
        """An integer in 0, ..., n - 1."""
        return int(self.uniform() * n)

    def coin(self) -> bool:
        """True with probability 0.5."""
        return self.uniform() < 0.5
