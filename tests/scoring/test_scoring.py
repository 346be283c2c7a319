"""Scores of hand-made logs against scipy and numbers worked out by hand."""

import csv
import gzip
import json
import math
from typing import Any

import numpy as np
import pytest
from scipy import integrate, stats

from rkbench import scoring, statistics
from rkbench.commands import score
from rkbench.configs import digits_mlp
from rkbench.errors import UserError
from rkbench.records.identity import plain_config
from rkbench.scoring.tables import tabulate

ONE = {0: 0.91, 1: 0.93, 2: 0.96, 3: 0.92}
METRIC = "validation/accuracy"
OTHER = {1: 0.90, 2: 0.92, 3: 0.91, 7: 0.99}


def write_run(folder, variant="adam", curves: Any = None, diverged=(), **record):
    """A run whose `curves` are {seed: values at steps 0, 10, 20, ...}; returns its folder."""
    metric = record.pop("metric", "test/accuracy")
    settings = record.pop("settings", {})
    each = record.pop("grad_evals", 1)
    config = plain_config(digits_mlp.get_config(variant))
    config |= {"seeds": list(curves), "eval_every_steps": 10, "log_every_steps": 0, **settings}
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    with open(folder / "metrics.jsonl", "w") as file:
        for seed, values in curves.items():
            for i, value in enumerate(values):
                step = 10 * i
                line = {"step": step, "seed": seed, "wall_time": 0.5 * i, "grad_evals": each * step}
                file.write(json.dumps({**line, metric: value}) + "\n")
            status = "diverged" if seed in diverged else "done"
            steps = 10 * (len(values) - 1)
            spent = {"seconds": 0.5 * steps / 10, "grad_evals": each * steps}
            entries.append({"seed": seed, "status": status, "steps": steps, **spent})
    content = {"config": config, "data": {"name": "digits"}, "status": "done", "seeds": entries}
    (folder / "run.json").write_text(json.dumps(content | record))
    return folder


def only(settings):
    (setting,) = settings
    return setting


def test_the_interval_of_a_mean_is_students():
    values = np.array(list(ONE.values()))
    found = statistics.estimate(values)
    expected = stats.t.interval(0.95, 3, values.mean(), stats.sem(values))
    np.testing.assert_allclose(found.interval, expected, rtol=1e-12)
    assert found.standard_deviation == pytest.approx(stats.tstd(values), rel=1e-12)
    assert np.isnan(statistics.estimate(values[:1]).interval).all()


def test_paired_differences_are_over_equal_seeds():
    common = [1, 2, 3]
    a, b = ([side[seed] for seed in common] for side in (ONE, OTHER))
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    found = statistics.paired(ONE, OTHER)
    assert found.n == (3, 3)
    assert found.mean == pytest.approx(0.08 / 3)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-10)
    assert not found.significant
    assert statistics.paired({1: 0.9, 2: 0.8}, {1: 0.7, 2: 0.601}).significant


def test_welchs_interval_is_scipys():
    a, b = np.array(list(ONE.values())), np.array([0.5, 0.9, 0.7])
    expected = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    found = statistics.welch(a, b)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-10)
    assert found.mean == pytest.approx(0.93 - 0.7)
    assert np.isnan(statistics.welch(a, b[:1]).low)


def test_an_outcome_by_hand(tmp_path):
    folder = write_run(tmp_path, curves={4: [0.1, 0.6, 0.9, 0.9, 0.7]}, grad_evals=4)
    log = only(only(scoring.collect([folder]).settings).logs)
    found = scoring.outcome(log, "test/accuracy", 0.6)
    assert (found.best, found.best_step, found.final) == (0.9, 20, 0.7)
    assert found.spent == {"step": 40, "grad_evals": 160, "wall_time": 2.0}
    assert found.to_target == {"step": 10, "grad_evals": 40, "wall_time": 0.5}
    missed = scoring.outcome(log, "test/accuracy", 0.95)
    assert set(missed.to_target.values()) == {math.inf}


def test_of_losses_the_smallest_is_the_best_and_a_target_lies_below(tmp_path):
    folder = write_run(tmp_path, curves={0: [2.0, 0.5, 0.3, 0.4]}, metric="test/loss")
    found = scoring.outcome(only(only(scoring.collect([folder]).settings).logs), "test/loss", 0.5)
    assert (found.best, found.best_step, found.final) == (0.3, 20, 0.4)
    assert found.to_target["step"] == 10


def test_a_diverged_seed_counts_as_missed_and_has_no_final_value(tmp_path):
    curves = {0: [0.1, 0.8, 0.9], 1: [0.1, 0.7, None], 2: [0.1, 0.7, 0.8]}
    folder = write_run(tmp_path, curves=curves, diverged=(1,))
    score = only(scoring.score(scoring.collect([folder]), "test/accuracy", 0.75))
    assert (score.diverged, score.final.n, score.best.n) == (1, 2, 3)
    assert score.final.mean == pytest.approx(0.85)
    assert score.to_target["step"].values == (10, math.inf, 20)
    assert score.to_target["step"].median == 20
    assert score.to_target["step"].reached == 2


def test_runs_are_joined_by_seeds_and_by_nothing_else(tmp_path):
    write_run(tmp_path / "a", curves={0: [0.1, 0.5]})
    write_run(tmp_path / "b", curves={1: [0.1, 0.7]})
    write_run(tmp_path / "c", "adam,learning_rate=0.5", curves={0: [0.1, 0.9]})
    write_run(tmp_path / "d", curves={0: [0.1, 0.9]}, settings={"batch_size": 64})
    found = scoring.collect([tmp_path]).settings
    assert [(s.task, s.method, [log.seed for log in s.logs]) for s in found] == [
        ("digits_mlp (batch_size=32)", "adam (learning_rate=0.01)", [0, 1]),
        ("digits_mlp (batch_size=32)", "adam (learning_rate=0.5)", [0]),
        ("digits_mlp (batch_size=64)", "adam", [0]),
    ]
    one, _, unlike = scoring.score(scoring.collect([tmp_path]), "test/accuracy")
    assert one.final.mean == pytest.approx(0.6)
    with pytest.raises(ValueError, match="cannot be compared"):
        scoring.compare(one, unlike)


def test_what_is_cut_off_unfinished_damaged_or_there_twice_is_left_out_and_named(tmp_path):
    write_run(tmp_path / "a", curves={0: [0.1, 0.5], 1: [0.2, 0.6]})
    write_run(tmp_path / "again", curves={1: [0.2, 0.9]})
    cut = write_run(tmp_path / "cut", "rk4", curves={0: [0.1, 0.5], 1: [0.2, 0.6]})
    text = (cut / "metrics.jsonl").read_text()
    (cut / "metrics.jsonl").write_text(text[:-20])
    unfinished = write_run(tmp_path / "going", "heun", curves={0: [0.1, 0.5]}, status="running")
    record = json.loads((unfinished / "run.json").read_text())
    record["config"]["seeds"] = [0, 1]
    (unfinished / "run.json").write_text(json.dumps(record))
    packed = write_run(tmp_path / "packed", "sgd", curves={0: [0.1, 0.5]})
    whole = gzip.compress((packed / "metrics.jsonl").read_bytes())
    (packed / "metrics.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    (packed / "metrics.jsonl").unlink()
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "run.json").write_text('{"config": ')
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "run.json").write_text("{}")
    found = scoring.collect([tmp_path, tmp_path / "a"])
    seeds = {setting.optimizer: [log.seed for log in setting.logs] for setting in found.settings}
    assert seeds == {"adam": [0, 1], "rk4": [0], "heun": [0]}
    reasons = {omission.folder.name: omission.reason for omission in found.omissions}
    assert reasons["again"] == f"seed 1 is in {tmp_path / 'a'} already"
    assert reasons["cut"] == "seed 1: the log ends at step 0 of 10"
    assert reasons["going"] == "status 'running': no result of seeds [1]"
    assert reasons["packed"].startswith("seed 0: the log ")
    assert "is not a run record" in reasons["torn"]
    assert "is not a run record" in reasons["odd"]
    assert only(found.settings[:1]).logs[1].points("test/accuracy")["test/accuracy"][-1] == 0.6


def test_folders_without_runs_and_unknown_names_are_errors(tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        scoring.collect([tmp_path / "nothing"])
    with pytest.raises(UserError, match="holds no runs"):
        scoring.collect([tmp_path])
    write_run(tmp_path / "a", curves={0: [0.1, 0.5]})
    found = scoring.collect([tmp_path])
    with pytest.raises(UserError, match="'test/acuracy'; nearest: test/accuracy"):
        scoring.score(found, "test/acuracy")
    with pytest.raises(UserError, match="unknown task 'digit_mlp'; nearest: digits_mlp"):
        scoring.score(found, "test/accuracy", {"digit_mlp": 0.5})
    with pytest.raises(UserError, match="unknown reference 'adm'; nearest: adam"):
        tabulate(found, "test/accuracy", reference="adm")


TIMES = {
    "p": {"a": 10.0, "b": 20.0, "c": math.inf},
    "q": {"a": 30.0, "b": 10.0, "c": math.inf},
    "r": {"a": math.inf, "b": math.inf, "c": math.inf},
    "s": {"a": 8.0, "b": 8.0},
}


def test_performance_profiles_by_hand():
    found = scoring.profile(TIMES)
    assert found["a"].ratios == (1, 3, math.inf, 1)
    assert found["b"].ratios == (2, 1, math.inf, 1)
    assert (found["a"].tasks, found["c"].tasks) == (4, 3)
    np.testing.assert_array_equal(found["a"](np.array([1, 2.9, 3, 100])), [0.5, 0.5, 0.75, 0.75])
    assert found["c"](1e9) == 0
    # Of three units on the axis, two tasks are solved all the time, one from 3 to 4.
    assert found["a"].area(4.0) == pytest.approx((3 + 3 + 1) / 3 / 4)
    tau = np.linspace(1, 4, 30_001)
    assert found["b"].area(4.0) == pytest.approx(
        integrate.trapezoid(found["b"](tau), tau) / 3, abs=1e-4
    )
    corners, heights = found["a"].steps(4.0)
    np.testing.assert_array_equal(corners, [1, 3, 4])
    np.testing.assert_array_equal(heights, [0.5, 0.75, 0.75])


def test_speed_ups_are_geometric_means_over_what_both_were_run_on():
    found = scoring.speed_up(TIMES, "b")
    ratios = [20 / 10, 10 / 30, 8 / 8]
    assert found["a"].factor == pytest.approx(stats.gmean(ratios))
    assert (found["a"].tasks, found["a"].missed) == (3, 0)
    assert (found["c"].factor, found["c"].tasks, found["c"].missed) == (0, 2, 2)
    assert scoring.speed_up(TIMES, "c")["a"].factor == math.inf
    assert scoring.speed_up({"p": {"a": 1.0}}, "b")["a"].tasks == 0
    assert math.isnan(scoring.speed_up({"p": {"a": 1.0}}, "b")["a"].factor)


def write_rates(tmp_path, finals, **settings):
    for rate, final in finals.items():
        folder = tmp_path / f"{rate:g}"
        values = [0.1, final] if final is not None else [0.1, None]
        diverged = (5,) if final is None else ()
        variant = f"rk4,learning_rate={rate}"
        write_run(folder, variant, {5: values}, diverged, metric="validation/accuracy", **settings)


def test_robustness_by_hand(tmp_path):
    finals = {0.01: 0.895, 0.1: 0.85, 0.3: 0.893, 1.0: 0.9, 3.0: 0.8915, 10.0: 0.1, 30.0: None}
    write_rates(tmp_path, finals | {100.0: 0.899})
    scores = scoring.score(scoring.collect([tmp_path]), METRIC)
    found = only(scoring.robustness(scores))
    assert found.field == "optimizer.learning_rate"
    assert [rate.value for rate in found.rates] == [*finals, 100.0]
    assert found.best == 1.0
    # 1 % of 0.9 is 0.009; 0.01 is good too, but 0.1 lies between.
    assert found.good == (0.3, 3.0)
    assert found.decades == pytest.approx(1.0)
    assert not found.at_edge
    assert found.best_at == ""
    # 10 ends as it began; 100 is fine, but 30 diverges.
    assert found.largest_stable == 3.0
    assert [rate.stable for rate in found.rates] == [True] * 5 + [False, False, True]


def test_a_rate_beyond_the_best_is_stable_while_it_keeps_half_of_the_gain(tmp_path):
    write_rates(tmp_path, {0.01: 0.2, 0.1: 0.9, 1.0: 0.51, 10.0: 0.49})  # from 0.1 on
    found = only(scoring.robustness(scoring.score(scoring.collect([tmp_path]), METRIC)))
    assert [rate.stable for rate in found.rates] == [True, True, True, False]
    assert found.largest_stable == 1.0


def test_a_best_rate_at_the_edge_is_said(tmp_path):
    write_rates(tmp_path, {0.1: 0.5, 1.0: 0.7, 10.0: 0.9})
    found = tabulate(scoring.collect([tmp_path]), "validation/accuracy")
    assert found.warnings == [
        "digits_mlp, rk4: the best optimizer.learning_rate, 10, is the largest of the 3 tried: go "
        "on to 100"
    ]
    assert only(found.robustness)["at_edge"]


def write_comparison(tmp_path):
    write_run(tmp_path / "adam", curves={s: [0.1, 0.8, v] for s, v in ONE.items()}, grad_evals=1)
    write_run(tmp_path / "rk4", "rk4", {s: [0.1, 0.5, v] for s, v in OTHER.items()}, grad_evals=4)


def test_tables_compare_within_a_task_and_say_where_computation_differs(tmp_path):
    write_comparison(tmp_path)
    write_run(tmp_path / "other", "heun", {0: [0.1, 0.5]}, settings={"batch_size": 64})
    found = tabulate(scoring.collect([tmp_path]), "test/accuracy", 0.915, "rk4")
    final, best = found.differences
    assert best["quantity"] == "best"
    assert (final["method"], final["minus"], final["quantity"]) == ("adam", "rk4", "final")
    assert final["paired_n"] == 3
    assert final["welch_low"] == pytest.approx(
        statistics.welch(np.array(list(ONE.values())), np.array(list(OTHER.values()))).low
    )
    assert only(w for w in found.warnings).endswith("a seed: adam 20, rk4 80")
    rows = {row["method"]: row for row in found.runs}
    assert rows["adam"]["reached"] == 3
    assert rows["adam"]["step_to_target"] == 20
    assert math.isinf(rows["heun"]["step_to_target"])


def test_the_command_prints_and_writes_all_of_it(tmp_path, capsys):
    write_comparison(tmp_path / "runs")
    score.run(
        [
            *("score", str(tmp_path / "runs"), "--target=digits_mlp=0.95", "--reference=adam"),
            f"--output={tmp_path / 'out'}",
        ]
    )
    printed = capsys.readouterr().out
    assert "93.00 ± 1.08" in printed
    assert "missed" in printed
    with open(tmp_path / "out" / "runs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["final"]) == pytest.approx(0.93)
    assert rows[0]["step_to_target"] == "inf"
    assert rows[0]["runs"] == "runs/adam"  # from where the folder lies: nothing of the machine
    assert (tmp_path / "out" / "scores.txt").read_text() in printed
    content = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert content["runs"][1]["step_to_target"] == "inf"
    assert {row["axis"] for row in content["profiles"]} == {"step", "grad_evals", "wall_time"}


@pytest.mark.parametrize("target", ["high", "digits_mlp=high", "a=1,b"])
def test_a_target_that_is_no_number_is_an_error(tmp_path, target):
    with pytest.raises(UserError, match="a number, or task=number"):
        score.run(["score", str(tmp_path), f"--target={target}"])
