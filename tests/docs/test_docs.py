"""The site builds without a warning, the notebook runs, and so does what the pages tell to run."""

import contextlib
import io
import os
import pathlib
import re
import runpy
import shlex
import warnings

import pytest

from rkbench import optimizers, plugins, rk, scoring
from rkbench.commands import cli

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / "docs"
TABLES = runpy.run_path(str(DOCS / "tables.py"))  # that the pages show where the site is built
PAGES = sorted(
    [
        *(
            page
            for page in DOCS.rglob("*.md")
            if not page.relative_to(DOCS).parts[0].startswith("_")
        ),
        ROOT / "CONTRIBUTING.md",
    ]
)
# Pages whose Python stands by itself, block after block.
COMPLETE = ("get_started", "optimizers", "extend", "concepts/gradient_flow", "concepts/accounting")
COMPLETE += ("api/train",)


def _blocks(page: pathlib.Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def _commands(page: pathlib.Path) -> list[list[str]]:
    """The arguments of every call of rkbench on the page, without those of other programs."""
    lines = "".join(_blocks(page, "sh")).replace("\\\n", " ").splitlines()
    calls = []
    for line in lines:
        words = shlex.split(line, comments=True)
        if words and words[0].removeprefix(".venv/bin/") == "rkbench":
            calls.append(words[1:])
    return calls


def _from(module, value) -> bool:
    return getattr(value, "__module__", None) == module.__name__


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site's folder."""
    build = pytest.importorskip("sphinx.cmd.build", reason="needs the extra docs")
    output = tmp_path_factory.mktemp("site")
    said = io.StringIO()
    arguments = ["-b", "html", "-W", "--keep-going", "-q", str(DOCS), str(output)]
    with contextlib.redirect_stderr(said), warnings.catch_warnings(action="ignore"):
        code = build.build_main(arguments)
    assert code == 0, said.getvalue()
    return output


def test_site_builds_without_a_warning_and_asks_no_network(site):
    loaded = re.compile(r"""(?:<script|<link|<img)[^>]*(?:src|href)=["'](?:https?:)?//""")
    asking = [page.name for page in site.rglob("*.html") if loaded.search(page.read_text())]
    assert asking == []


def test_every_public_name_is_in_the_reference(site):
    inventory = pytest.importorskip("sphinx.util.inventory").InventoryFile
    data = inventory.loads((site / "objects.inv").read_bytes(), uri="").data
    named = set(data["py:function"]) | set(data["py:class"])
    own = [name for name, value in vars(optimizers).items() if _from(optimizers, value)]
    public = {
        f"{module.__name__}.{name}"
        for module, exported in ((rk, rk.__all__), (scoring, scoring.__all__), (optimizers, own))
        for name in exported
        if name[0] != "_" and callable(getattr(module, name)) and name != name.upper()
    }
    assert public
    assert public - named == set()


def test_notebook_runs_and_is_committed_executed(monkeypatch):
    monkeypatch.delenv("MPLBACKEND", raising=False)  # commands in this process set it for files
    nbclient = pytest.importorskip("nbclient", reason="needs the extra docs")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    committed = nbformat.read(DOCS / "digits.ipynb", as_version=4)
    notebook = nbformat.read(DOCS / "digits.ipynb", as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()

    def kinds(outputs):
        return sorted({kind for output in outputs for kind in output.get("data", {"text": ""})})

    for then, now in zip(committed.cells, notebook.cells, strict=True):
        if now.cell_type == "code":
            assert then.execution_count == now.execution_count
            assert kinds(then.outputs) == kinds(now.outputs)
    # The two pictures must be worth showing: every method learned the digits.
    percents = re.findall(r"([\d.]+) ±", str(notebook.cells[-2].outputs))
    assert len(percents) == 3
    assert all(float(percent) > 95 for percent in percents)


@pytest.mark.parametrize("page", COMPLETE)
def test_python_of_a_page_runs_as_it_stands(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plugins.OPTIMIZERS, "_found", {})  # for what the page registers
    blocks = _blocks(DOCS / f"{page}.md", "python")
    assert blocks
    names: dict = {}
    for block in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(block, names)
        # A comment behind print() that is a number says what comes out.
        promised = re.findall(r"^print\(.*\)  # (\d+)$", block, re.M)
        assert set(promised) <= set(printed.getvalue().split())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_on_a_page_exist_with_their_flags(page, capsys):
    for command, *arguments in _commands(page):
        assert command in cli._COMMANDS
        flags = {word.split("=")[0] for word in arguments if word.startswith("--")}
        own = {flag for flag in flags if not flag.startswith("--config")}
        if command not in ("train", "sweep"):  # theirs are absl's, which --help names in part
            with contextlib.suppress(SystemExit):
                cli.importlib.import_module(cli._COMMANDS[command][0]).run([command, "--help"])
            known = set(re.findall(r"--[\w-]+", capsys.readouterr().out))
            assert own <= known, f"rkbench {command}: {own - known}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_configs_on_a_page_can_be_made(page):
    configs = [
        word.removeprefix("--config=")
        for _, *arguments in _commands(page)
        for word in arguments
        if word.startswith("--config=") and "$" not in word
    ]
    for config in configs:
        file, _, variant = config.partition(":")
        module = cli.importlib.import_module(f"rkbench.configs.{pathlib.Path(file).stem}")
        assert (ROOT / file).is_file()
        assert module.get_config(*([variant] if variant else [])).workload


def test_gallery_shows_every_picture_of_the_results():
    shown = set(re.findall(r"\.\./(results/[\w./-]+\.png)", (DOCS / "gallery.md").read_text()))
    there = {str(file.relative_to(ROOT)) for file in (ROOT / "results").rglob("*.png")}
    assert shown == there


def test_tables_name_every_optimizer_of_our_own():
    """By hand those that have something to explain; tableaus also where the site is built."""
    page = (DOCS / "optimizers.md").read_text().split("## Step-size rules")[0]
    named = set(re.findall(r"`([^`]+)`", " ".join(re.findall(r"^\|([^|]*)\|", page, re.M))))
    named = {name for name in named if not name.startswith("optax:")}
    own = {name for name in optimizers.names() if not name.startswith("optax:")}
    assert named <= own
    generated = set(re.findall(r"^\| `(\w+)` \|", TABLES["tableaus"](), re.M))
    assert named | generated == own
    assert "<!-- tableaus -->" in (DOCS / "api" / "rk.md").read_text()


def test_a_tableaus_equations_are_written_out():
    (row,) = re.findall(r"^\| `kutta3`.*", TABLES["tableaus"](), re.M)
    assert row == (
        r"| `kutta3` | 3 | 3 | $g^* = \frac{1}{6} g_1 + \frac{2}{3} g_2 + \frac{1}{6} g_3$, "
        r"$\theta_2 = \theta - h \left(\frac{1}{2} g_1\right)$, "
        r"$\theta_3 = \theta - h \left(-g_1 + 2 g_2\right)$ |"
    )


def test_links_lead_to_files():
    broken = [
        (page.name, target)
        for page in PAGES
        for target in re.findall(r"\]\(\s*([^)\s#:]+)[^)]*\)", page.read_text(encoding="utf-8"))
        if not os.path.exists(page.parent / target)
        and not target.startswith("_results")
        and "/" in target
    ]
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_accuracies_on_a_page_stand_in_the_results(page):
    results = "".join(file.read_text() for file in (ROOT / "results").rglob("*.md"))
    shown = re.findall(r"\d+\.\d+ ± \d\.\d+", page.read_text(encoding="utf-8"))
    assert [accuracy for accuracy in shown if accuracy not in results] == []
