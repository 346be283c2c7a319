"""The project's description agrees with the code: packages, imports, versions, start-up, pins."""

import ast
import importlib.metadata
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import rkbench

ROOT = pathlib.Path(rkbench.__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# Needed at run time by other packages that do not declare them (reasons in pyproject.toml).
ONLY_INDIRECT = {"importlib-resources", "tensorboard", "tensorflow", "tensorflow-cpu"}


def _imported(folders) -> set[str]:
    """The top-level names that the Python files in these folders import."""
    names = set()
    for folder in folders:
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Import):
                    names |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"rkbench"}


def _distributions(modules) -> set[str]:
    """The canonical names of the distributions that these modules come from."""
    # "google" is a namespace that several distributions share; we use protobuf's part.
    providers = {**importlib.metadata.packages_distributions(), "google": ["protobuf"]}
    return {canonicalize_name(providers[module][0]) for module in modules}


def _requirements(*extras) -> list[Requirement]:
    project = PYPROJECT["project"]
    requirements = [Requirement(line) for line in project["dependencies"]]
    remaining = list(extras)
    while remaining:
        optional = map(Requirement, project["optional-dependencies"][remaining.pop()])
        for requirement in optional:
            if requirement.name == project["name"]:  # rkbench[docs] stands for what it has
                remaining += requirement.extras
            else:
                requirements.append(requirement)
    return requirements


def _names(requirements) -> set[str]:
    return {canonicalize_name(requirement.name) for requirement in requirements}


def test_every_package_has_an_init():
    folders = {file.parent for file in (ROOT / "rkbench").rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


@pytest.mark.parametrize("name", ["configs", "workloads"])
def test_the_top_level_links_to_what_is_installed_below_the_package(name):
    assert (ROOT / name).resolve() == (ROOT / "rkbench" / name).resolve()


def test_dependencies_are_what_the_packages_import():
    imported = _distributions(_imported(["rkbench"]))
    assert imported - ONLY_INDIRECT == _names(_requirements()) - ONLY_INDIRECT


def test_tests_import_nothing_undeclared():
    # yaml and packaging come with ml_collections and pytest.
    transitive = {"packaging", "pyyaml"}
    ours = {file.stem for file in (ROOT / "tests").rglob("*.py")} | {"scripts"}
    imported = _distributions(_imported(["tests"]) - ours)
    assert imported - _names(_requirements("test")) - transitive == set()


@pytest.mark.parametrize("requirement", _requirements("test"), ids=str)
def test_pins_satisfy_the_lower_bounds(requirement):
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    pinned = {canonicalize_name(name): version for name, version in pins.items()}
    assert requirement.specifier.contains(Version(pinned[canonicalize_name(requirement.name)]))


def test_constraints_are_pins_and_nothing_else():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    others = [
        line
        for line in lines
        if not line.startswith("#") and not re.fullmatch(r"[\w.-]+==[\w.]+", line)
    ]
    assert others == []


def test_citation_and_changelog_know_the_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == rkbench.__version__
    assert citation["license"] == PYPROJECT["project"]["license"]
    assert re.search(r"^## \[(Unreleased|[\d.]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)


def test_files_that_the_readme_links_to_exist():
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.standard_promotion
def test_the_readmes_python_runs_as_pasted_and_prints_what_it_says(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip() == code.splitlines()[-1].rpartition("  # ")[2]


def test_the_readme_is_read_in_two_minutes():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 100


def test_importing_the_package_imports_nothing_heavy():
    heavy = "{'jax', 'numpy', 'tensorflow', 'flax', 'optax'}"
    program = f"import sys, rkbench; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout.strip()) == (0, "")


# What pip builds of a folder: a wheel, and one for `pip install --editable`.
BUILD = """
from setuptools import build_meta
build_meta.build_wheel("wheel"), build_meta.build_editable("editable")
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Copies of the sources with a wheel and an editable wheel, unpacked as pip would."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "rkbench", source / "rkbench", ignore=ignored)
    for name in ("configs", "workloads"):
        (source / name).symlink_to(pathlib.Path("rkbench", name))
    for form in ("wheel", "editable"):
        (source / form).mkdir()
    subprocess.run([sys.executable, "-c", BUILD], cwd=source, check=True, capture_output=True)
    for form in ("wheel", "editable"):
        (wheel,) = (source / form).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(source / form)
        wheel.unlink()
    return source


def test_the_wheel_holds_rkbench_and_nothing_else(installed):
    folders = [path for path in (installed / "wheel").iterdir() if path.suffix != ".dist-info"]
    assert [folder.name for folder in folders] == ["rkbench"]
    sources = {path.relative_to(ROOT) for path in (ROOT / "rkbench").rglob("*") if path.is_file()}
    packed = {path.relative_to(installed / "wheel") for path in folders[0].rglob("*")}
    assert {path for path in sources if path.suffix != ".pyc"} - packed == set()
    assert pathlib.Path("rkbench/configs/sweeps/learning_rate.py") in packed
    assert pathlib.Path("rkbench/report/assets/page.html") in packed


@pytest.mark.parametrize(
    ("form", "ways"), [("wheel", ["console", "module", "python"]), ("editable", ["console"])]
)
def test_a_project_with_configs_and_workloads_of_its_own_trains_in_every_way(
    installed, form, ways, tmp_path
):
    for folder in ("configs", "workloads"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text("")
    (tmp_path / "workloads" / "penalty.py").write_text("L2 = 0.125\n")
    (tmp_path / "configs" / "mine.py").write_text(
        "from rkbench.configs import digits_mlp\n"
        "from workloads import penalty\n"
        "import configs\n"
        "def get_config(variant='adam'):\n"
        "    config = digits_mlp.get_config(variant)\n"
        "    config.l2 = penalty.L2\n"
        "    return config\n"
    )
    program = [sys.executable, ROOT / "tests" / "in_a_project.py", installed / form, ROOT, *ways]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    package = installed / ("wheel" if form == "wheel" else "") / "rkbench" / "__init__.py"
    for way in ways:
        assert json.loads((tmp_path / f"{way}.json").read_text()) == {
            "status": "done",
            "l2": 0.125,
            "rkbench": str(package),
            "configs": str(tmp_path / "configs" / "__init__.py"),
            "workloads": str(tmp_path / "workloads" / "__init__.py"),
        }
