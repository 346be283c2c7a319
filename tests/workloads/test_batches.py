import numpy as np
import pytest

from rkbench.workloads.batches import batch_indices, permutation, resolve_batch_size


@pytest.mark.parametrize("batch_size", [1, 7, 10, 64])
def test_every_epoch_sees_every_example_once_whatever_the_batch_size(batch_size):
    examples = 64
    steps = -(-3 * examples // batch_size)
    stream = batch_indices(5, 0, steps, batch_size, examples).reshape(-1)[: 3 * examples]
    for epoch in stream.reshape(3, examples):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(examples))


def test_a_batch_depends_on_seed_and_step_alone():
    whole = batch_indices(1, 0, 40, 12, 50)
    pieces = [batch_indices(1, begin, 8, 12, 50) for begin in range(0, 40, 8)]
    np.testing.assert_array_equal(whole, np.concatenate(pieces))
    assert not np.array_equal(whole, batch_indices(2, 0, 40, 12, 50))


def test_epochs_differ():
    assert not np.array_equal(permutation(0, 0, 100), permutation(0, 1, 100))


def test_the_stream_is_the_same_on_every_machine_and_numpy():
    # As when the format was fixed: a change would alter every run, and break every resume.
    assert permutation(0, 0, 60_000)[:5].tolist() == [47848, 34552, 24994, 32827, 31943]
    assert permutation(7, 3, 1_297)[:5].tolist() == [1105, 702, 1181, 1152, 703]


def test_full_means_all_examples():
    assert resolve_batch_size("full", 60_000) == 60_000
    assert resolve_batch_size(16, 60_000) == 16
