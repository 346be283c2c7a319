import json
import os
import tracemalloc

import numpy as np
import pytest

from rkbench.errors import UserError
from rkbench.records import metrics


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


COMMON = {"seed": 0, "wall_time": 0.5, "grad_evals": 4}


def write(path, *records):
    writer = metrics.JsonLinesWriter(path)
    for step, scalars in records:
        writer.write_scalars(step, COMMON | scalars)
    writer.close()


def test_round_trip(path):
    write(path, (1, {"seed": 0, "a": np.float32(0.1)}), (2, {"seed": 0, "a": 0.25}))
    assert list(metrics.read(path)) == [
        {"step": 1, **COMMON, "a": float(np.float32(0.1))},
        {"step": 2, **COMMON, "a": 0.25},
    ]


def test_what_is_not_finite_is_null_and_the_line_is_strict_json(path):
    write(path, (1, {"a": np.float32(np.nan), "b": float("inf"), "c": np.int32(3)}))
    text = path.read_text()
    record = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert record == {"step": 1, **COMMON, "a": None, "b": None, "c": 3}


GOOD = json.dumps({"step": 3, **COMMON, "test/accuracy": 0.5}) + "\n"
NOT_WHOLE = [
    *(
        '{"step": 3, "se',
        "\x00\x00\x00\n",
        '{"step": 3}',
        "3\n",
        "\xff\n",
        "[" * 900 + "\n",
        GOOD[:-1],
    ),
    *(GOOD.replace("0.5", value) for value in ("null", "-1", "[]", '"1"', "true", "NaN", "1e400")),
    GOOD.replace('"wall_time": 0.5, ', ""),
    GOOD.replace("4", "null"),
    GOOD.replace("0.5}", "1e308}"),
    GOOD.replace('"step": 3', '"step": 3.0'),
    GOOD.replace('"step": 3', '"step": -3'),
    GOOD.replace('"wall_time": 0.5', '"wall_time": -1.0'),
    GOOD.replace("4", "9" * 400),
    GOOD.replace("step", "\\ud800"),
]


@pytest.mark.parametrize("tail", NOT_WHOLE, ids=range(len(NOT_WHOLE)))
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


def test_keep_only_forgets_what_stands_between_lines_that_stay(path):
    write(path, *((step, {"seed": step % 2}) for step in range(7)))
    before = path.read_bytes().splitlines(keepends=True)
    metrics.keep_only(path, lambda record: record["seed"] == 0)
    assert path.read_bytes() == b"".join(before[::2])


def test_fingerprints_are_those_that_the_records_give_also_with_other_line_ends(path):
    write(path, *((step, {"seed": seed, "a": 0.1}) for step in (1, 2, 3) for seed in (0, 1)))
    by_seed = {
        seed: [line for line in metrics.read(path) if line["seed"] == seed] for seed in (0, 1)
    }
    expected = {seed: metrics.Fingerprint(own).to_json() for seed, own in by_seed.items()}
    assert metrics.fingerprints(path) == expected
    assert expected[0]["lines"] == 3
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert metrics.fingerprints(path) == expected


def test_a_long_log_is_read_in_little_memory(path):
    path.write_text(GOOD * 20_000)
    tracemalloc.start()
    assert metrics.fingerprints(path)[0]["lines"] == sum(1 for _ in metrics.read(path)) == 20_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2e6  # a list of the records takes ten times as much


def test_what_is_no_file_is_refused_and_a_line_without_end_does_not_fill_the_memory(path):
    os.mkfifo(path)
    with pytest.raises(UserError, match=r"metrics.jsonl cannot be read: it is not a file"):
        list(metrics.read(path))
    path.unlink()
    path.write_bytes(b" " * (5 << 20))
    assert list(metrics.read(path)) == []


def test_numbers_come_back_bit_for_bit(path):
    values = np.random.default_rng(0).normal(size=100).astype(np.float32)
    write(path, *((i, {"seed": 0, "v": v}) for i, v in enumerate(values)))
    read = np.array([record["v"] for record in metrics.read(path)], np.float32)
    np.testing.assert_array_equal(read, values)
