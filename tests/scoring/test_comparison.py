"""What stands for an optimizer, what it has to reach, and the pictures of it."""

import csv
import shutil

import numpy as np
import pytest
import report_runs
from console import rkbench

from rkbench import verify
from rkbench.comparison import contenders, curves, sensitivity
from rkbench.records import Run
from rkbench.records.names import file_name, namer
from rkbench.scoring import collect, score
from rkbench.scoring.tables import ranges


def rows(file):
    with open(file, newline="") as opened:
        return list(csv.DictReader(opened))


def test_a_contender_has_the_most_seeds_and_of_these_the_best_final_value(tmp_path):
    report_runs.write_run(tmp_path / "lucky", learning_rate=0.1, seeds=(9,))
    report_runs.write_run(tmp_path / "good", learning_rate=0.2, seeds=(0, 1))
    report_runs.write_run(tmp_path / "worse", learning_rate=0.01, seeds=(0, 1))
    report_runs.write_run(tmp_path / "adam", "adam", seeds=(0,))
    report_runs.write_run(tmp_path / "diverged", "adam", 9.0, seeds=(0,), diverges=True)
    report_runs.write_run(tmp_path / "elsewhere", workload="fashion_mlp", seeds=(0,))
    for metric in ("test/accuracy", "test/loss"):
        found = contenders.contenders(score(collect([tmp_path]), metric))
        folders = {
            (one.setting.task, one.setting.method): one.setting.logs[0].folder.name for one in found
        }
        assert folders == {
            ("mnist_mlp", "rk4"): "good",
            ("mnist_mlp", "adam"): "adam",
            ("fashion_mlp", "rk4"): "elsewhere",
        }


def test_targets_lie_one_percent_from_the_best_and_lone_optimizers_take_no_part(tmp_path):
    report_runs.write_run(tmp_path / "rk4", seeds=(0, 1))
    report_runs.write_run(tmp_path / "adam", "adam", seeds=(0, 1))
    report_runs.write_run(tmp_path / "elsewhere", workload="fashion_mlp")
    collection = collect([tmp_path])
    for metric, factor in (("test/accuracy", 0.99), ("test/loss", 1.01)):
        scores = contenders.contenders(score(collection, metric))
        best = scores[1].final.mean  # adam and rk4 are equal in all but their gradients
        assert contenders.targets(scores)["mnist_mlp"] == pytest.approx(factor * best)
    found = contenders.profiles(score(collection, "test/accuracy"), 0.8)
    assert found.targets == {"mnist_mlp": 0.8}
    assert {name: list(p.ratios) for name, p in found.by_axis["grad_evals"].items()} == {
        "adam": [1.0],
        "rk4": [4.0],
    }
    assert found.by_axis["step"]["rk4"].ratios == (1.0,)


def test_a_setting_s_curve_joins_the_seeds_of_several_folders(tmp_path):
    report_runs.write_run(tmp_path / "a", seeds=(0, 1))
    report_runs.write_run(tmp_path / "b", seeds=(2,), points=11)
    (setting,) = collect([tmp_path]).settings
    joined = curves.SettingCurves(setting).curve("test/loss", "wall_time")
    parts = [Run(tmp_path / name).curve("test/loss") for name in ("a", "b")]
    np.testing.assert_array_equal(joined.values, np.concatenate([part.values for part in parts]))
    np.testing.assert_allclose(joined.x, 0.1 * np.arange(11) * 1.01)


def test_every_picture_is_drawn_with_the_numbers_in_it(monkeypatch, tmp_path, capsys):
    sweep, output = tmp_path / "sweep", tmp_path / "pictures"
    report_runs.write_sweep(sweep)
    report_runs.write_run(sweep / "again", "rk4", 0.1, (0,))
    assert rkbench(monkeypatch, "compare", sweep, f"--output={output}") == 0
    told = capsys.readouterr()
    assert "left out:" in told.err
    kinds = (
        "curves-mnist_mlp",
        "sensitivity-mnist_mlp",
        "stability-mnist_mlp",
        "performance-profiles",
    )
    drawn = {output / f"{kind}.{suffix}" for kind in kinds for suffix in ("png", "pdf", "csv")}
    assert set(output.iterdir()) == drawn
    assert set(told.out.split()) == {str(file) for file in drawn}
    assert all(f.read_bytes().startswith(b"\x89PNG") for f in drawn if f.suffix == ".png")
    table = rows(output / "sensitivity-mnist_mlp.csv")
    assert [row["method"] for row in table] == ["adam"] * 5 + ["rk4"] * 5
    assert [float(row["rate"]) for row in table[:5]] == [0.001, 0.01, 0.1, 1, 10]
    assert [row["diverged"] for row in table[:5]] == ["0", "0", "0", "0", "1"]
    assert table[4]["final mean"] == ""
    log = Run(sweep / "adam" / "trial-001").log
    accuracies = [x["validation/accuracy"] for x in log if "validation/accuracy" in x]
    assert float(table[1]["final mean"]) == pytest.approx(accuracies[-1], 1e-5)
    assert float(table[1]["best mean"]) == pytest.approx(max(accuracies), 1e-5)
    assert table[1]["runs"] == "sweep/adam/trial-001"
    assert rows(output / "stability-mnist_mlp.csv") == table
    areas = {(r["axis"], r["method"]): r["area"] for r in rows(output / "performance-profiles.csv")}
    assert areas["grad_evals", "rk4"] == "0"
    assert areas["step", "rk4"] == areas["step", "adam"] == "1"
    means = [float(r["mean"]) for r in rows(output / "curves-mnist_mlp.csv") if r["curve"] == "rk4"]
    expected = Run(sweep / "rk4" / "chosen").curve("test/accuracy").values.mean(axis=0)
    np.testing.assert_allclose(means, np.tile(expected, 3))


def test_what_is_published_is_verified_from_the_records(monkeypatch, tmp_path):
    results = tmp_path / "results"
    folder = results / "comparison"
    report_runs.write_sweep(folder / "records" / "sweep")
    report_runs.write_run(folder / "records" / "again", "rk4", 0.1, (0,))
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda *_, **__: None)
    for command in (("score", "--reference=adam"), ("compare",)):
        arguments = (*command, folder / "records", "--target=0.8", f"--output={folder}")
        assert rkbench(monkeypatch, *arguments) == 0

    def differences(results):
        mark = f"{results / 'comparison'}/"
        found = [line.removeprefix(mark) for line in verify.verify(results) if mark in line]
        return [line for line in found if not line.startswith("records/")]

    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(results, elsewhere)
    assert differences(results) == differences(elsewhere) == []
    for name in (
        "runs.csv",
        "scores.txt",
        "curves-mnist_mlp.csv",
        "profiles.csv",
        "performance-profiles.csv",
    ):
        kept = (folder / name).read_text()
        *_, digit = (i for i, letter in enumerate(kept) if letter.isdigit())
        (folder / name).write_text(
            f"{kept[:digit]}{(int(kept[digit]) + 1) % 10}{kept[digit + 1 :]}"
        )
        (found,) = differences(results)
        line = kept.count("\n", 0, digit) + 1
        assert found.startswith(f"{name}:{line}: ")
        (folder / name).write_text(kept)


def test_what_diverged_and_what_is_good_is_shaded(tmp_path):
    from matplotlib.figure import Figure

    report_runs.write_sweep(tmp_path)
    family = ranges(collect([tmp_path]), "test/accuracy")[0]
    axes = Figure().subplots()
    sensitivity._draw_family(family, axes)
    spans = {p.get_label(): (p.get_x(), p.get_x() + p.get_width()) for p in axes.patches}
    half = 10**0.5
    assert spans["diverged"] == pytest.approx((half, 10 * half))
    assert spans["within 1 % of the best"] == pytest.approx((0.1 / half, 0.1 * half))
    assert [text.get_text() for text in axes.texts] == ["1/1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("{}/nowhere",), "nowhere is not a folder"),
        (("{}/empty",), "empty holds no runs"),
        (("{}", "--metric=test/acuracy"), "unknown metric 'test/acuracy'; nearest: test/accuracy"),
        (("{}", "--target=mnist=0.5"), "unknown task 'mnist'; nearest: mnist_mlp"),
    ],
)
def test_bad_arguments_are_one_line_and_nothing_is_written(
    monkeypatch, tmp_path, capsys, arguments, message
):
    report_runs.write_run(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    given = [argument.format(tmp_path) for argument in arguments]
    assert rkbench(monkeypatch, "compare", *given, f"--output={tmp_path}/pictures") == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "pictures").exists()


def test_names_tell_nothing_of_the_machine(tmp_path):
    for folder in ("x/runs/a", "y/runs"):
        (tmp_path / folder).mkdir(parents=True)
    one = namer([tmp_path / "x" / "runs"])
    assert one(tmp_path / "x" / "runs" / "a") == "runs/a"
    both = namer([tmp_path / "x" / "runs", tmp_path / "y" / "runs"])
    assert both(tmp_path / "x" / "runs" / "a") == "x/runs/a"
    assert file_name("curves", "mnist_mlp (batch_size=32)") == "curves-mnist_mlp-batch_size-32"
