import numpy as np
import pytest
from ml_collections import ConfigDict

from rkbench.errors import UserError
from rkbench.trainer import schedules

pytestmark = pytest.mark.standard_promotion  # optax's schedules mix integers and floats


def schedule(name, warmup_steps=0, end_factor=0.0):
    return ConfigDict({"name": name, "warmup_steps": warmup_steps, "end_factor": end_factor})


def test_constant():
    table = schedules.tabulate(schedule("constant"), 0.3, 7)
    np.testing.assert_array_equal(table, np.full(7, 0.3, np.float32))


def test_cosine():
    table = schedules.tabulate(schedule("cosine", end_factor=0.1), 2.0, 100)
    n = np.arange(100)
    expected = 2.0 * (0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * n / 100)))
    np.testing.assert_allclose(table, expected, rtol=1e-5)


def test_warmup_is_linear_from_zero_and_the_cosine_ends_one_after_the_last_step():
    table = schedules.tabulate(schedule("warmup_cosine", 20, 0.1), 2.0, 120)
    assert table[0] == 0  # the first step has no length
    assert table[20] == 2.0
    np.testing.assert_allclose(table[:20], 2.0 * np.arange(20) / 20, rtol=1e-5)
    cosine = 0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * np.arange(100) / 100))
    np.testing.assert_allclose(table[20:], 2.0 * cosine, rtol=1e-4)


@pytest.mark.parametrize("name", ["cosine", "warmup_cosine"])
def test_the_last_step_is_a_little_above_the_end_which_would_be_the_next(name):
    for steps, above in ((10, 0.02202), (1000, 2.2e-6)):  # 0.9 (1 - cos(pi / N)) / 2
        last = schedules.tabulate(schedule(name, end_factor=0.1), 1.0, steps)[-1]
        assert last - 0.1 == pytest.approx(above, rel=0.02)


@pytest.mark.parametrize("name", schedules.names())
def test_every_schedule_is_a_float32_a_step(name):
    table = schedules.tabulate(schedule(name), 0.1, 11)
    assert table.dtype == np.float32
    assert table.shape == (11,)


def test_what_cannot_work_is_refused():
    with pytest.raises(UserError, match="unknown schedule 'cosinus'; nearest: cosine"):
        schedules.tabulate(schedule("cosinus"), 0.1, 10)
    with pytest.raises(UserError, match="warmup_steps=10"):
        schedules.tabulate(schedule("warmup_cosine", 10), 0.1, 10)
