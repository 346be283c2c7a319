"""What a report tells, against numbers computed by hand; the page itself is tested in a browser."""

import errno
import json

import numpy as np
import pytest
import report_runs
from console import rkbench

from rkbench.errors import UserError
from rkbench.records import Run
from rkbench.report import content, curves, page
from rkbench.statistics import estimate


def row(told, name, seed=0):
    (found,) = [r for r in told["rows"] if (r["name"], r["seed"]) == (name, seed)]
    return found


@pytest.mark.parametrize("n", [5, 99, 1_000, 9_999, 10_001])
@pytest.mark.parametrize("points", [4, 50, 1_000])
def test_thinning_keeps_ends_and_extremes(n, points):
    values = np.random.default_rng(n).standard_normal(n)
    values[n // 3] = 9.0  # a spike of one point
    values[n // 2] = -9.0
    kept = curves.thinned(values, points)
    assert len(kept) <= max(points, 4)
    assert (np.diff(kept) > 0).all()
    assert {0, n - 1, n // 3, n // 2} <= set(kept.tolist())
    if n <= points:
        assert len(kept) == n


def test_thinning_keeps_the_extremes_of_every_stretch():
    values = np.random.default_rng(0).standard_normal(10_000)
    kept = curves.thinned(values, 1_002)  # 500 buckets of 20
    for bucket in values.reshape(500, 20):
        assert {bucket.min(), bucket.max()} <= set(values[kept])


def test_numbers_are_short_and_finite():
    assert curves.plain({"a": [0.123456789, 3.0, float("inf")], "b": (float("nan"), 7)}) == {
        "a": [0.123457, 3, None],
        "b": [None, 7],
    }
    assert curves.points_each(1_000, 10) == 1_000
    assert curves.points_each(1_000, 1_400) * 1_400 <= curves.TOTAL_POINTS


def test_a_mean_is_over_the_seeds_of_one_setting_and_no_other(tmp_path):
    report_runs.write_run(tmp_path / "a", seeds=(0, 1, 2))
    report_runs.write_run(tmp_path / "b", seeds=(3,))  # the same setting in another folder
    report_runs.write_run(tmp_path / "other_data", seeds=(4,), workload="fashion_mlp")
    report_runs.write_run(tmp_path / "other_batch", seeds=(5,), more={"batch_size": 64})
    told = content.content([tmp_path], 1_000)
    setting = told["settings"][row(told, f"{tmp_path.name}/a")["setting"]]
    assert [told["rows"][place]["seed"] for place in setting["rows"]] == [0, 1, 2, 3]
    logs = [*Run(tmp_path / "a").log, *Run(tmp_path / "b").log]
    values = np.array(
        [
            [x["test/accuracy"] for x in logs if x["seed"] == s and "test/accuracy" in x]
            for s in range(4)
        ]
    )
    mean = setting["means"]["test/accuracy"]
    np.testing.assert_allclose(mean["y"], values.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(mean["error"], values.std(axis=0, ddof=1) / 2, rtol=1e-5)
    assert mean["n"] == 4
    np.testing.assert_allclose(mean["grad_evals"], np.arange(11) * 40)
    final = estimate(values[:, -1])
    assert setting["scores"]["test/accuracy"]["final"]["mean"] == pytest.approx(final.mean, 1e-5)
    assert setting["scores"]["test/accuracy"]["final"]["interval"] == pytest.approx(
        list(final.interval), 1e-5
    )
    tasks = {r["task"] for r in told["rows"]}
    assert tasks == {"mnist_mlp (batch_size=32)", "mnist_mlp (batch_size=64)", "fashion_mlp"}


def test_what_is_damaged_or_there_twice_is_marked_and_not_averaged(tmp_path):
    folder = tmp_path / "runs"
    for name in ("whole", "again", "cut"):
        report_runs.write_run(folder / name, seeds=(0,) if name != "cut" else (1,))
    report_runs.damage(folder / "cut")
    report_runs.write_run(folder / "running", seeds=(2,))
    report_runs.rewrite(folder / "running", status="running", seeds=[])
    report_runs.write_run(folder / "broken", seeds=(3,))
    (folder / "broken" / "run.json").write_text("{")
    told = content.content([folder], 1_000)
    by_name = {r["name"]: r for r in told["rows"]}
    assert sorted(by_name) == ["runs/again", "runs/cut", "runs/running", "runs/whole"]
    averaged = [r["name"] for r in told["rows"] if r["averaged"]]
    assert averaged == ["runs/again"]  # the first by path
    assert by_name["runs/whole"]["notes"] == ["seed 0 is in runs/again already"]
    assert by_name["runs/whole"]["setting"] == by_name["runs/again"]["setting"]
    assert by_name["runs/cut"]["notes"] == ["seed 1: the log ends at step 50 of 100"]
    assert by_name["runs/cut"]["curves"]["metrics"]["test/accuracy"]["y"]
    finals = {name: r["results"]["test/accuracy"]["final"] for name, r in by_name.items()}
    assert finals["runs/whole"] == finals["runs/again"] > 0.8
    assert finals["runs/cut"] is finals["runs/running"] is None
    assert by_name["runs/running"]["status"] == "running"
    assert [len(setting["rows"]) for setting in told["settings"]] == [1]
    assert len(told["omissions"]) == 4
    assert str(tmp_path) not in page.embedded(told).replace("--workdir=DIR", "")


def test_a_sweep_has_sensitivities_with_what_diverged_and_profiles_of_what_was_chosen(tmp_path):
    report_runs.write_sweep(tmp_path / "sweep")
    told = content.content([tmp_path / "sweep"], 1_000)
    assert told["first_metric"] == "test/accuracy"
    chosen = {told["rows"][place]["name"] for place in told["contenders"]}
    assert chosen == {"sweep/adam/chosen", "sweep/rk4/chosen"}
    one = next(s for s in told["sensitivities"] if s["metric"] == "validation/accuracy")
    assert (one["method"], one["best"], one["largest_stable"]) == ("adam", 0.1, 1)
    assert [rate["value"] for rate in one["rates"]] == [0.001, 0.01, 0.1, 1, 10]
    assert one["rates"][-1]["diverged"] == 1
    assert one["rates"][-1]["final"]["mean"] is None
    (place,) = one["rates"][0]["rows"]
    trial = told["rows"][place]
    assert (trial["name"], trial["seed"]) == ("sweep/adam/trial-000", 100)
    assert one["rates"][0]["final"]["mean"] == trial["results"]["validation/accuracy"]["final"]
    areas = {p["optimizer"]: p["area"] for p in told["profiles"]["axes"]["grad_evals"]}
    assert areas == {"adam": 1, "rk4": 0}  # four times the gradients: outside of the profile
    assert any("not at equal computation" in line for line in told["warnings"])
    goal = content.content([tmp_path / "sweep"], 1_000, 0.5)["profiles"]
    assert goal["targets"] == {"mnist_mlp": 0.5}


def test_costs_and_sources_are_those_of_the_runs(tmp_path):
    report_runs.write_sweep(tmp_path / "sweep")
    told = content.content([tmp_path / "sweep"], 1_000)
    (source,) = told["sources"]
    assert (source["commit"], source["seeds"], source["runs"]) == ("0123456789abcdef", 16, 12)
    assert all("--workdir=DIR" in command for command in source["commands"])
    rk4 = next(one for one in told["optimizers"] if one["optimizer"] == "rk4")
    # Seven seeds to step 100, one to step 40, of four gradients a step.
    assert (rk4["seeds"], rk4["grad_evals"]) == (8, 4 * (7 * 100 + 40))
    assert rk4["statuses"] == {"done": 7, "diverged": 1}


def test_nothing_in_the_content_ends_its_script(tmp_path):
    name = "</script><script>alert(1)</script><!--"
    report_runs.write_run(tmp_path / name.replace("/", "\u2215"), more={"note": name})
    told = content.content([tmp_path], 1_000)
    text = page.embedded(told)
    assert "<" not in text
    assert json.loads(text) == told
    assert name in json.dumps(told)
    assert page.html(told, "<i>title</i>").count("&lt;i&gt;title&lt;/i&gt;") == 2


def test_the_command_writes_one_file_and_says_what_it_leaves_out(monkeypatch, tmp_path, capsys):
    report_runs.write_run(tmp_path / "runs" / "a")
    report_runs.write_run(tmp_path / "runs" / "b")
    output = tmp_path / "new" / "report.html"
    assert rkbench(monkeypatch, "report", tmp_path / "runs", "-o", output) == 0
    told = capsys.readouterr()
    assert "left out: runs/b: seed 0 is in runs/a already" in told.err
    assert str(output) in told.out
    assert output.read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("{}/nowhere",), "nowhere is not a folder"),
        (("{}/empty",), "empty holds no runs"),
        (("{}", "--max_points=3"), "max_points=3 must be at least 4"),
        (("{}", "--target=high"), "--target=high: a number"),
        (("{}", "--target=mnist=0.5"), "unknown task 'mnist'; nearest: mnist_mlp"),
    ],
)
def test_bad_arguments_are_one_line_and_nothing_is_written(
    monkeypatch, tmp_path, capsys, arguments, message
):
    report_runs.write_run(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    output = tmp_path / "report.html"
    given = [argument.format(tmp_path) for argument in arguments]
    assert rkbench(monkeypatch, "report", *given, "--output", output) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not output.exists()


def test_runs_that_logged_nothing_yet_are_nothing_to_show(tmp_path):
    report_runs.write_run(tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match=r"nothing to show: no run of .* has logged a metric"):
        content.content([tmp_path], 1_000)


def test_runs_that_are_all_cut_off_are_shown_and_compared_with_nothing(tmp_path):
    report_runs.write_run(tmp_path / "run")
    report_runs.damage(tmp_path / "run")
    told = content.content([tmp_path], 1_000)
    assert len(told["rows"]) == 1
    assert (told["settings"], told["sensitivities"], told["profiles"]) == ([], [], None)
    assert told["first_metric"] is None


def test_a_page_that_cannot_be_written_is_a_user_error(tmp_path):
    from rkbench.report import write

    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write("", tmp_path / "file" / "report.html")


def test_a_page_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    from rkbench.report import write

    file = tmp_path / "report.html"
    write("old", file)

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):  # exit code 74
        write("new", file)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert file.read_text() == "old"


@pytest.mark.parametrize(
    ("field", "junk"),
    [("commit", 7), ("host", "x"), ("versions", [1]), ("parts", [3]), ("parts", [{"host": 1}])],
)
def test_a_record_that_does_not_tell_where_it_is_from_is_left_out(tmp_path, field, junk):
    report_runs.write_run(tmp_path / "sound")
    report_runs.write_run(tmp_path / "odd")
    report_runs.rewrite(tmp_path / "odd", **{field: junk})
    told = content.content([tmp_path], 1_000)
    assert [row["name"] for row in told["rows"]] == [f"{tmp_path.name}/sound"]
    (left_out,) = told["omissions"]
    assert "is not a run record" in left_out


@pytest.mark.parametrize(
    ("field", "junk"),
    [("seeds", 7), ("optimizer", {"name": []}), ("workload", {}), ("optimizer", 1)],
)
def test_a_record_with_a_config_that_is_none_is_left_out(tmp_path, field, junk):
    report_runs.write_run(tmp_path / "sound")
    record = report_runs.write_run(tmp_path / "none")
    report_runs.rewrite(tmp_path / "none", config=record["config"] | {field: junk})
    told = content.content([tmp_path], 1_000)
    assert [row["name"] for row in told["rows"]] == [f"{tmp_path.name}/sound"]
    (left_out,) = told["omissions"]
    assert "is not a run record (Expected" in left_out
    assert f"$.config.{field}" in left_out
