"""--config and its overrides: every spelling means the same to every command, or is refused."""

import contextlib
import io
import pathlib
from typing import Any

import pytest

from rkbench.commands import command_line
from rkbench.commands import sweep as command
from rkbench.errors import UserError
from rkbench.records import identity
from rkbench.sweep import tune

RK4 = "configs/digits_mlp.py:rk4"


def parsed(*arguments: str) -> Any:
    """The config of a command line, as `train` and `sweep` read it."""
    values: Any = command_line.flag_values(__name__)
    command_line.parse_flags(["program", *arguments], values)
    return values.config.config()


def plain(*arguments):
    return identity.plain_config(parsed(*arguments))


@pytest.fixture
def flag_file(tmp_path):
    file = tmp_path / "flags"
    file.write_text(f"# a comment\n--config={RK4}\n\n--config.total_steps=7\n--config.remat\n")
    return str(file)


SAME = [
    ["--config", RK4, "--config.total_steps", "7", "--config.remat"],
    ["-config", RK4, "-config.total_steps", "7", "-config.remat"],
    [f"-config={RK4}", "-config.total_steps=7", "-config.remat=true"],
    [f"--config={RK4}", "--config.total_steps=0x7", "--noconfig.remat", "--config.remat=1"],
    ["--config=digits_mlp:rk4", "--config.total_steps=7", "--config.remat"],
    [
        "--config=configs/mnist_mlp.py:adam",
        f"--config={RK4}",
        "--config.remat",
        "--config.total_steps=7",
    ],
    [f"--config={RK4}", "--config.total_steps=7", "--config.remat", "--config", RK4],
    [f"--config={RK4}", "--config.total_steps=9", "--config.remat", "--config.total_steps=7"],
]


@pytest.mark.parametrize("arguments", SAME)
def test_every_spelling_is_the_same(arguments):
    assert plain(*arguments) == plain(
        f"--config={RK4}", "--config.total_steps=7", "--config.remat=true"
    )


def test_a_flag_file_counts_where_it_stands(flag_file):
    expected = plain(f"--config={RK4}", "--config.total_steps=7", "--config.remat=true")
    assert plain(f"--flagfile={flag_file}") == expected
    assert plain("--flagfile", flag_file) == expected
    # absl by itself does not look for flag files behind a flag that is parted from its value.
    assert plain("--config", "mnist_mlp:adam", f"-flagfile={flag_file}") == expected
    later = plain(f"--flagfile={flag_file}", "--config.total_steps", "8")
    assert later == expected | {"total_steps": 8}
    assert plain("--config", RK4, "--config.total_steps=8", f"--flagfile={flag_file}") == expected


@pytest.mark.parametrize(
    ("given", "field", "value"),
    [
        (["hidden_sizes=64,64", "hidden_sizes=16"], "hidden_sizes", (16,)),
        (["hidden_sizes=16", "hidden_sizes=(64,64)"], "hidden_sizes", (64, 64)),
    ],
)
def test_a_tuple_given_twice_is_the_last(given, field, value):
    config = parsed(f"--config={RK4}", *(f"--config.model.{text}" for text in given))
    assert config.model[field] == value


def test_none_is_none():
    rule = ["--config.optimizer.step_size=dalr", "--config.optimizer.learning_rate=None"]
    config = parsed(f"--config={RK4}", *rule, "--config.data_dir=None")
    assert config.optimizer.learning_rate is None
    assert config.data_dir is None
    assert parsed(f"--config={RK4}", "--config.data_dir=none").data_dir == "none"
    assert plain(f"--config={RK4}", *rule) == plain(f"--config={RK4},step_size=dalr")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.total_steps=7", f"--config={RK4}"], "--config.total_steps must come after"),
        (["--config.total_steps=7"], "--config.total_steps is given, but no --config"),
        (["--config", "--config.total_steps=7"], "unknown config '--config.total_steps=7'"),
        (["--config"], "Missing value for flag --config"),
        (["--config="], "--config is empty"),
        ([f"--config={RK4}", "--config.total_step", "7"], "'total_step'; nearest: total_steps"),
        ([f"--config={RK4}", "--noconfig.tensorbord"], "nearest: tensorboard"),
        ([f"--config={RK4}", "--config.total_steps=many"], "total_steps='many': a whole number"),
        ([f"--config={RK4}", "--config.l2=x"], "--config.l2='x': a number"),
        ([f"--config={RK4}", "--config.remat", "false"], "unexpected argument 'false'"),
        ([f"--config={RK4}", "--config.model=3"], "a group of fields"),
        ([f"--config={RK4}", "--", "--config.remat"], "unexpected argument '--config.remat'"),
        ([f"--config={RK4}", "--flagfile=nowhere"], "Unable to open flagfile"),
        # a field of the first config that the last one does not have
        (
            ["--config=digits_mlp:adam", "--config.optimizer.b1=0.5", f"--config={RK4}"],
            "unknown config field 'optimizer.b1'",
        ),
        (["--config", "gs://b/x.py"], "unknown config 'gs'"),
    ],
)
def test_what_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        parsed(*arguments)


def test_help_anywhere():
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), pytest.raises(SystemExit) as stopped:
        parsed("--config", RK4, "-help")
    assert stopped.value.code == 0
    assert "--config:" in printed.getvalue()


@pytest.fixture
def tuned(monkeypatch, tmp_path):
    """Calls `rkbench sweep` up to where training would begin; {optimizer: its config}."""

    def call(*arguments) -> dict[str, Any]:
        found = {}

        def sweep(tunings, *_):
            found.update({one.optimizer: one.base for one in tunings})
            return tune.Swept([], {}, {})

        monkeypatch.setattr(tune, "sweep", sweep)
        space = pathlib.Path(__file__).parents[2] / "configs" / "sweeps" / "learning_rate.py"
        command.run(["program", "--space", str(space), "--workdir", str(tmp_path), *arguments])
        return found

    return call


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config", "configs/digits_mlp.py", "--optimizers=rk4,heun"],
        ["-config", "configs/digits_mlp.py:adam", "-optimizers", "rk4,heun"],
        ["--optimizers=adam", "--config=digits_mlp", "--optimizers", "rk4,heun"],
        ["--optimizers=rk4,heun", "--config=configs/mnist_mlp.py", "--config=digits_mlp:sgd"],
    ],
)
def test_a_sweep_tunes_the_optimizers_that_it_names(tuned, arguments):
    found = tuned(*arguments, "--config.total_steps", "9", "--config.model.hidden_sizes=8")
    assert {name: base.optimizer.name for name, base in found.items()} == {
        "rk4": "rk4",
        "heun": "heun",
    }
    for base in found.values():
        assert (base.workload, base.total_steps, base.model.hidden_sizes) == ("digits_mlp", 9, (8,))


def test_a_sweep_reads_flag_files_and_keeps_the_words_of_the_variant(tuned, tmp_path):
    (tmp_path / "flags").write_text("--config=digits_mlp:adam,full\n--optimizers=rk4\n")
    found = tuned("--trials", "3", f"--flagfile={tmp_path}/flags")
    assert {name: base.batch_size for name, base in found.items()} == {"rk4": "full"}
