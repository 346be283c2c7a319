"""Trains from the working folder, a user's project, in several ways, each in a forked process.

    python in_a_project.py INSTALLED ROOT WAY...

INSTALLED is a folder with rkbench as `pip` would install it, and comes before ROOT, the checkout,
which leaves `sys.path`.
"""

import importlib
import json
import os
import pathlib
import runpy
import site
import sys
import traceback

FLAGS = ["--config=configs/mine.py:rk4", "--config.total_steps=2", "--config.tensorboard=false"]


def console(workdir):
    from rkbench.commands import cli

    sys.argv = ["rkbench", "train", *FLAGS, f"--workdir={workdir}"]
    cli.main()


def module(workdir):
    sys.path.insert(0, os.getcwd())  # as `python -m` does
    sys.argv = ["main.py", *FLAGS, f"--workdir={workdir}"]
    runpy.run_module("rkbench.main", run_name="__main__", alter_sys=True)


def python(workdir):
    sys.path.insert(0, os.getcwd())  # as an interactive Python does
    from rkbench import train

    mine = importlib.import_module("configs.mine")  # the project's, not this one's

    config = mine.get_config("rk4")
    config.total_steps, config.tensorboard = 2, False
    train.train_and_evaluate(config, workdir)


def shown(workdir):
    import rkbench

    record = json.loads((pathlib.Path(workdir) / "run.json").read_text())
    imported = {name: sys.modules[name].__file__ for name in ("configs", "workloads")}
    return {
        "status": record["status"],
        "l2": record["config"]["l2"],
        "rkbench": rkbench.__file__,
    } | imported


def child(way):
    try:
        try:
            way(way.__name__)
        except SystemExit as stop:  # as a command ends
            if stop.code:
                raise
        pathlib.Path(f"{way.__name__}.json").write_text(json.dumps(shown(way.__name__)))
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main():
    installed, root, *ways = sys.argv[1:]
    sys.path[:] = [folder for folder in sys.path[1:] if os.path.realpath(folder) != root]
    # Nor must the checkout's own editable installation be found in place of the tested one.
    for name in [name for name in sys.modules if name.startswith("__editable__")]:
        del sys.modules[name]
    sys.meta_path[:] = [
        finder
        for finder in sys.meta_path
        if "__editable__" not in getattr(finder, "__module__", "")
    ]
    sys.path_importer_cache.clear()
    sys.path.insert(0, installed)
    site.addsitedir(installed)  # what is installed editably is found by a .pth file
    import flax.linen  # noqa: F401 (imported once, for all ways)
    import optax  # noqa: F401
    import orbax.checkpoint  # noqa: F401

    for way in [globals()[name] for name in ways]:
        if (pid := os.fork()) == 0:
            os._exit(child(way))
        assert os.waitpid(pid, 0)[1] == 0, way.__name__


if __name__ == "__main__":
    main()
