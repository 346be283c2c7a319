"""From hand-made logs to summaries, statistics and figures."""

import csv
import json

import numpy as np
import pytest
from scipy import stats

from rkbench.drawing.plotting import Figure, Panel, draw, limits
from rkbench.errors import UserError
from rkbench.records import Run, metrics, summary
from rkbench.statistics import band, estimate, percent

ACCURACIES = {0: [0.1, 0.8, 0.9, 0.7], 1: [0.2, 0.6, 0.6, 0.8], 2: [0.15, 0.9, 0.5, 0.9]}


def lines():
    for seed, accuracies in ACCURACIES.items():
        for i, accuracy in enumerate(accuracies):
            yield {
                "step": 10 * i,
                "seed": seed,
                "wall_time": 0.5 * i + seed,
                "grad_evals": 40 * i,
                "test/accuracy": accuracy,
            }
            if i < 3:
                yield {"step": 10 * i + 5, "seed": seed, "wall_time": 0.0, "grad_evals": 0}


@pytest.fixture
def run(tmp_path):
    writer = metrics.JsonLinesWriter(tmp_path / "metrics.jsonl")
    for line in lines():
        writer.write_line(line)
    writer.close()
    seeds = [summary.of_seed(lines(), seed, None, 2.0, 30) for seed in ACCURACIES]
    config = {"workload": "mnist_mlp", "optimizer": {"name": "adam"}}
    (tmp_path / "run.json").write_text(json.dumps({"config": config, "seeds": seeds}))
    return Run(tmp_path)


def test_the_summary_takes_the_first_best_and_the_last_accuracy(run):
    one, _, three = run.record["seeds"]
    assert (one["best_test_accuracy"], one["best_test_step"]) == (0.9, 20)
    assert one["final_test_accuracy"] == 0.7
    assert (three["best_test_accuracy"], three["best_test_step"]) == (0.9, 10)
    assert one["grad_evals"] == 120


def test_a_diverged_seed_has_a_best_but_no_final_accuracy():
    entry = summary.of_seed(lines(), 0, 17, 2.0, 30)
    assert entry["status"] == "diverged"
    assert entry["steps"] == 17
    assert entry["best_test_accuracy"] == 0.9
    assert entry["final_test_accuracy"] is None


@pytest.mark.parametrize(
    ("axis", "x"),
    [
        ("step", [0, 10, 20, 30]),
        ("grad_evals", [0, 40, 80, 120]),
        ("wall_time", [1, 1.5, 2, 2.5]),
    ],
)
def test_curves_on_each_axis(run, axis, x):
    curve = run.curve("test/accuracy", axis)
    np.testing.assert_allclose(curve.x, x)
    np.testing.assert_array_equal(curve.values, list(ACCURACIES.values()))


def test_an_unknown_metric_is_named(run):
    with pytest.raises(UserError, match="'test/acuracy'; nearest: test/accuracy"):
        run.curve("test/acuracy")


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        _ = Run(tmp_path / "nothing").record


def test_estimate_is_that_of_scipy(run):
    values = run.outcomes("final_test_accuracy")
    result = estimate(values)
    assert result.mean == pytest.approx(np.mean([0.7, 0.8, 0.9]))
    assert result.standard_error == pytest.approx(stats.sem([0.7, 0.8, 0.9]))
    assert result.n == 3


def test_percent_says_what_is_missing():
    assert percent(estimate(np.array([0.9664, 0.9672]))) == "96.68 ± 0.04"
    assert percent(estimate(np.array([0.9664]))) == "96.64"
    assert percent(estimate(np.array([]))) == "-"


def test_a_band_leaves_out_what_a_seed_did_not_reach():
    values = np.array([[1.0, 2.0, 4.0], [3.0, np.nan, 4.0], [5.0, 4.0, 4.0]])
    mean, error = band(values)
    np.testing.assert_allclose(mean, [3, 3, 4])
    np.testing.assert_allclose(error, [stats.sem([1, 3, 5]), stats.sem([2, 4]), 0])


def test_a_panel_may_begin_at_what_was_reached_after_the_skipped_points(run):
    means = np.array([0.15, 2.3 / 3, 2 / 3, 0.8])
    errors = np.std(list(ACCURACIES.values()), axis=0, ddof=1) / np.sqrt(3)
    for skipped, first in ((0.1, 0), (0.34, 1), (0.67, 2)):
        low, high = limits(Panel("", "test/accuracy", {"one": run}, skipped=skipped))
        bottom, top = means[first], max(means + errors)
        margin = 0.05 * (top - bottom)
        assert (low, high) == pytest.approx((bottom - margin, top + margin))


def test_a_figure_draws_and_lists_what_it_draws(run, tmp_path):
    figure = Figure((Panel("left", "test/accuracy", {"one": run, "other": run}),), "caption")
    files = draw(figure, tmp_path / "figure")
    assert [file.suffix for file in files] == [".png", ".pdf", ".csv"]
    assert files[0].read_bytes().startswith(b"\x89PNG")
    with open(files[2], newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    assert {row["curve"] for row in rows} == {"one", "other"}
    values = np.array(list(ACCURACIES.values()))
    np.testing.assert_allclose([float(r["mean"]) for r in rows[:4]], values.mean(axis=0))
    np.testing.assert_allclose([float(r["standard_error"]) for r in rows[:4]], stats.sem(values))


def test_a_run_on_a_subset_says_so(run):
    sizes = {"train_examples": 1_000, "test_examples": 10, "full_train_examples": 50_000}
    data = {"name": "cifar10", "subset": True, **sizes, "full_test_examples": 10}
    said = "cifar10: 1,000 of 50,000 training and 10 of 10 test examples"
    assert summary.text(run.record | {"data": data}).endswith(f"on a subset of {said}")
    assert "subset" not in summary.text(run.record | {"data": {"name": "cifar10"}})
