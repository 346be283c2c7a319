"""Records whose log or run.json was changed after the end: every reader says what it leaves out."""

import csv
import errno
import gzip
import json
import math
import os
import pathlib
import shutil
import tracemalloc

import numpy as np
import pytest
import report_runs
from console import rkbench

from rkbench import files, scoring, texts, verify
from rkbench.comparison import sensitivity
from rkbench.drawing import plotting
from rkbench.errors import UserError
from rkbench.paper import plan, table1
from rkbench.paper.runs import SMALL_BATCH
from rkbench.records import Run, archive, find, logs, metrics
from rkbench.records.names import LONGEST, file_name, namer
from rkbench.report import content
from rkbench.scoring.collect import alike, collect
from rkbench.sweep import results

METRIC = "test/accuracy"


def write(folder, fingerprints, **settings):
    """A finished run, whose record has fingerprints of its log or is older than these."""
    record = report_runs.write_run(folder, **{"seeds": (0, 1), **settings})
    if fingerprints:
        found = metrics.fingerprints(folder / "metrics.jsonl")
        report_runs.rewrite(folder, logs={str(seed): one for seed, one in found.items()})
    return record


def cut(folder):
    """Takes the last line of the log, the evaluation at the end of seed 1, and leaves its step."""
    log = folder / "metrics.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    assert METRIC in lines[-2]
    log.write_text("".join([*lines[:-2], lines[-1]]))


def edit(folder):
    """Changes the last test accuracy of seed 1."""
    log = folder / "metrics.jsonl"
    lines = log.read_text().splitlines()
    last = json.loads(lines[-2])
    lines[-2] = json.dumps(last | {METRIC: last[METRIC] - 0.25})
    log.write_text("\n".join(lines) + "\n")


def claim(folder):
    """Changes what run.json says of seed 1."""
    record = json.loads((folder / "run.json").read_text())
    record["seeds"][1] |= {"final_test_accuracy": 0.999}
    files.write_json(folder / "run.json", record)


def lose_a_loss(folder):
    """Changes a number that no entry of run.json is made of."""
    log = folder / "metrics.jsonl"
    lines = log.read_text().splitlines()
    lines[-4] = json.dumps(json.loads(lines[-4]) | {"train/loss": 0.0})
    log.write_text("\n".join(lines) + "\n")


def go_on(folder):
    """Adds a step of seed 1 after those that were recorded."""
    log = folder / "metrics.jsonl"
    last = json.loads(log.read_text().splitlines()[-1])
    with open(log, "a") as file:
        file.write(json.dumps(last | {"step": last["step"] + 1}) + "\n")


CHANGES = [(change, new) for change in (cut, edit, claim) for new in (True, False)]
CHANGES += [(lose_a_loss, True), (go_on, False)]


@pytest.fixture(params=CHANGES, ids=lambda p: f"{p[0].__name__}-{'new' if p[1] else 'old'}")
def changed(request, tmp_path):
    """A folder with a run of which seed 1 was changed, and a whole one of another optimizer."""
    change, fingerprints = request.param
    write(tmp_path / "runs" / "rk4", fingerprints)
    write(tmp_path / "runs" / "adam", fingerprints, optimizer="adam")
    assert collect([tmp_path / "runs"]).omissions == ()
    change(tmp_path / "runs" / "rk4")
    return tmp_path / "runs"


def test_what_is_scored_and_reported_is_without_the_seed(changed):
    collection = collect([changed])
    assert {s.optimizer: [log.seed for log in s.logs] for s in collection.settings} == {
        "rk4": [0],
        "adam": [0, 1],
    }
    (omission,) = collection.omissions
    assert omission.folder.name == "rk4"
    assert omission.reason.startswith("seed 1: ")
    whole = Run(changed / "rk4").record["seeds"][0]["final_test_accuracy"]
    one = next(s for s in scoring.score(collection, METRIC) if s.setting.optimizer == "rk4")
    assert one.values("final") == {0: whole}
    told = content.content([changed], 1_000)
    (row,) = [row for row in told["rows"] if not row["averaged"]]
    assert (row["seed"], row["name"], row["results"][METRIC]["final"]) == (1, "runs/rk4", None)


def test_archive_and_verify_refuse_it(changed, tmp_path, monkeypatch, capsys):
    with pytest.raises(UserError, match=r"rk4: seed 1: "):
        archive.archive([Run(changed / "rk4")], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert rkbench(monkeypatch, "verify", changed) == 1
    assert f"{changed / 'rk4'}: seed 1: " in capsys.readouterr().err


def test_the_table_leaves_the_seed_out(changed, tmp_path):
    run = SMALL_BATCH["mnist"][1]
    places = plan.Places(tmp_path / "results", tmp_path / "nothing", "smoke")
    shutil.copytree(changed / "rk4", places.record(run))
    (_, line) = table1.lines(places, [1])
    whole = Run(changed / "rk4").record["seeds"][0]["final_test_accuracy"]
    assert (line.n, line.final.mean) == (1, pytest.approx(100 * whole))
    assert line.status == "done, 1 of 2 seeds left out"


def test_every_command_says_what_it_leaves_out(tmp_path, monkeypatch, capsys):
    run = SMALL_BATCH["mnist"][1]
    places = plan.Places(tmp_path / "results", tmp_path / "nothing", "smoke")
    write(places.record(run), True)
    cut(places.record(run))
    for command in ("score", "report", "compare"):
        output = tmp_path / ("report.html" if command == "report" else command)
        assert rkbench(monkeypatch, command, places.results, f"--output={output}") == 0
        told = "".join(capsys.readouterr())
        assert "left out: " in told
        assert ": seed 1: best_test_accuracy is " in told or ": seed 1: final_test" in told
    arguments = ("--scale=smoke", f"--results={places.results}", f"--runs={places.runs}")
    for command in (("table1", "--rows=1"), ("figure", "2")):
        assert rkbench(monkeypatch, *command, "--draw-only", *arguments) == 0
        assert f"left out: {places.record(run)}: seed 1: " in capsys.readouterr().err
    with open(places.results / "figures" / "fig02.csv", newline="") as file:
        assert {row["seeds"] for row in csv.DictReader(file)} == {"1"}


def test_a_trial_of_a_sweep_that_was_changed_is_not_chosen(tmp_path):
    from rkbench.configs import digits_mlp

    config = digits_mlp.get_config("rk4")
    config.seeds = (0, 1)
    trial = results.Trial("rk4", 0, {}, config.lock(), tmp_path / "trial")
    write(trial.folder, True, split="validation", more={"eval_test": False})
    protocol = results.Protocol(metric="validation/accuracy")
    assert results.result(trial, protocol).status == "done"
    lines = (trial.folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (trial.folder / "metrics.jsonl").write_text("".join([*lines[:-2], lines[-1]]))
    found = results.result(trial, protocol)
    assert (found.status, found.value) == ("failed", None)
    assert found.error.startswith("seed 1: the log has ")


def test_an_old_trial_without_its_last_evaluation_is_found_too(tmp_path):
    write(tmp_path / "trial", False, split="validation", more={"eval_test": False})
    log = tmp_path / "trial" / "metrics.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join([*lines[:-2], lines[-1]]))
    assert Run(tmp_path / "trial").faults == {
        1: "the log has no validation/accuracy of the last step, the last is of step 90"
    }


def test_an_archived_run_keeps_the_fingerprints(tmp_path):
    write(tmp_path / "run", True)
    archive.archive([Run(tmp_path / "run")], tmp_path / "kept")
    kept = Run(tmp_path / "kept")
    assert kept.record["logs"] == Run(tmp_path / "run").record["logs"]
    assert kept.faults == {}
    packed = tmp_path / "kept" / "metrics.jsonl.gz"
    text = gzip.decompress(packed.read_bytes()).replace(b'"batch/loss": 0', b'"batch/loss": 1')
    packed.write_bytes(gzip.compress(text))
    assert set(Run(tmp_path / "kept").faults) == {0, 1}


def test_a_last_value_that_is_not_finite_is_no_earlier_one(tmp_path):
    write(tmp_path / "run", False, seeds=(0,))
    log = tmp_path / "run" / "metrics.jsonl"
    lines = log.read_text().splitlines()
    lines[-2] = json.dumps(json.loads(lines[-2]) | {"test/loss": None})
    log.write_text("\n".join(lines) + "\n")
    (setting,) = collect([tmp_path]).settings
    found = scoring.outcome(setting.logs[0], "test/loss")
    assert math.isnan(found.final)
    assert found.best > 0


def test_columns_are_the_lines(tmp_path):
    report_runs.write_run(tmp_path / "run", seeds=(3, 4))
    run = Run(tmp_path / "run")
    for seed in (3, 4):
        columns = run.logged[seed].columns
        for field in {name for line in run.log for name in line}:
            expected = [line.get(field, np.nan) for line in run.log if line["seed"] == seed]
            np.testing.assert_array_equal(columns[field], expected)
        assert run.logged[seed].summary(run.record["seeds"][seed - 3]) == {
            **run.record["seeds"][seed - 3],
            "seconds": columns["wall_time"].max(),
        }


# Links, names and numbers


def test_links_to_runs_are_followed_once_and_cycles_end(tmp_path):
    write(tmp_path / "elsewhere" / "one", False)
    write(tmp_path / "top" / "b", False)
    top = tmp_path / "top"
    (top / "a").symlink_to(top / "b")
    (top / "linked").symlink_to(tmp_path / "elsewhere")
    (top / "again").symlink_to(tmp_path / "elsewhere" / "one")
    (top / "b" / "cycle").symlink_to(top)
    (top / "dangling").symlink_to(tmp_path / "nothing")
    assert find(top) == [top / "again", top / "b"]
    (top / "again").unlink()
    assert find(top) == [top / "b", top / "linked" / "one"]
    (tmp_path / "link").symlink_to(top)
    assert find(tmp_path / "link")[0] == tmp_path / "link" / "b"


@pytest.mark.parametrize("command", ["score", "report", "archive", "verify"])
def test_every_reader_follows_links(command, tmp_path, monkeypatch, capsys):
    write(tmp_path / "elsewhere", False)
    (tmp_path / "top").mkdir()
    (tmp_path / "top" / "run").symlink_to(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    rest = [] if command in ("score", "verify") else ["--output=out"]
    code = rkbench(monkeypatch, command, "top", *rest)
    told = capsys.readouterr()
    assert (code, told.err.count("seconds is")) == ((1, 2) if command == "verify" else (0, 0))


def test_a_folder_that_cannot_be_entered_is_named(tmp_path, monkeypatch):
    write(tmp_path / "good", False)
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def closed(path):
        if pathlib.Path(path).name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    assert find(tmp_path) == [tmp_path / "closed", tmp_path / "good"]
    (omission,) = collect([tmp_path]).omissions
    assert omission.folder.name == "closed"


def test_a_log_is_held_in_little_memory(tmp_path):
    report_runs.write_run(tmp_path / "run", seeds=(0,), points=5_000)
    run = Run(tmp_path / "run")
    tracemalloc.start()
    assert len(run.logged[0].columns["step"]) == 9_999
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3e6  # a list of the records takes three times as much


def test_the_last_digits_of_another_machine_are_no_difference():
    assert verify._alike("step,1.5000000000000004,adam2", "step,1.5000000000000002,adam2")
    for other in ("step,1.50001,adam2", "step,1.5000000000000004,adam3", "step,1.5,2,adam2", "x"):
        assert not verify._alike("step,1.5000000000000004,adam2", other)


def test_unfinished_runs_are_named_where_there_is_nothing_else(tmp_path, monkeypatch, capsys):
    record = write(tmp_path / "run", False)
    report_runs.rewrite(tmp_path / "run", seeds=[], status="running")
    assert record["config"]["seeds"] == [0, 1]
    assert rkbench(monkeypatch, "score", tmp_path / "run") == 2
    assert capsys.readouterr().err == (
        f"rkbench: error: there is nothing to score: {tmp_path / 'run'}: status 'running':"
        " no result of seeds [0, 1]\n"
    )


def test_one_and_one_point_nought_are_one_setting(tmp_path):
    optimizer = {"name": "adam", "learning_rate": 0.1}
    for seed, eps in enumerate((1, 1.0)):
        more = {"optimizer": optimizer | {"eps": eps}}
        write(tmp_path / str(seed), False, optimizer="adam", seeds=(seed,), more=more)
    more = {"optimizer": optimizer | {"eps": 1.0, "learning_rate": 0.2}}
    write(tmp_path / "other", False, optimizer="adam", seeds=(0,), more=more)
    found = {s.method: [log.seed for log in s.logs] for s in collect([tmp_path]).settings}
    assert found == {"adam (learning_rate=0.1)": [0, 1], "adam (learning_rate=0.2)": [0]}
    assert alike([1, True, {"a": 2.0}]) == alike([1.0, True, {"a": 2}]) != alike([1, 1, {"a": 2}])


def test_the_name_of_a_task_does_not_repeat_what_follows_from_the_config(tmp_path):
    for name, count in (("all", 0), ("some", 300)):
        data = {"name": "mnist", "fingerprint": f"{count:064}", "subset": bool(count)}
        write(tmp_path / name, False, more={"train_examples": count})
        sizes = ("train_examples", "test_examples", "full_train_examples", "full_test_examples")
        report_runs.rewrite(tmp_path / name, data=data | dict.fromkeys(sizes, 300 + count))
    tasks = [setting.task for setting in collect([tmp_path]).settings]
    assert tasks == ["mnist_mlp (train_examples=0)", "mnist_mlp (train_examples=300)"]
    for name in ("all", "some"):  # the config no longer tells them apart
        record = json.loads((tmp_path / name / "run.json").read_text())
        report_runs.rewrite(tmp_path / name, config=record["config"] | {"train_examples": 0})
    tasks = [setting.task for setting in collect([tmp_path]).settings]
    assert [task.partition("=")[0] for task in tasks] == ["mnist_mlp (fingerprint"] * 2
    assert all(task.count("=") == 1 for task in tasks)


def test_names_of_files_are_short_and_differ():
    task = f"mnist_mlp ({', '.join(f'field_{i}={i}' for i in range(40))}"
    one, other = file_name("curves", task), file_name("curves", f"{task}, more=1)")
    assert len(one) == len(other) == LONGEST
    assert one != other
    assert file_name("curves", "mnist_mlp (batch_size=32)") == "curves-mnist_mlp-batch_size-32"
    room = LONGEST - len("curves-")
    assert file_name("curves", "x" * room) == f"curves-{'x' * room}"
    assert len(file_name("curves", "x" * (room + 1))) == LONGEST


def test_text_is_drawn_and_printed_as_it_is(tmp_path, monkeypatch, capsys):
    assert texts.printable("a\x1b[2Jb\n\ud800\u202e é") == "a\\x1b[2Jb\\n\\ud800\\u202e é"
    assert str(UserError("one\ntwo")) == "one\\ntwo"
    names = ["$\\frac{", "$x$", "a_b^{"]
    for name in names:
        optimizer = {"name": name, "learning_rate": 0.1, "note": "\x1b[31m$"}
        more = {"optimizer": optimizer}
        write(tmp_path / "runs" / f"{len(name)}\x1b[2J", False, seeds=(0,), more=more)
    other = {"optimizer": {"name": "$x$", "learning_rate": 0.1, "note": "$\\sqrt{"}}
    write(tmp_path / "runs" / "other", False, seeds=(0,), more=other)
    arguments = ("compare", tmp_path / "runs", f"--output={tmp_path / 'out'}")
    assert rkbench(monkeypatch, *arguments) == 0
    assert rkbench(monkeypatch, "score", tmp_path / "runs") == 0
    told = "".join(capsys.readouterr())
    assert "\x1b" not in told
    assert "$x$ (note=\\x1b[31m$)" in told
    drawn = plotting.Canvas().text(0, 0, texts.literal("$x$ and \\$5$"))
    assert not drawn._preprocess_math(drawn.get_text())[1]
    assert drawn._preprocess_math(drawn.get_text())[0] == "$x$ and \\$5$"


def test_rates_of_any_size_have_neighbourhoods():
    edges = sensitivity.neighbourhoods([1e-100, 1e-99, 1e100])
    assert edges == sorted(edges)
    assert edges[0] > 0
    assert sensitivity.neighbourhoods([1, 4, 16]) == pytest.approx([0.5, 2, 8, 32])


def test_a_name_of_a_folder_is_fit_for_a_file():
    folder = pathlib.Path("/tmp") / os.fsdecode(b"\xff")
    namer([folder])(folder).encode()
    assert logs.is_result("test/loss")
    assert not logs.is_result("batch/loss")
