"""The reproduction: runs as data, training what is missing, drawing, verifying from the logs."""

import csv
import gzip
import json
import pathlib
import shlex
import shutil

import numpy as np
import pytest
from console import rkbench

from rkbench import files, verify
from rkbench.drawing.artefact import Artefact, Canvas
from rkbench.errors import UserError
from rkbench.paper import plan, table1, timing
from rkbench.paper.figures import FIGURES
from rkbench.paper.runs import TABLE_1, TIMING, shrunken
from rkbench.paper.scales import SCALES
from rkbench.paper.train import train
from rkbench.records import Run
from rkbench.trainer import evaluate
from rkbench.trainer import group as group_module
from rkbench.workloads import datasets

pytestmark = pytest.mark.standard_promotion

TABLE = [run for row in TABLE_1 for run in row.runs]
RUNS = list(dict.fromkeys([*TABLE, *(run for spec in FIGURES.values() for run in spec.runs)]))


@pytest.fixture
def small_data(monkeypatch):
    """Every dataset is noise with 250 examples."""
    monkeypatch.setattr(datasets, "load", lambda name, _: datasets.synthetic(name, 250))


def test_the_paper_has_seven_rows_and_eighteen_figures():
    assert len(TABLE_1) == 7
    assert list(FIGURES) == list(range(1, 19))
    assert len({run.name for run in RUNS}) == len(RUNS)
    for group in TIMING.values():
        assert len({run.config for run in group}) == 1


@pytest.mark.parametrize("scale", SCALES)
def test_every_run_has_a_config_at_every_scale(scale):
    for run in RUNS:
        size = SCALES[scale][run.kind]
        config = run.get_config(size.settings, size.seeds)
        assert config.seeds == size.seeds
        if scale == "paper":
            preset = run.get_config({}, size.seeds)
            for field in ("total_steps", "batch_size", "optimizer", "model", "train_examples"):
                assert config[field] == preset[field], run.name
        else:
            assert size.says or not size.runs


def test_a_figure_trains_what_is_missing_and_draws_and_is_verified(
    monkeypatch, tmp_path, small_data, capsys
):
    results, runs = tmp_path / "results", tmp_path / "runs"
    where = ("--scale=smoke", f"--results={results}", f"--runs={runs}")
    assert rkbench(monkeypatch, "figure", 4, *where) == 0
    folder = results / "figures"
    for name in ("fig04", "fig04-grad_evals"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (folder / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    text = (folder / "fig04.csv").read_text()
    assert text.count("test accuracy,RK4,") == 3  # steps 0, 2, 4
    # Again: nothing is trained.
    monkeypatch.setattr("rkbench.paper.train.train_experiment", None)
    assert rkbench(monkeypatch, "figure", 4, *where) == 0
    capsys.readouterr()
    assert rkbench(monkeypatch, "verify", results) == 0
    assert "2 records, 2 tables and figures" in capsys.readouterr().out


def test_what_is_drawn_by_choice_has_a_name_of_its_own_and_is_not_in_the_manifest(
    monkeypatch, tmp_path, small_data
):
    where = ("--scale=smoke", f"--results={tmp_path}", f"--runs={tmp_path}/runs")
    assert rkbench(monkeypatch, "figure", 4, *where) == 0
    before = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert rkbench(monkeypatch, "figure", 4, 5, "--only=mnist_mlp-rk4", "--draw-only", *where) == 0
    assert rkbench(monkeypatch, "figure", 4, "--axis=wall_time", "--draw-only", *where) == 0
    after = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert {name: after[name] for name in before} == before
    drawn = {name for name in after.keys() - before.keys() if name.endswith(".csv")}
    only = "fig04-mnist_mlp-rk4"
    assert drawn == {f"{only}.csv", "fig04-grad_evals-mnist_mlp-rk4.csv", "fig04-wall_time.csv"}
    text = after[f"{only}.csv"].decode()
    assert ",RK4," in text
    assert ",Adam," not in text
    assert list(verify.verify(tmp_path)) == []


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("figures/fig02", {"scale": "cpu", "number": 4, "axis": "step"}),
        ("figures/fig19", {"scale": "cpu", "number": 19, "axis": "step"}),
        ("figures/fig02", {"scale": "cpu", "number": 2, "axis": "steps"}),
        ("figures/fig02", {"scale": "cpuu", "number": 2, "axis": "step"}),
        ("table1", {"scale": "cpu", "rows": [8]}),
        ("table1", {"scale": "cpu"}),
        ("table2", {"scale": "cpu"}),
    ],
)
def test_what_the_manifest_says_under_another_name_is_not_taken_for_the_figure(tmp_path, name, how):
    (tmp_path / "manifest.json").write_text(json.dumps({name: how}))
    with pytest.raises(UserError, match=f"{name}' is not a table or figure"):
        list(verify.verify(tmp_path))


def test_a_figure_whose_records_are_gone_is_named(tmp_path):
    how = {"scale": "cpu", "number": 2, "axis": "step"}
    (tmp_path / "manifest.json").write_text(json.dumps({"figures/fig02": how}))
    assert list(verify.verify(tmp_path)) == [
        f"{tmp_path}: figure 2: there is no record of its runs"
    ]


def test_the_dots_of_a_name_stay_in_every_file(tmp_path):
    artefacts = [Artefact(f"eps-{eps}", {f"eps-{eps}.csv": "x"}, Canvas) for eps in (0.1, 0.2)]
    files = [path for one in artefacts for path in one.draw(tmp_path)]
    assert len(set(files)) == 6
    assert all(path.is_file() for path in files)


def test_verify_finds_a_changed_point_a_changed_log_and_a_changed_record(
    monkeypatch, tmp_path, small_data
):
    results = tmp_path / "results"
    where = ("--scale=smoke", f"--results={results}", f"--runs={tmp_path}/runs")
    only = "--only=mnist_mlp-adam"
    assert rkbench(monkeypatch, "table1", "--rows=1", only, *where) == 0
    assert rkbench(monkeypatch, "figure", 2, "--draw-only", *where) == 0
    assert list(verify.verify(results)) == []

    def with_change(path, change):
        original = path.read_bytes()
        changed = change(original)
        assert changed != original
        path.write_bytes(changed)
        found = list(verify.verify(results))
        path.write_bytes(original)
        assert list(verify.verify(results)) == []
        return found

    record = results / "records" / "smoke" / "mnist_mlp-adam"
    assert with_change(results / "figures/fig02.csv", lambda b: b.replace(b",2,0.", b",2,1.", 1))
    assert with_change(results / "table1.md", lambda b: b.replace(b"Adam | done", b"Adam | good"))
    assert with_change(results / "table1.csv", lambda b: b[:-10])
    lines = gzip.decompress((record / "metrics.jsonl.gz").read_bytes()).splitlines()
    last = json.loads(lines[-1])  # the evaluation at the end of seed 1
    edited = last | {"test/accuracy": 0.9995}
    found = with_change(
        record / "metrics.jsonl.gz",
        lambda _: gzip.compress(b"\n".join([*lines[:-1], json.dumps(edited).encode(), b""])),
    )
    assert any("seed 1: final_test_accuracy" in line and "0.9995" in line for line in found)
    assert any("fig02.csv" in line for line in found)

    def better(content):
        told = json.loads(content)
        told["seeds"][0]["best_test_accuracy"] = 0.9995
        return json.dumps(told).encode()

    found = with_change(record / "run.json", better)
    assert any("seed 0: best_test_accuracy is 0.9995" in line for line in found)


def test_a_run_that_fails_stops_no_other_and_stands_in_the_table(monkeypatch, tmp_path, capsys):
    def load(name, _):
        if name == "mnist":
            raise OSError("the disk is gone")
        return datasets.synthetic(name, 250)

    monkeypatch.setattr(datasets, "load", load)
    where = ("--scale=smoke", f"--results={tmp_path}/results", f"--runs={tmp_path}/runs")
    code = rkbench(monkeypatch, "table1", "--rows=1,3", "--only=adam", *where)
    assert code == 2
    assert "mnist_mlp-adam: OSError: the disk is gone" in capsys.readouterr().err
    text = (tmp_path / "results" / "table1.md").read_text()
    assert "| MNIST | DNN | Adam | failed: OSError: the disk is gone | 0 |" in text
    assert "| Fashion-MNIST | DNN | Adam | done | 2 |" in text
    assert "| Fashion-MNIST | DNN | RK4 | not run yet | 0 |" in text


def test_rows_beyond_a_scale_link_a_few_steps_of_a_shrunken_model(tmp_path, small_data):
    small, cpu = (plan.Places(tmp_path, tmp_path / "runs", scale) for scale in ("smoke", "cpu"))
    (run, _) = TABLE_1[4].runs
    wanted = table1.Table1((5,)).runs("cpu")
    assert [one.name for one in wanted] == ["cifar10_wrn-momentum-smoke", "cifar10_wrn-rk4-smoke"]
    (without, _) = table1.lines(cpu, [5])
    assert (without.source, without.status) == ("", "not run: beyond the scale 'cpu'")
    # Any record will do here.
    assert train(plan.jobs(TABLE_1[0].runs[:1], small, (0,)), small) == {}
    record = cpu.record(shrunken(run))
    shutil.copytree(small.record(TABLE_1[0].runs[0]), record)
    (line, _) = table1.lines(cpu, [5])
    assert line.status == "not run: beyond the scale 'cpu'; its smoke run is linked"
    assert (line.n, line.source) == (0, "records/cpu/cifar10_wrn-momentum-smoke")
    assert f"[`cifar10_wrn-momentum-smoke`]({line.source})" in table1.markdown([line], "cpu")


def test_the_input_scalings_are_compared_in_a_table_that_is_verified(
    monkeypatch, tmp_path, small_data, capsys
):
    where = ("--scale=smoke", f"--results={tmp_path}", f"--runs={tmp_path}/runs")
    only = "--only=mnist_mlp-rk4-input_scaling_unit"
    assert rkbench(monkeypatch, "study", only, *where) == 0
    assert "programs compiled: 1 for 1 runs" in capsys.readouterr().err  # of two seeds
    header, row = (tmp_path / "input_scaling.csv").read_text().splitlines()
    cells = dict(zip(header.split(","), next(iter(csv.reader([row]))), strict=True))
    record = Run(tmp_path / "records/smoke/mnist_mlp-rk4-input_scaling_unit")
    best = 100 * record.outcomes("best_test_accuracy")
    assert (cells["inputs"], cells["optimizer"], cells["seeds"]) == ("[0, 1]", "RK4", "2")
    assert float(cells["best"]) == pytest.approx(best.mean(), rel=1e-5)
    assert float(cells["difference"]) == pytest.approx(best.mean() - 96.88, abs=1e-3)
    assert list(verify.verify(tmp_path)) == []
    text = (tmp_path / "input_scaling.md").read_text()
    (tmp_path / "input_scaling.md").write_text(text.replace("| 96.88", "| 96.98"))
    assert len(list(verify.verify(tmp_path))) == 1


def test_more_seeds_are_added_to_a_record(tmp_path, small_data):
    places = plan.Places(tmp_path / "results", tmp_path / "runs", "smoke")
    (run, _) = TABLE_1[0].runs
    for seeds in ((3,), (3, 4)):
        (job,) = plan.jobs([run], places, seeds)
        assert job.missing == (seeds[-1],)
        assert train([job], places) == {}
    assert [e["seed"] for e in Run(places.record(run)).record["seeds"]] == [3, 4]


def test_timed_runs_take_turns_and_leave_records(monkeypatch, tmp_path, small_data):
    group = TIMING["mnist small"]
    settings = SCALES["smoke"]["timing_small"].settings
    configs = {tmp_path / run.name: run.get_config(settings, (0, 1)) for run in group}
    order = []
    advance_to = group_module.Group._advance_to

    def noted(self, event):
        order.append((self._config.optimizer.name, event))
        advance_to(self, event)

    monkeypatch.setattr(group_module.Group, "_advance_to", noted)
    monkeypatch.setattr(group_module.Checkpoints, "save", None)  # fails where it is called
    monkeypatch.setattr(evaluate.Evaluator, "__call__", None)
    timing.interleave(configs)
    # Two seeds of four turns.
    assert order == [(name, step) for step in (1, 2, 3, 4) for name in ("adam", "rk4")] * 2
    for folder, evals in zip(configs, (1, 4), strict=True):
        run = Run(folder)
        assert run.record["status"] == "done"
        curve = run.curve("wall_time")
        np.testing.assert_array_equal(curve.x, range(5))
        assert (np.diff(curve.values, axis=1) > 0).all()
        assert [line["grad_evals"] for line in run.log][:5] == [evals * n for n in range(5)]
        assert {*run.log[1]} == {"step", "seed", "wall_time", "grad_evals"}
        assert run.faults == {}
        assert run.record["compilations"] == 1
    timing.interleave(configs)
    assert len(order) == 16  # what is finished stands
    path = next(iter(configs)) / "run.json"
    files.write_json(path, json.loads(path.read_text()) | {"status": "failed"})
    timing.interleave(configs)
    assert len(order) == 32  # all is measured anew, and once
    assert [len(Run(folder).log) for folder in configs] == [10, 10]


def test_differences_are_judged_by_the_combined_error():
    line = table1.Line(
        1,
        "MNIST",
        "DNN",
        "Adam",
        "done",
        5,
        table1.Estimate(96.5, 0.03, 5),
        table1.Estimate(96.0, 0.1, 5),
        (96.6, 0.04),
        10_000.0,
        60.0,
        "records/cpu/x",
    )
    assert line.difference == pytest.approx(-0.1)
    assert line.within == "yes"  # 2 sqrt(0.03^2 + 0.04^2) = 0.1
    assert line._replace(best=table1.Estimate(96.49, 0.03, 5)).within == "no"
    assert line._replace(best=table1.Estimate(96.49, float("nan"), 1)).within == "-"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("figure", "19"), "unknown figure '19': they are numbered 1 to 18"),
        (("table1", "--rows=0"), "unknown row '0'"),
        (("table1", "--scale=cpuu"), "unknown scale 'cpuu'; nearest: cpu"),
        (("table1", "--only=adm"), "unknown run 'adm'; nearest:"),
        (("table1", "--seeds=a"), "--seeds=a: whole numbers"),
        (("verify", "/nowhere"), "/nowhere is not a folder"),
        (("figure", "6", "--manifest=/nowhere/x"), "--manifest: /nowhere/x is not a file in an"),
        (("figure", "6", "--manifest="), "--manifest: a path is empty"),
        (("table1", "--draw-only", "--results=none"), "nothing to draw: none/records/cpu has none"),
        (("figure", "7", "--draw-only", "--results=none"), "none of the 8 runs"),
        (("study", "--draw-only", "--results=none"), "nothing to draw"),
    ],
)
def test_bad_arguments_are_one_line(monkeypatch, capsys, arguments, message):
    assert rkbench(monkeypatch, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_dry_run_shows_runs_commands_and_cost(monkeypatch, tmp_path, capsys):
    arguments = ("table1", "--rows=1", "--dry-run", f"--results={tmp_path}", "--scale=paper")
    assert rkbench(monkeypatch, *arguments) == 0
    text = capsys.readouterr().out
    row = next(line for line in text.splitlines() if line.startswith("mnist_mlp-rk4"))
    name, seeds, evals, hours, gigabytes = row.split()
    assert (name, seeds, evals) == ("mnist_mlp-rk4", "5/5", "200,000")
    assert 0.001 < float(hours) < 50
    assert 0 < float(gigabytes) < 5
    assert "rkbench train --config=configs/mnist_mlp.py:rk4 --workdir=" in text
    assert not (tmp_path / "table1.md").exists()


def test_a_manifest_lists_the_missing_runs_and_times_nothing(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("rkbench.paper.estimate._calibrated", None)  # fails where it is called
    file = tmp_path / "paper.json"
    arguments = ("paper", "--only=imagenet_vit,mnist_mlp-rk4-timing", "--scale=paper")
    where = (f"--results={tmp_path}", f"--manifest={file}", "--no-hours", "--dry-run")
    assert rkbench(monkeypatch, *arguments, *where) == 0
    output = capsys.readouterr()
    assert "1 runs left out" in output.err
    content = json.loads(file.read_text())
    assert (content["scale"], content["hours_on"]) == ("paper", None)
    baseline, rk4 = content["runs"]
    assert (rk4["name"], rk4["hours"], rk4["seeds"]) == ("imagenet_vit-rk4", None, [0, 1, 2, 3, 4])
    # Four gradients a step against one, of the full-size model.
    assert rk4["grad_evals"] == 4 * baseline["grad_evals"] == 4 * 5 * 186_666
    # The printed command is the same, quoted for a shell.
    lines = output.out.splitlines()
    commands = [shlex.split(line) for line in lines if line.startswith("rkbench train ")]
    config, *overrides = rk4["arguments"]
    workdir = "--workdir=runs/paper/paper/imagenet_vit-rk4"
    assert ["rkbench", "train", config, workdir, *overrides] in commands
    assert overrides[-1] == "--config.seeds=(0, 1, 2, 3, 4)"


def test_a_manifest_with_hours_names_the_machine(monkeypatch, tmp_path):
    from rkbench.paper.estimate import _Speed

    monkeypatch.setattr("rkbench.paper.estimate._calibrated", lambda *_: _Speed(1e-3, 1.0, 1))
    file = tmp_path / "paper.json"
    arguments = ("table1", "--rows=1", "--only=rk4", "--scale=smoke", f"--manifest={file}")
    assert rkbench(monkeypatch, *arguments, f"--results={tmp_path}") == 0
    content = json.loads(file.read_text())
    (run,) = content["runs"]
    # 2 seeds of 4 steps of 4 gradients at 64 examples, and 3 evaluations of 10,200 at a third.
    assert run["hours"] == round(2 * (4 * 4 * 64 + 3 * 10_200 / 3) * 1e-3 / 3600, 3)
    assert "cores" in content["hours_on"]


def test_the_committed_results_are_what_the_logs_say():
    results = pathlib.Path(__file__).parents[2] / "results"
    assert list(verify.verify(results)) == []
    assert len(list((results / "records").glob("*/*/run.json"))) >= 8
