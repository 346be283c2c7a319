"""Generated bad input to every command: one line on stderr, exit code 2, nothing written.

Commands run in this process. What is accepted stops where training would begin.
"""

import contextlib
import copy
import hashlib
import io
import itertools
import json
import math
import os
import pathlib
import pickle
import shutil
import sys
import tempfile

import jax.numpy as jnp
import numpy as np
import pytest
from generated import generated
from hypothesis import assume, given
from hypothesis import strategies as st
from resuming import contents

import rkbench.train
from rkbench import optimizers
from rkbench.commands import cli
from rkbench.configs import default, digits_mlp
from rkbench.errors import UserError
from rkbench.records import identity, summary
from rkbench.trainer.checkpoint import Checkpoints, checksum
from rkbench.workloads import array_cache

pytestmark = pytest.mark.standard_promotion


class Accepted(Exception):
    """The command line was good, and training would begin."""


@pytest.fixture(autouse=True)
def nothing_is_trained(monkeypatch, tmp_path):
    def accept(*arguments):
        raise Accepted

    monkeypatch.setattr(rkbench.train, "_running", accept)
    monkeypatch.chdir(tmp_path)


def call(*arguments):
    """(exit code, stderr) of a command, or None where it was accepted."""
    printed, errors = io.StringIO(), io.StringIO()
    argv, sys.argv = sys.argv, ["rkbench", *arguments]
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(errors):
            cli.main()
    except Accepted:
        return None
    except SystemExit as ended:
        return ended.code, errors.getvalue()
    finally:
        sys.argv = argv
    return 0, errors.getvalue()


def check_refused(result, case=None):
    assert result is not None, f"accepted: {case}"
    code, errors = result
    assert code == 2, (case, code, errors)
    assert errors.startswith("rkbench: error: "), (case, errors)
    assert errors.count("\n") == 1, (case, errors)
    assert len(errors) < 2000, (case, errors)


def train(*arguments, config="configs/digits_mlp.py:rk4"):
    """`rkbench train` in a workdir that must not be there afterwards."""
    result = call("train", f"--config={config}", "--workdir=run", *arguments)
    assert not os.path.lexists("run")
    return result


# Config overrides

DEFAULT = digits_mlp.get_config("rk4").to_dict()
WORDS = st.sampled_from(
    ["", " ", "x", "é☃", "None", "nan", "[1]", "{}", "(1,2)", "auto ", "1e", "\n"]
)
NO_NUMBER = st.sampled_from(["", "x", "é☃", "None", "1,2", "0x", "1e", "(1,)", "[]", "\n", "1 2"])
HUGE = st.integers(2**31, 10**40).map(str)
NEGATIVE = st.integers(-(10**40), -2).map(str)
NOT_FINITE = st.sampled_from(["nan", "inf", "-inf", "1e400", "1e300", "-1e400"])
WHOLE = NO_NUMBER | HUGE | NEGATIVE | NOT_FINITE | st.just("1.5")
NUMBER = NO_NUMBER | NEGATIVE | NOT_FINITE
NO_CHOICE = WORDS | st.text(max_size=8).filter(lambda text: "\0" not in text)


def fields_of(kind):
    """The fields whose default, or preset, is of this type."""
    return tuple(
        path
        for path, field in default.FIELDS.items()
        if (field.kind or type(field.default)) is kind and field.default is not None
    )


FIELDS = {
    **dict.fromkeys(fields_of(int), WHOLE),
    "batch_size": WHOLE | st.sampled_from(["ful", "True", "0", "1298"]),
    "seeds": WORDS.filter(lambda word: word not in ("[1]", "(1,2)"))
    | st.sampled_from(["-1", "(1,1)", "(True,)", "1.5", "(4294967296,)", "()", "('a',)"]),
    "model.hidden_sizes": st.sampled_from(["x", "-1", "(0,)", "1.5", "(8,'a')", "nan", "(8,None)"])
    | HUGE,
    **dict.fromkeys((*fields_of(float), "optimizer.momentum"), NUMBER),
    "label_smoothing": NUMBER | st.just("1"),
    **dict.fromkeys(
        fields_of(bool), st.sampled_from(["x", "2", "nan", "", "None", "yes!", "é☃", "1.5"])
    ),
    **dict.fromkeys(
        (
            *fields_of(str),
            *("optimizer.name", "optimizer.preconditioner", "optimizer.step_size"),
        ),
        NO_CHOICE,
    ),
}


def test_every_field_is_tried():
    tried = {name.split(".")[0] for name in FIELDS}
    assert tried == DEFAULT.keys() - {"data_dir"}  # any text may be a folder
    for group in ("model", "optimizer", "schedule", "augment", "mesh"):
        own = {name.partition(".")[2] for name in FIELDS if name.startswith(f"{group}.")}
        assert own == DEFAULT[group].keys()


@generated(150)
@given(st.data())
def test_a_bad_value_of_any_field(data):
    name = data.draw(st.sampled_from(sorted(FIELDS)))
    value = data.draw(FIELDS[name])
    check_refused(train(f"--config.{name}={value}"), (name, value))


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_one_bad_value_of_each_field(name):
    check_refused(train(f"--config.{name}=é☃"), name)


@pytest.mark.parametrize(
    "variant",
    [
        *("", "rk5", "é☃", "rk4,", "rk4,=", "rk4,ful", "rk4,total_steps=None", "rk4,l2=None"),
        *(
            "rk4,seeds=None",
            "rk4,batch_size=None",
            "rk4,model=3",
            "rk4,model.x=1",
            "rk4,schedule=1",
        ),
        *("rk4,momentum=1", "rk4,momentum='x'", "rk4,momentum=1e999", "rk4,eps=1", "rk4,a b=1"),
        *("rk4,learning_rate=None", "rk4,preconditioner=3", "rk4,step_size=[1]", "rk4,tableau=1"),
        *("rk2,alpha=0", "rk2,alpha='x'", "rk2,alpha=[1]", "rk4_dalr,c=-1", "rk4_dalr,p='é'"),
        *("rk4_dalr,learning_rate=0.1", "rk4_natural,alpha=1e999", "adam,b1=1", "adam,b1=None"),
        *("adam,b2='x'", "adam,eps=-1", "adam,nesterov='yes'", "adam,mu_dtype='x'", "adam,foo=1"),
        *("optax:", "optax:nothing", "optax:lion,mask=[1]", "optax:lion,weight_decay={}"),
        *(
            "optax:lbfgs,memory_size=-1",
            "optax:lbfgs,linesearch=3",
            "optax:contrib.prodigy,beta3='a'",
        ),
    ],
)
def test_a_bad_variant(variant):
    check_refused(train(config=f"configs/digits_mlp.py:{variant}"), variant)


# Configs of the user's own


CONFIG_FILES = {
    "syntax.py": "def (",
    "raises.py": "raise RuntimeError('one\\ntwo')",
    "nothing.py": "x = 1",
    "number.py": "def get_config(variant=''): return 3",
    "no_variant.py": "def get_config(): return {}",
    "few_fields.py": "from ml_collections import ConfigDict\n"
    "def get_config(variant=''): return ConfigDict({'total_steps': 1})",
    "more_fields.py": "from rkbench.configs import digits_mlp\n"
    "def get_config(variant=''):\n"
    "    config = digits_mlp.get_config('rk4')\n    config.total_step = 3\n    return config",
    "no_optimizer.py": "from rkbench.configs import digits_mlp\n"
    "def get_config(variant=''):\n"
    "    config = digits_mlp.get_config('rk4')\n    config.optimizer = {}\n    return config",
    "bytes.py": bytes(range(256)),
    "é☃": "x",
}


@pytest.mark.parametrize("variant", ["", ":rk4"])
@pytest.mark.parametrize("name", CONFIG_FILES)
def test_a_config_file_that_is_none(name, variant):
    content = CONFIG_FILES[name]
    pathlib.Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    check_refused(train("--config.total_steps=1", config=f"{name}{variant}"), name)


# Command lines


NO_FOLDER = (
    "file",
    "file/below",
    "loop",
    "dangling",
    "a" * 300,
    "",
    "a\0b",
    "gs://b/c",
    "~no-such-user",
)


@pytest.fixture
def odd_files():
    pathlib.Path("file").write_text("x")
    os.symlink("loop", "loop")
    os.symlink("nowhere", "dangling")


SWEEP = [
    *("sweep", "--config=configs/digits_mlp.py:rk4", "--space=configs/sweeps/learning_rate.py"),
    *("--trials=2", "--tuning_seeds=0"),
]
# Each with the place of a path.
COMMANDS = {
    "train": ["train", "--config=configs/digits_mlp.py:rk4", "--workdir={}"],
    "train twice": ["train", "--config=configs/digits_mlp.py:rk4", "--workdir=run", "{}"],
    "train flag file": ["train", "--flagfile={}"],
    "sweep": [*SWEEP, "--workdir={}"],
    "sweep space": [*SWEEP, "--workdir=run", "--space={}"],
    "sweep config": [*SWEEP, "--workdir=run", "--config={}"],
    "score": ["score", "{}"],
    "score to": ["score", ".", "--output={}"],
    "compare": ["compare", "{}", "--output=out"],
    "compare to": ["compare", ".", "--output={}"],
    "report": ["report", "{}"],
    "report to": ["report", ".", "--output={}"],
    "quickstart": ["quickstart", "--draw-only", "--workdir={}"],
    "table1": ["table1", "--draw-only", "--results={}"],
    "figure": ["figure", "7", "--dry-run", "--runs={}"],
    "paper": ["paper", "--dry-run", "--results={}"],
    "study": ["study", "--draw-only", "--results={}"],
    "verify": ["verify", "{}"],
    "archive": ["archive", "{}", "--output=out"],
    "archive to": ["archive", ".", "--output={}"],
    "costs": ["costs", "--output={}"],
    "bench": ["bench", "compilation", "--output={}"],
    "convert": ["convert", "--dataset=imagenet2012", "--output_dir={}"],
    "convert from": ["convert", "--dataset=imagenet2012", "--data_dir={}"],
    "manifest": ["figure", "7", "--no-hours", "--manifest={}"],
}


MAY_BE_WRITTEN = {(name, path) for name in ("bench", "manifest") for path in ("file", "dangling")}


@pytest.mark.parametrize(
    ("command", "path"),
    [pair for pair in itertools.product(COMMANDS, NO_FOLDER) if pair not in MAY_BE_WRITTEN],
)
def test_a_path_that_cannot_be(odd_files, command, path):
    arguments = [argument.format(path) for argument in COMMANDS[command]]
    before = contents(".")
    check_refused(call(*arguments), arguments)
    assert contents(".") == before


WRONG = [
    ["{}"],
    ["list", "{}"],
    ["figure", "{}"],
    ["figure", "1", "--axis={}"],
    ["figure", "1", "--scale={}"],
    ["table1", "--rows={}"],
    ["study", "--seeds={}"],
    ["paper", "--dry-run", "--only=\x01{}"],
    ["bench", "{}"],
    ["convert", "--dataset={}"],
    ["verify", ".", "{}"],
    ["costs", "{}"],
    ["quickstart", "{}"],
    ["archive", "--{}"],
    ["train", "{}"],
    ["train", "--config=configs/{}"],
    ["train", "--config=configs/digits_mlp.py:rk4", "--x{}"],
    ["train", "--config=configs/digits_mlp.py:rk4", "--workdir=run", "--config.x{}=1"],
    ["train", "--config", "configs/digits_mlp.py:rk4", "--workdir=run", "-config.x{}", "1"],
    ["train", "--config.total_steps", "{}", "--config=configs/digits_mlp.py:rk4", "--workdir=run"],
    ["sweep", "{}"],
    ["sweep", "--config={}"],
    [*SWEEP, "--workdir=run", "--x{}"],
    [*SWEEP, "--workdir=run", "--optimizers=rk4,x{}"],
    [*SWEEP, "--workdir=run", "--sampler=x{}"],
    [*SWEEP, "--workdir=run", "--shard={}"],
    [*SWEEP, "--workdir=run", "--seeds=x{}"],
    [*SWEEP, "--workdir=run", "--metric=x{}"],
    [*SWEEP, "--workdir=run", "--quantity=x{}"],
    [*SWEEP, "--workdir=run", "--trials={}x"],
    [*SWEEP, "--workdir=run", "--config.x{}=1"],
    ["figure", "7", "--only=\x01{}"],
    ["figure", "7", "--draw-only", "--results=x{}"],
    ["score", "x{}"],
    ["score", "runs", "--metric=x{}"],
    ["score", "runs", "--target=x{}"],
    ["score", "runs", "--target=x{}=0.9"],
    ["score", "runs", "--reference=x{}"],
    ["compare", "x{}", "--output=out"],
    ["compare", "runs", "--output=out", "--metric=x{}"],
    ["compare", "runs", "--output=out", "--target=x{}"],
    ["report", "x{}"],
    ["report", "runs", "--max_points=x{}"],
    ["report", "runs", "--target=x{}"],
    ["archive", "x{}", "--output=out"],
]


@pytest.fixture
def a_run():
    good_run(pathlib.Path("runs/run"))


@pytest.mark.parametrize("command", WRONG, ids=" ".join)
def test_one_wrong_word_on_each_command_line(a_run, command):
    check_wrong_word(command, "é☃")


@generated(150)
@given(st.sampled_from(WRONG), st.text(max_size=12))
def test_a_wrong_word_on_any_command_line(command, word):
    shutil.rmtree("runs", ignore_errors=True)
    good_run(pathlib.Path("runs/run"))
    assume(command[0].format(word) not in ("", "help", "-h", "--help"))
    check_wrong_word(command, word)


@pytest.mark.parametrize("target", ["97", "nan", "inf", "-0.1", "1.01", "digits_mlp=97", "", "="])
@pytest.mark.parametrize("command", ["score", "compare", "report"])
def test_a_target_that_no_accuracy_can_have(a_run, command, target):
    shutil.copytree("runs/run", "runs/other")
    record = json.loads(pathlib.Path("runs/run/run.json").read_text())
    record["config"]["optimizer"]["name"] = "heun"
    pathlib.Path("runs/other/run.json").write_text(json.dumps(record))
    output = ["--output=out"] if command == "compare" else []
    check_refused(call(command, "runs", *output, f"--target={target}"), (command, target))
    assert not os.path.lexists("out")
    assert not os.path.lexists("report.html")


def test_unfinished_runs_are_named(a_run):
    path = pathlib.Path("runs/run/run.json")
    record = json.loads(path.read_text()) | {"status": "running", "seeds": []}
    path.write_text(json.dumps(record))
    for arguments in (["score", "runs"], ["compare", "runs", "--output=out"]):
        result = call(*arguments)
        check_refused(result, arguments)
        assert "runs/run: status 'running'" in str(result)
    assert not os.path.lexists("out")


@pytest.mark.parametrize(
    "command",
    [
        ["verify"],
        ["verify", "."],
        ["table1", "--draw-only"],
        ["figure", "7", "16", "--draw-only", "--axis=wall_time"],
        ["paper", "--draw-only", "--only=rk4"],
        ["study", "--draw-only", "--results=none"],
        ["quickstart", "--draw-only"],
        ["score", "."],
        ["compare", ".", "--output=out"],
        ["report", "."],
        ["archive", ".", "--output=out"],
        ["costs", "--output=plain.md"],
    ],
    ids=" ".join,
)
def test_a_command_with_nothing_to_work_on_says_so(command):
    pathlib.Path("plain.md").write_text("no marks")
    check_refused(call(*command), command)
    assert contents(".") == {"plain.md": b"no marks"}
    assert os.listdir() == ["plain.md"]


def check_wrong_word(command, word):
    arguments = [argument.format(word) for argument in command]
    before = contents(".")
    check_refused(call(*arguments), arguments)
    assert contents(".") == before


# Tableaus


RK4 = {
    "a": [[0, 0, 0, 0], [0.5, 0, 0, 0], [0, 0.5, 0, 0], [0, 0, 1, 0]],
    "b": [1 / 6, 1 / 3, 1 / 3, 1 / 6],
    "order": 4,
}
JUNK = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
JUNK |= st.lists(JUNK, max_size=3) | st.dictionaries(st.text(max_size=3), JUNK, max_size=2)


@st.composite
def no_tableaus(draw):
    """The classical method with one thing wrong."""
    table = copy.deepcopy(RK4)
    what = draw(st.sampled_from(["a", "b", "order", "entry", "key", "missing", "junk"]))
    if what in table:
        table[what] = draw(JUNK)
    elif what == "entry":
        row = draw(st.sampled_from([*table["a"], table["b"]]))
        shift = draw(st.floats(1e-3, 1e3)) * draw(st.sampled_from([-1, 1, math.inf, math.nan]))
        row[draw(st.integers(0, 3))] += shift
    elif what == "key":
        table[draw(st.text(max_size=4).filter(lambda key: key not in ("a", "b", "name")))] = 1
    elif what == "missing":
        del table[draw(st.sampled_from(["a", "b", "order"]))]
    else:
        table = draw(JUNK.filter(lambda junk: not isinstance(junk, str)))
    assume(not (isinstance(table, dict) and table.get("order") in (1, 2, 3, 4) and what == "order"))
    return table


@generated(150)
@given(no_tableaus())
def test_a_bad_tableau(table):
    with pytest.raises(UserError) as raised:
        optimizers.create("rk", 0.1, tableau=table)
    assert "\n" not in str(raised.value).strip()


@generated(20)
@given(no_tableaus())
def test_a_bad_tableau_on_the_command_line(table):
    assume("inf" not in repr(table) and "nan" not in repr(table))  # no literals of Python's
    check_refused(train(config=f"configs/digits_mlp.py:rk,tableau={table!r}"), table)


# Workdirs, records and checkpoints


def good_run(folder):
    """A finished run's record and log, made by hand."""
    config = identity.plain_config(digits_mlp.get_config("rk4"))
    lines = [{"step": step, "seed": 0, "wall_time": 0.1, "grad_evals": 4 * step} for step in (0, 9)]
    lines = [line | {"test/accuracy": 0.5, "test/loss": 1.0} for line in lines]
    seeds = [summary.of_seed(lines, 0, None, 0.1, 9)]
    record = {"config": config, "seeds": seeds, **summary.of_run(seeds), "data": {"name": "x"}}
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return record


READERS = {
    "train": ["train", "--config=configs/digits_mlp.py:rk4", "--workdir=results/records/cpu/run"],
    "archive": ["archive", "results/records/cpu/run", "--output=out"],
    "verify": ["verify", "results"],
    "score": ["score", "results"],
    "compare": ["compare", "results", "--output=out"],
    "report": ["report", "results", "--output=out.html"],
}


@st.composite
def no_records(draw):
    """Bytes for run.json, from a good record with one thing wrong."""
    good = json.loads(GOOD)
    what = draw(st.sampled_from(["bytes", "cut", "junk", "field", "seed"]))
    if what == "bytes":
        return draw(st.binary(max_size=40))
    if what == "cut":
        return GOOD.encode()[: draw(st.integers(0, len(GOOD) - 2))]
    junk = draw(JUNK.filter(lambda junk: not isinstance(junk, dict)))
    if what == "junk":
        return json.dumps(junk).encode()
    if what == "field":
        good[draw(st.sampled_from(["config", "seeds", "logs", "parts"]))] = draw(
            st.just(junk).filter(lambda junk: not isinstance(junk, list))
        )
    else:
        good["seeds"][0][draw(st.sampled_from(["seed", "status", "steps", "grad_evals"]))] = [junk]
    return json.dumps(good).encode()


GOOD = json.dumps(good_run(pathlib.Path(tempfile.mkdtemp(), "run")))


@generated(60)
@given(st.sampled_from(sorted(READERS)), no_records())
def test_a_run_json_that_is_none(command, content):
    shutil.rmtree("results", ignore_errors=True)
    folder = pathlib.Path("results/records/cpu/run")
    good_run(folder)
    (folder / "run.json").write_bytes(content)
    before = contents(".")
    check_refused(call(*READERS[command]), content)
    assert contents(".") == before


@generated(40)
@given(st.sampled_from(["archive", "verify"]), st.binary(max_size=30), st.booleans())
def test_a_log_with_garbage_in_the_middle(command, garbage, packed):
    assume(garbage.strip())
    shutil.rmtree("results", ignore_errors=True)
    folder = pathlib.Path("results/records/cpu/run")
    good_run(folder)
    log = folder / "metrics.jsonl"
    first, second = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(first + garbage.replace(b"\n", b"") + b"\n" + second)
    if packed:
        log.with_suffix(".jsonl.gz").write_bytes(garbage + b"x")
        log.unlink()
    before = contents(".")
    check_refused(call(*READERS[command]), garbage)
    assert contents(".") == before


@pytest.mark.parametrize(
    "name", ["run.json", "metrics.jsonl", ".lock", "checkpoints", "tensorboard"]
)
@pytest.mark.parametrize("kind", ["folder", "loop", "dangling", "file", "socket"])
def test_something_else_in_the_place_of_a_file_of_ours(name, kind):
    folder = pathlib.Path("work")
    folder.mkdir()
    path = folder / name
    if kind == "folder":
        path.mkdir()
    elif kind in ("loop", "dangling"):
        os.symlink(name if kind == "loop" else "nowhere", path)
    elif kind == "file":
        path.write_bytes(bytes(range(256)))
    else:
        os.mkfifo(path)
    if (kind, name) in (("file", ".lock"), ("folder", "tensorboard")):
        return  # left by a crash
    before = contents(folder), sorted(os.listdir(folder))
    result = call("train", "--config=configs/digits_mlp.py:rk4", "--workdir=work")
    check_refused(result, (name, kind))
    assert (contents(folder), sorted(os.listdir(folder))) == before


def state(value):
    return {"w": jnp.full((3, 2), value, jnp.float32), "count": jnp.int32(value)}


@pytest.fixture(scope="module")
def sound_checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound") / "seed-0"
    checkpoints = Checkpoints(folder)
    for step in (10, 20):
        checkpoints.save(step, state(step), {"seconds": step / 2, "diverged": {}})
    checkpoints.close()
    return folder


def damage(path, how, junk):
    content = path.read_bytes()
    if how == "cut":
        path.write_bytes(content[: len(junk) % max(1, len(content))])
    elif how == "flip" and content:
        place = (len(junk) * 7919) % len(content)
        flipped = content[place] ^ (1 << len(junk) % 8)
        path.write_bytes(content[:place] + bytes([flipped]) + content[place + 1 :])
    elif how == "junk":
        path.write_bytes(junk)
    else:
        path.unlink()
        if how == "folder":
            path.mkdir()
        elif how == "loop":
            os.symlink(path.name, path)


@generated(50)
@given(
    st.integers(0, 1000),
    st.sampled_from(["cut", "flip", "junk", "gone", "folder", "loop"]),
    st.binary(max_size=60),
    st.sampled_from(["", "30", "x", "-1", "99999999999999999999", "1e3", "é☃"]),
)
def test_a_damaged_checkpoint_is_never_used(capsys, sound_checkpoints, file, how, junk, beside):
    shutil.rmtree("seed-0", ignore_errors=True)
    folder = pathlib.Path("seed-0").absolute()
    shutil.copytree(sound_checkpoints, folder)
    if beside:
        (folder / beside).write_bytes(junk) if len(junk) % 2 else (folder / beside).mkdir()
    files = sorted(path for path in (folder / "20").rglob("*") if path.is_file())
    damage(files[file % len(files)], how, junk)
    checkpoints = Checkpoints(folder)
    restored = checkpoints.restore(state(0))
    checkpoints.close()
    errors = capsys.readouterr().err
    assert restored is not None
    assert restored.step in (10, 20)
    assert checksum(restored.state) == checksum(state(restored.step))
    assert restored.progress == {"seconds": restored.step / 2, "diverged": {}}
    assert "Traceback" not in errors
    assert restored.step == 20 or "the checkpoint of step 20 is damaged" in errors


# Nothing that is found in a folder is executed


class Bomb:
    def __reduce__(self):
        return os.mkdir, (str(pathlib.Path.cwd() / "exploded"),)


def test_nothing_in_a_workdir_or_cache_is_executed(monkeypatch, tmp_path, sound_checkpoints):
    bomb = pickle.dumps(Bomb())
    program = "import os; os.mkdir('exploded')"
    folder = pathlib.Path("results/records/cpu/run")
    good_run(folder)
    shutil.copytree(sound_checkpoints, folder / "checkpoints" / "seed-0")
    for name in ("__init__.py", "conftest.py", "sitecustomize.py", "json.py", "configs.py"):
        (folder / name).write_text(program)
    (folder / "metrics.jsonl").write_bytes(bomb)
    for path in (folder / "checkpoints").rglob("*"):
        if path.is_file():
            path.write_bytes(bomb)
    monkeypatch.setenv("RKBENCH_CACHE_DIR", str(tmp_path / "cache"))
    cache = tmp_path / "cache"
    cache.mkdir()
    buffer = io.BytesIO()
    np.savez(buffer, image=np.array([Bomb()], object))
    checksum = hashlib.sha256(buffer.getvalue()).hexdigest()
    (cache / f"digits-{checksum}.npz").write_bytes(buffer.getvalue())
    made = {"image": np.zeros(3, np.uint8)}
    assert array_cache.cached("digits", lambda: made) is made
    for command in READERS.values():
        call(*command)
    checkpoints = Checkpoints(folder.absolute() / "checkpoints" / "seed-0")
    assert checkpoints.restore(state(0)) is None
    checkpoints.close()
    assert not pathlib.Path("exploded").exists()
    pickle.loads(bomb)
    assert pathlib.Path("exploded").exists()  # it would have been seen
