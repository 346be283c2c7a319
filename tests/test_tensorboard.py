"""CLU's writers: ours is one of them, and the event files hold what the log holds."""

import inspect

import numpy as np
import pytest

from rkbench import metrics
from rkbench.metrics import JsonLinesWriter
from rkbench.tensorboard import TensorBoardThread


@pytest.fixture(scope="module")
def clu_writers():
    from clu import metric_writers

    return metric_writers


def record(seed, step):
    scalars = {"seed": seed, "wall_time": 0.5 * step, "grad_evals": 4 * step}
    return metrics.record(step, scalars | {"batch/loss": 1 / step, "batch/bad": np.nan})


def test_event_files_hold_the_log_and_a_resumed_run_replaces_them(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    folder = tmp_path / "tensorboard"
    for steps in (range(1, 6), range(1, 4)):  # the second run starts from a log of three steps
        thread = TensorBoardThread(folder, [record(0, step) for step in list(steps)[:2]])
        for step in list(steps)[2:]:
            thread.write(record(0, step))
        thread.close()
    events = EventAccumulator(str(folder / "seed_0"))
    events.Reload()
    assert set(events.Tags()["tensors"]) == {"batch/loss", "wall_time", "grad_evals"}
    written = events.Tensors("batch/loss")
    assert [event.step for event in written] == [1, 2, 3]
    values = [make_ndarray(event.tensor_proto) for event in written]
    np.testing.assert_allclose(values, [1, 1 / 2, 1 / 3], rtol=1e-6)


def test_our_writer_is_one_of_clus(clu_writers, tmp_path):
    for name in clu_writers.MetricWriter.__abstractmethods__:
        assert inspect.isfunction(getattr(JsonLinesWriter, name)), name
    writer = JsonLinesWriter(tmp_path / "metrics.jsonl")
    with clu_writers.ensure_flushes(clu_writers.MultiWriter([writer])) as both:
        both.write_scalars(3, {"seed": 0, "wall_time": 0.5, "grad_evals": 3, "a": 1.5})
    (line,) = metrics.read(tmp_path / "metrics.jsonl")
    assert line == {"step": 3, "seed": 0, "wall_time": 0.5, "grad_evals": 3, "a": 1.5}
    with pytest.raises(NotImplementedError, match="scalars only"):
        writer.write_images(0, {})


def test_a_failure_to_write_is_said_and_ends_nothing(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    thread = TensorBoardThread(tmp_path / "file", [record(0, 1)])
    thread.close()
    assert "TensorBoard files were not written" in capsys.readouterr().err
