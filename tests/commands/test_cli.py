"""The command line as one thing: help of every command, the version, and one spelling of flags."""

import importlib
import re

import pytest
from console import rkbench

from rkbench import __version__
from rkbench.commands import cli, command_line


def shown(monkeypatch, capsys, *arguments):
    assert rkbench(monkeypatch, *arguments) == 0
    return capsys.readouterr().out


def test_version(monkeypatch, capsys):
    assert shown(monkeypatch, capsys, "--version") == f"rkbench {__version__}\n"


@pytest.mark.parametrize("name", cli._COMMANDS)
def test_help_of_every_command_names_it_and_lists_its_flags(monkeypatch, capsys, name):
    text = shown(monkeypatch, capsys, "help", name)
    assert text == shown(monkeypatch, capsys, name, "--help")
    assert f"rkbench {name}" in text or name in ("figure", "paper", "study")
    assert "-h" in text
    flags = set(re.findall(r"--(?:\[no\])?([a-z][\w-]*)", text.partition("absl's own")[0]))
    assert not [flag for flag in flags if "-" in flag]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train", {"config", "coordinator", "distributed", "process_id", "processes", "workdir"}),
        ("sweep", {"config", "optimizers", "sampler_seed", "shard", "space", "trials", "workdir"}),
    ],
)
def test_the_flags_of_absl_commands_are_listed_with_absls_own(monkeypatch, capsys, name, expected):
    own, _, inherited = shown(monkeypatch, capsys, "help", name).partition("absl's own")
    assert expected <= set(re.findall(r"^  --(?:\[no\])?(\w+):", own, re.M))
    assert "--verbosity" in inherited
    assert not re.search(r"--workdir\b", inherited)


def test_help_of_what_is_no_command_is_an_error(monkeypatch, capsys):
    assert rkbench(monkeypatch, "help", "trian") == 2
    assert "unknown command 'trian'; nearest: train" in capsys.readouterr().err


def test_every_command_is_a_row_of_the_one_table_with_a_module_that_runs():
    for module, text in cli._COMMANDS.values():
        assert callable(importlib.import_module(module).run)
        assert text


def test_dashes_are_underscores_in_flags_and_nowhere_else():
    parser = command_line.Parser()
    parser.add_argument("--draw_only", action="store_true")
    parser.add_argument("--title")
    parser.add_argument("words", nargs="*")
    found = parser.parse_args(["--draw-only", "--title=a-b", "x-y", "--", "--draw-only"])
    assert (found.draw_only, found.title) == (True, "a-b")
    assert found.words == ["x-y", "--draw-only"]


def test_absl_flags_take_dashes_too(monkeypatch, capsys):
    values = command_line.flag_values(__name__)
    # absl's own flags are the process's: with this one set, the next command would only parse.
    monkeypatch.setattr(values["only_check_args"], "_value", False)
    config = "--config=configs/digits_mlp.py:rk4"
    command_line.parse_flags(["program", "--only-check-args", config], values)
    assert values["only_check_args"].value is True
    assert rkbench(monkeypatch, "train", "--process-id=x") == 2
    assert "--process_id=x" in capsys.readouterr().err
