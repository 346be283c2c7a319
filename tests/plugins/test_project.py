"""Config files of the user's import the modules of their project, and hide nothing installed."""

import pathlib
import sys

import pytest

from rkbench.configs import digits_mlp
from rkbench.plugins import project


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def made(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_marked_project_is_found_from_any_depth(tmp_path):
    made(tmp_path / "pyproject.toml")
    file = made(tmp_path / "experiments" / "may" / "mine.py")
    assert project.folders(file) == [tmp_path, file.parent]


def test_the_file_of_a_package_is_imported_from_above_the_package(tmp_path):
    for folder in ("outer", "outer/configs"):
        made(tmp_path / folder / "__init__.py")
    file = made(tmp_path / "outer" / "configs" / "mine.py")
    assert project.folders(file) == [tmp_path]


def test_the_file_of_a_plain_folder_finds_its_neighbours_and_the_folder_itself(tmp_path):
    made(tmp_path / "my_configs" / "helper_of_mine.py", "L2 = 0.5")
    text = "from helper_of_mine import L2\nfrom my_configs.helper_of_mine import L2 as same"
    names = project.run(made(tmp_path / "my_configs" / "mine.py", text))
    assert names["L2"] == names["same"] == 0.5


def test_a_link_is_followed_as_for_any_script(tmp_path):
    file = made(tmp_path / "project" / "configs" / "mine.py")
    (tmp_path / "link.py").symlink_to(file)
    assert project.folders(tmp_path / "link.py")[0] == tmp_path / "project"


def test_what_is_installed_is_not_hidden(tmp_path):
    made(tmp_path / "optax.py", "raise AssertionError")
    made(tmp_path / "json.py", "raise AssertionError")
    file = made(tmp_path / "mine.py", "import optax, json\nname = optax.__name__")
    assert project.run(file)["name"] == "optax"
    assert sys.path[-1] == str(tmp_path)


def test_the_configs_of_rkbench_change_no_path():
    before = list(sys.path)
    project.run(pathlib.Path(digits_mlp.__file__))
    assert sys.path == before
