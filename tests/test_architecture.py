"""The tree shows the architecture: imports go one way, from each package to those below it."""

import ast
import pathlib

import pytest

import rkbench

ROOT = pathlib.Path(rkbench.__file__).parent

# From the bottom to the top. A module may import from its own layer and from those before it.
LAYERS = (
    ("__init__", "texts", "errors", "files", "paths", "plugins"),
    ("rk", "records", "workloads", "configs", "statistics"),
    ("optimizers", "drawing"),
    ("step",),
    ("trainer",),
    ("train", "scoring"),
    ("sweep", "comparison", "paper"),
    ("report", "verify", "bench"),
    ("commands",),
    ("main", "__main__"),
)
LEVEL = {name: level for level, layer in enumerate(LAYERS) for name in layer}
MOST_FLAT = 10


def _room(file: pathlib.Path) -> str:
    """The package below `rkbench` that a file lies in, or its own name."""
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


def _imported(file: pathlib.Path) -> set[str]:
    """The rooms that a file imports from, also within its functions."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "rkbench":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rkbench."):
            found.add(str(node.module).split(".")[1])
        elif isinstance(node, ast.Import):
            names = (alias.name.split(".") for alias in node.names)
            found |= {words[1] for words in names if words[0] == "rkbench" and len(words) > 1}
    return {name if name in LEVEL else "__init__" for name in found}


@pytest.mark.parametrize("file", sorted(ROOT.rglob("*.py")), ids=str)
def test_imports_go_down(file):
    level = LEVEL[_room(file)]
    upward = {name for name in _imported(file) if LEVEL[name] > level}
    assert not upward, f"{file.relative_to(ROOT)} imports from above: {sorted(upward)}"


def test_rooms_of_one_layer_do_not_import_each_other():
    arrows = {
        (room, other)
        for file in ROOT.rglob("*.py")
        for room in [_room(file)]
        for other in _imported(file) - {room}
        if LEVEL[room] == LEVEL[other]
    }
    both_ways = {arrow for arrow in arrows if arrow[::-1] in arrows}
    assert both_ways == set()


def test_few_files_lie_flat():
    flat = [file.name for file in ROOT.glob("*.py")]
    assert len(flat) <= MOST_FLAT, flat
