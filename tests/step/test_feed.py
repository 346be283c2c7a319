"""Batches by index or streamed: the same batches, and the same training, bit for bit."""

import numpy as np
import pytest
from resuming import check_resuming, log
from streams import ArrayStream, Streamed

from rkbench.configs import digits_mlp
from rkbench.errors import UserError
from rkbench.step.feed import StreamedFeed, open_feed
from rkbench.train import train_experiment
from rkbench.trainer.experiment import Experiment
from rkbench.workloads import datasets
from rkbench.workloads.batches import batch_indices


def config(variant="rk4_momentum", **changes):
    result = digits_mlp.get_config(variant)
    result.model.hidden_sizes = (16,)
    settings = {
        "total_steps": 12,
        "eval_every_steps": 4,
        "checkpoint_every_steps": 3,
        "log_every_steps": 3,
        "train_eval_size": 333,
        "tensorboard": False,
    }
    result.update(settings | changes)
    return result.lock()


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits")


@pytest.mark.parametrize("chunk", [0, 8])
def test_streamed_training_is_training_on_the_same_batches(tmp_path, digits, chunk):
    configuration = config(seeds=(0, 3), physical_batch_size=chunk)
    for name, dataset in (("memory", digits), ("stream", Streamed(digits))):
        train_experiment(Experiment.from_config(configuration, dataset), tmp_path / name)
    streamed, resident = log(tmp_path / "stream"), log(tmp_path / "memory")
    replaced = {line["step"]: line.pop("input/replaced", None) for line in streamed}
    assert {step: n for step, n in replaced.items() if n is not None} == {0: 0, 4: 2, 8: 4, 12: 6}
    # Single steps against a compiled loop: the last digits may differ.
    for one, other in zip(streamed, resident, strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-4)


def test_a_killed_streamed_run_resumes_bit_for_bit(tmp_path, monkeypatch, digits):
    monkeypatch.setattr(datasets, "load", lambda name, data_dir: Streamed(digits))
    check_resuming(monkeypatch, tmp_path, config(seeds=(1,)), calls=6)


def test_a_stream_is_opened_again_only_where_the_steps_do_not_follow(digits):
    stream = ArrayStream(digits.train)
    feed = open_feed(stream, 7)
    assert isinstance(feed, StreamedFeed)
    for seed, step in ((0, 0), (0, 1), (0, 2), (0, 9), (1, 10), (1, 11)):
        batch, _ = feed((seed,), step, 1)
        (rows,) = batch_indices(seed, step, 1, 7, len(stream))
        np.testing.assert_array_equal(batch["label"], digits.train["label"][rows][None])
    assert stream.opened == [(0, 0), (0, 9), (1, 10)]
    assert feed.counters()["input/replaced"] == 3
    feed.close()
    assert set(feed.counters().values()) == {0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": "full"}, "batch_size='full' needs a dataset in memory"),
        ({"vectorize_seeds": "on"}, "vectorize_seeds='on' needs a dataset in memory"),
        ({"input_scaling": "standardized"}, "needs a dataset in memory; digits is streamed"),
    ],
)
def test_what_a_stream_cannot_do_is_refused(digits, changes, message):
    with pytest.raises(UserError, match=message):
        Experiment.from_config(config(**changes), Streamed(digits))
