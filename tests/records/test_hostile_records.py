"""Records made elsewhere: a reader says by name what it leaves out, and never throws or hangs."""

import copy
import functools
import gzip
import json
import os
import pathlib
import shutil
import warnings

import pytest
import report_runs
from console import rkbench
from generated import generated
from hypothesis import given
from hypothesis import strategies as st

from rkbench import files, verify
from rkbench.comparison import pictures, published
from rkbench.drawing import tables
from rkbench.errors import UserError
from rkbench.paper import plan, table1
from rkbench.paper import published as paper
from rkbench.paper.runs import SMALL_BATCH
from rkbench.records import Run, archive, metrics, read_object
from rkbench.records.names import namer
from rkbench.report import content, page
from rkbench.scoring import collect, tabulate
from rkbench.scoring import output as scores
from rkbench.sweep import output
from rkbench.sweep.plan import Protocol

ROOT = pathlib.Path("results/records/smoke")
BAD = ROOT / SMALL_BATCH["mnist"][0].name  # what is spoilt: Adam's of Table 1, row 1
METRIC = "test/accuracy"


@pytest.fixture(scope="module")
def good_runs(tmp_path_factory):
    """Runs of two optimizers at three rates, made once."""
    top = tmp_path_factory.mktemp("good")
    for optimizer in ("adam", "rk4"):
        for rate in (0.01, 0.1, 1.0):
            folder = top / ROOT / f"{optimizer}-{rate}"
            folder = top / BAD if (optimizer, rate) == ("adam", 0.1) else folder
            report_runs.write_run(folder, optimizer, rate, (0, 1), points=4)
            found = metrics.fingerprints(folder / "metrics.jsonl")
            report_runs.rewrite(folder, logs={str(seed): one for seed, one in found.items()})
    return top / "results"


@pytest.fixture
def runs(good_runs, tmp_path, monkeypatch):
    """A copy of them in the working folder, which is a new one."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(good_runs, "results")


def score():
    collection, name = collect([ROOT]), namer([ROOT])
    found = tabulate(collection, METRIC, 0.5, None, name)
    files = scores.files(found)
    for text in files.values():
        text.encode()
    return found.omissions


def report():
    told = content.content([ROOT], 100, 0.5)
    page.embedded(told).encode()
    return told["omissions"]


def compare():
    collection = collect([ROOT])
    for one in pictures.pictures(pictures.Compared.of(collection, METRIC), namer([ROOT])):
        "".join([one.name, *one.texts.values()]).encode()
    return list(map(str, collection.omissions))


def archived():
    archive.archive_all(ROOT, pathlib.Path("out"))
    return []


def verified():
    return [line for line in verify.verify(pathlib.Path("results")) if "seconds is" not in line]


def table():
    places = plan.Places(pathlib.Path("results"), pathlib.Path("runs"), "smoke")
    for text in table1.texts(table1.lines(places, [1]), "smoke").values():
        text.encode()
    return plan.left_out(places, table1.Table1((1,)).runs("smoke"))


READERS = [score, report, compare, archived, verified, table]


def told_by(reader):
    """What a reader says of what it leaves out or refuses, in lines; anything else it raises."""
    shutil.rmtree("out", ignore_errors=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # a number that overflowed
        try:
            return reader()
        except UserError as error:
            return [str(error)]


def changed(change):
    """run.json of the spoilt run after `change`."""
    record = json.loads((BAD / "run.json").read_text())
    record = change(record) or record
    (BAD / "run.json").write_text(json.dumps(record))


def at(*path):
    """A change of the value at the path, which is the last word."""
    *way, last, value = path

    def change(record):
        place = functools.reduce(lambda part, key: part[key], way, record)
        place[last] = value

    return change


def nested(levels):
    return functools.reduce(lambda inner, _: {"a": inner}, range(levels), 1)


RECORDS = {
    "grad_evals null": at("seeds", 0, "grad_evals", None),
    "seconds text": at("seeds", 0, "seconds", "1"),
    "seconds infinite": at("seeds", 0, "seconds", float("inf")),
    "steps negative": at("seeds", 0, "steps", -1),
    "steps huge": at("seeds", 0, "steps", 10**400),
    "accuracy huge": at("seeds", 0, "final_test_accuracy", 1e308),
    "accuracy NaN": at("seeds", 0, "best_test_accuracy", float("nan")),
    "status odd": at("seeds", 0, "status", "finished"),
    "seed text": at("seeds", 0, "seed", "0"),
    "seed true": at("seeds", 0, "seed", True),
    "seed twice": at("seeds", 1, "seed", 0),
    "seeds of the config": at("config", "seeds", [[0]]),
    "seeds of the config text": at("config", "seeds", "01"),
    "command of numbers": at("command", [1, 2]),
    "command text": at("command", "rkbench"),
    "parts of text": at("parts", ["x"]),
    "part without a command": at("parts", [{"command": [None], "seeds": [0, 1]}]),
    "part with odd seeds": at("parts", [{"command": [], "seeds": 0}]),
    "versions odd": at("versions", [1]),
    "started odd": at("started", 5),
    "config_hash a list": at("config_hash", []),
    "name half a surrogate": at("config", "optimizer", "name", "\ud800"),
    "name with control characters": at("config", "workload", "\x1b[2J"),
    "name long": at("config", "workload", "x" * 10_000),
    "name empty": at("config", "workload", ""),
    "key half a surrogate": at("config", "\udcff", 1),
    "learning rate text": at("config", "optimizer", "learning_rate", "fast"),
    "learning rate huge": at("config", "optimizer", "learning_rate", 1e308),
    "learning rate NaN": at("config", "optimizer", "learning_rate", float("nan")),
    "optimizer a list": at("config", "optimizer", []),
    "config null": at("config", None),
    "total_steps text": at("config", "total_steps", "10"),
    "nested deep": at("config", "model", nested(900)),
    "nested deep elsewhere": at("more", nested(40)),
    "data a list": at("data", [1]),
    "data's name": at("data", {"name": 3}),
    "subset without sizes": at("data", {"name": "x", "subset": True}),
    "logs of text": at("logs", {"0": "x"}),
    "logs without lines": at("logs", {"0": {"sha256": "x"}}),
    "logs of another log": at("logs", {"0": {"lines": 7, "sha256": "0" * 64}}),
    "error odd": at("error", {}),
}


@pytest.mark.parametrize("reader", READERS)
def test_sound_records_are_left_out_by_nobody(reader, runs):
    assert told_by(reader) == []


@pytest.mark.parametrize("reader", READERS)
def test_a_record_that_does_not_fit_is_named(reader, runs):
    good = (BAD / "run.json").read_text()
    for name, change in RECORDS.items():
        (BAD / "run.json").write_text(good)
        changed(change)
        told = told_by(reader)
        assert any(BAD.name in line for line in told), name
        assert all(line.isprintable() for line in told), name


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"\xff\xfe", b"[" * 10**5, b'{"a": NaN'])
def test_a_run_json_that_is_none_is_named(content, runs):
    (BAD / "run.json").write_bytes(content)
    for reader in READERS:
        assert any(BAD.name in line for line in told_by(reader)), reader


def last(**fields):
    """A change of the last line of a log."""

    def change(log):
        *lines, end = log.read_text().splitlines()
        line = {k: v for k, v in (json.loads(end) | fields).items() if v is not missing}
        log.write_text("\n".join([*lines, json.dumps(line)]) + "\n")

    return change


def pack(content):
    def change(log):
        (log.parent / "metrics.jsonl.gz").write_bytes(content)
        log.unlink()

    return change


def pipe(log):
    log.unlink()
    os.mkfifo(log)


def folder(log):
    log.unlink()
    log.mkdir()


missing = object()
LOGS = {
    "wall_time null": last(wall_time=None),
    "wall_time missing": last(wall_time=missing),
    "grad_evals null": last(grad_evals=None),
    "grad_evals missing": last(grad_evals=missing),
    "grad_evals huge": last(grad_evals=1e308),
    "accuracy huge": last(**{METRIC: 1e308}),
    "seed missing": last(seed=missing),
    "step half": last(step=29.5),
    "nested": last(more=nested(900)),
    "metric text": last(more="x"),
    "a pipe": pipe,
    "a folder": folder,
    "nothing": pathlib.Path.unlink,
    "empty": lambda log: log.write_bytes(b""),
    "no text": lambda log: log.write_bytes(b"\x00" * 4096),
    "a line without end": lambda log: log.write_bytes(b"1" * (3 << 20)),
    "not compressed": pack(b"plain text"),
    "compressed and cut": pack(gzip.compress(os.urandom(3000))[:2000]),
    "very many fields": last(**{f"a/{i}": i for i in range(2000)}),
}


@pytest.mark.parametrize("name", LOGS)
def test_a_log_that_is_none_is_named(name, runs):
    LOGS[name](BAD / "metrics.jsonl")
    for reader in READERS:
        assert any(BAD.name in line for line in told_by(reader)), reader


def test_a_number_so_large_that_sums_overflow_counts_as_not_finite(runs):
    last(**{"test/loss": 1e308, "batch/grad_norm": -1e300})(BAD / "metrics.jsonl")
    changed(lambda record: record.pop("logs") and None)
    for reader in READERS:
        assert told_by(reader) == []


SWEEPS = [
    "[]",
    "1",
    '{"sweep": []}',
    '{"command": 3, "sweep": {}}',
    '{"command": [1], "sweep": {}}',
    '{"sweep": {}, "choices": []}',
    '{"sweep": {}, "choices": {"rk4": {}}}',
    "{" * 900,
]


@pytest.mark.parametrize("text", SWEEPS)
def test_a_sweep_json_of_another_shape_is_refused(text, runs):
    (ROOT / "sweep.json").write_text(text)
    (line,) = told_by(archived)
    assert "sweep.json is not a sweep's record" in line
    with pytest.raises(UserError, match=r"sweep.json is not a sweep's record"):
        output.read(ROOT, [], Protocol())


@pytest.mark.parametrize(
    ("name", "text", "reader"),
    [
        ("manifest.json", '{"table1": {"scale": "cpu", "rows": [1.0]}}', paper.noted),
        ("manifest.json", '{"table1": 1}', paper.noted),
        ("manifest.json", '{"figures/fig01": {"scale": "cpu", "number": []}}', paper.noted),
        ("scores.json", '{"metric": 1}', published.artefacts),
        ("scores.json", '{"metric": "test/accuracy", "targets": "x"}', published.artefacts),
        ("scores.json", '{"metric": "test/accuracy", "reference": []}', published.artefacts),
    ],
)
def test_other_files_of_results_are_checked_too(name, text, reader, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=name):
        reader(tmp_path)


def test_a_note_of_a_failure_cannot_break_the_table(runs):
    (BAD / "run.json").unlink()
    (BAD / "failed.json").write_text('{"error": "a | b\\n| c \\u001b[2J"}')
    places = plan.Places(pathlib.Path("results"), pathlib.Path("runs"), "smoke")
    text = table1.markdown(table1.lines(places, [1]), "smoke")
    assert "failed: a \\| b\\n\\| c \\x1b[2J |" in text
    (BAD / "failed.json").write_text('{"error": ["a"]}')
    assert any("failed.json" in line for line in told_by(table))
    assert tables.aligned([("a",), ("b\nc",)]).splitlines()[-1] == "b\\nc"


@pytest.mark.parametrize("command", ["score", "report", "compare", "archive", "verify"])
def test_the_commands_exit_with_2_or_leave_it_out(command, runs, monkeypatch, capsys):
    changed(at("seeds", 0, "grad_evals", None))
    rest = {"score": [], "report": ["--output=r.html"], "verify": []}.get(command, ["--output=out"])
    shutil.copytree(ROOT / "rk4-0.1", "alone/rk4")  # compare draws less of two runs
    shutil.copytree(BAD, f"alone/{BAD.name}")
    code = rkbench(monkeypatch, command, "alone", *rest)
    told = capsys.readouterr()
    assert code == (2 if command in ("archive", "verify") else 0)
    assert BAD.name in told.err + told.out
    assert "Traceback" not in told.err


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=20)
    | st.sampled_from([1e308, 10**400, "$\\frac{", "\x1b[2J", "__proto__", "<script>"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


def places_in(value, way=()):
    """The way to every value in a JSON value."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*way, key)
        if isinstance(inner, dict | list):
            yield from places_in(inner, (*way, key))


@generated(120)
@given(st.data())
def test_anything_anywhere_is_read_or_named(runs, data):
    record = json.loads((BAD / "run.json").read_text())
    way = data.draw(st.sampled_from(sorted(places_in(record), key=str)))
    spoilt = copy.deepcopy(record)
    at(*way, data.draw(JUNK))(spoilt)
    reader = data.draw(st.sampled_from(READERS))
    (BAD / "run.json").write_text(json.dumps(spoilt))
    try:
        told = told_by(reader)
    finally:
        files.write_json(BAD / "run.json", record)
    assert all(line.isprintable() for line in told)
    assert not told or any(str(BAD.name) in line for line in told)


def test_a_file_is_read_in_bounded_depth_and_as_text(tmp_path):
    path = tmp_path / "file.json"
    for value, why in ((nested(13), "nested deeper than 12"), ("\ud800", "surrogates")):
        path.write_text(json.dumps({"a": value}))
        with pytest.raises(UserError, match=why):
            read_object(path, "a file")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match="it is not a file"):
        read_object(path, "a file")
    with pytest.raises(UserError, match="holds no run"):
        _ = Run(tmp_path).record
