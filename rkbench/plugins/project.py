"""Python files of the user's, and the project that they import their modules from."""

import pathlib
import runpy
import sys
from typing import Any

import rkbench

_PACKAGE = pathlib.Path(rkbench.__file__).resolve().parent
_MARKS = ("pyproject.toml", "setup.py", "setup.cfg", ".git")


def run(file: pathlib.Path) -> dict[str, Any]:
    """The names that the file defines. The file is code: it must be one that the user trusts.

    Its `folders` come to the end of `sys.path` and stay there, as what it registers may import
    more of its project when it is called. At the end they hide no installed module.
    """
    for folder in map(str, folders(file)):
        if folder not in sys.path:
            sys.path.append(folder)
    return runpy.run_path(str(file))


def folders(file: pathlib.Path) -> list[pathlib.Path]:
    """Where a file's imports are looked for, beside what is installed.

    These are its project, the nearest folder above it that has a pyproject.toml, setup.py,
    setup.cfg or .git, and, unless it lies in a package, the file's own folder, as for any script.
    Without such a mark the project is the folder that holds the file's package or folder. Files of
    rkbench need neither.
    """
    file = file.resolve()
    if _PACKAGE in file.parents:
        return []
    top = file.parent  # the outermost package, or the folder
    while (top.parent / "__init__.py").is_file():
        top = top.parent
    marked = (folder for folder in file.parents if any((folder / m).exists() for m in _MARKS))
    project = next(marked, top.parent)
    own = [] if (file.parent / "__init__.py").is_file() else [file.parent]
    return list(dict.fromkeys([project, *own]))
