import json

import numpy as np
import pytest

from rkbench import metrics


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def write(path, *records):
    writer = metrics.JsonLinesWriter(path)
    for step, scalars in records:
        writer.write_scalars(step, scalars)
    writer.close()


def test_round_trip(path):
    write(path, (1, {"seed": 0, "a": np.float32(0.1)}), (2, {"seed": 0, "a": 0.25}))
    assert list(metrics.read(path)) == [
        {"step": 1, "seed": 0, "a": float(np.float32(0.1))},
        {"step": 2, "seed": 0, "a": 0.25},
    ]


def test_what_is_not_finite_is_null_and_the_line_is_strict_json(path):
    write(path, (1, {"a": np.float32(np.nan), "b": float("inf"), "c": np.int32(3)}))
    text = path.read_text()
    record = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert record == {"step": 1, "a": None, "b": None, "c": 3}


@pytest.mark.parametrize(
    "tail", ['{"step": 3, "se', "\x00\x00\x00\n", '{"step": 3}', "3\n", "\xff\n"]
)
def test_a_cut_off_end_is_left_out_and_then_removed(path, tail):
    write(path, (1, {"seed": 0}), (2, {"seed": 0}))
    with open(path, "a") as file:
        file.write(tail)
    assert [record["step"] for record in metrics.read(path)] == [1, 2]
    metrics.keep_only(path, lambda record: True)
    write(path, (3, {"seed": 0}))
    assert [record["step"] for record in metrics.read(path)] == [1, 2, 3]


def test_keep_only_forgets_the_rest(path):
    write(path, *((step, {"seed": seed}) for seed in (0, 1) for step in (1, 2, 3)))
    metrics.keep_only(path, lambda record: record["seed"] == 0 or record["step"] < 2)
    kept = [(record["seed"], record["step"]) for record in metrics.read(path)]
    assert kept == [(0, 1), (0, 2), (0, 3), (1, 1)]


def test_numbers_come_back_bit_for_bit(path):
    values = np.random.default_rng(0).normal(size=100).astype(np.float32)
    write(path, *((i, {"seed": 0, "v": v}) for i, v in enumerate(values)))
    read = np.array([record["v"] for record in metrics.read(path)], np.float32)
    np.testing.assert_array_equal(read, values)
