"""A user's project plugs in optimizers, workloads and datasets, and trains with them by name."""

import importlib.metadata
import json
import sys
from typing import Any

import numpy as np
import optax
import pytest
from console import rkbench

from rkbench import optimizers, plugins, records, train, workloads
from rkbench.configs import digits_mlp
from rkbench.errors import UserError
from rkbench.plugins import Registry
from rkbench.plugins import project as user_code
from rkbench.records import archive
from rkbench.workloads import datasets

PLUGIN = """
import flax.linen as nn
import numpy as np
import optax
from rkbench import optimizers, workloads
from rkbench.rk import Tableau

def pulled(learning_rate, strength=0.5, every=3, nesterov=False):
    assert isinstance(every, int) and isinstance(strength, float)
    return optax.chain(optax.add_decayed_weights(strength), optax.sgd(learning_rate))

class Linear(nn.Module):
    width: int
    classes: int

    @nn.compact
    def __call__(self, images, train):
        del train
        hidden = nn.Dense(self.width)(images.reshape(len(images), -1))
        return nn.Dense(self.classes)(hidden)

def read(data_dir):
    rng = np.random.default_rng(0)
    found = {}
    for split, size in (("train", 40), ("test", 12)):
        found[f"{split}_image"] = rng.integers(0, 256, (size, 4, 4, 1), np.uint8)
        found[f"{split}_label"] = rng.integers(0, 3, size, np.int32)
    return found

def register():
    optimizers.register("pulled", pulled, learning_rate=0.25)
    third = Tableau("third", a=((), (1 / 3,), (0, 2 / 3)), b=(1 / 4, 0, 3 / 4), order=3)
    optimizers.register("third", third)
    shape = {"image_shape": (4, 4, 1), "num_classes": 3, "train_examples": 40, "test_examples": 12}
    workloads.register_dataset("squares", read, **shape)
    model = lambda config, classes: Linear(config.model.width, classes)
    workloads.register("squares_linear", dataset="squares", model=model, convolves=False)
"""
CONFIG = """
from ml_collections import ConfigDict
from rkbench.configs import common, default
import tiny_plugin

tiny_plugin.register()
PRESETS = {"runge_kutta": {"learning_rate": 0.125}}

def get_config(variant="pulled"):
    config = default.get_config()
    config.workload = "squares_linear"
    config.model = ConfigDict({"width": 5})
    config.total_steps, config.batch_size, config.tensorboard = 3, 8, False
    return common.with_variant(config, variant, PRESETS)
"""


@pytest.fixture(autouse=True)
def unplugged(monkeypatch):
    """Each test has registries, a path and entry points of its own."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("OPTIMIZERS", "WORKLOADS", "DATASETS"):
        monkeypatch.setattr(getattr(plugins, name), "_found", {})
    monkeypatch.setattr(plugins._Installed, "begun", False)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: ())
    yield
    sys.modules.pop("tiny_plugin", None)


@pytest.fixture
def project(tmp_path):
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / "tiny_plugin.py").write_text(f'__version__ = "2.5"\n{PLUGIN}')
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "mine.py").write_text(CONFIG)
    return tmp_path


def trained(monkeypatch, project, variant, *flags):
    workdir = project / "runs" / variant.split(",")[0]
    config = f"--config={project}/configs/mine.py:{variant}"
    code = rkbench(monkeypatch, "train", config, f"--workdir={workdir}", *flags)
    return code or 0, workdir


def test_a_config_trains_with_what_it_registers_and_the_record_tells_the_plugin(
    monkeypatch, project, capsys
):
    code, workdir = trained(monkeypatch, project, "pulled,every=4,strength=1")
    assert code == 0, capsys.readouterr().err
    record = json.loads((workdir / "run.json").read_text())
    own = {"plugin": "tiny_plugin", "version": "2.5"}
    assert record["plugins"] == {
        "optimizer": {"name": "pulled", **own},
        "workload": {"name": "squares_linear", **own},
        "dataset": {"name": "squares", **own},
    }
    assert record["versions"]["tiny_plugin"] == "2.5"
    assert record["config"]["optimizer"] == {
        **{"name": "pulled", "learning_rate": 0.25, "strength": 1.0, "every": 4},
        "nesterov": False,
    }
    assert record["grad_evals"] == 3
    assert record["data"]["name"] == "squares"
    assert records.read_record(workdir / "run.json")["plugins"] == record["plugins"]
    assert archive.merged([records.Run(workdir)])["plugins"] == record["plugins"]


def test_a_registered_tableau_composes_and_takes_the_familys_preset(monkeypatch, project, capsys):
    code, workdir = trained(monkeypatch, project, "third,preconditioner=adagrad,eps=1")
    assert code == 0, capsys.readouterr().err
    record = json.loads((workdir / "run.json").read_text())
    assert record["grad_evals"] == 9  # three stages in each of three steps
    assert record["config"]["optimizer"]["learning_rate"] == 0.125
    assert record["config"]["optimizer"]["eps"] == 1.0


def test_a_run_does_not_go_on_with_another_plugin_of_the_same_names(monkeypatch, project, capsys):
    _, workdir = trained(monkeypatch, project, "pulled")
    record = json.loads((workdir / "run.json").read_text())
    record["plugins"]["optimizer"]["plugin"] = "theirs"
    (workdir / "run.json").write_text(json.dumps(record))
    code, _ = trained(monkeypatch, project, "pulled", "--config.seeds=0,1")
    assert code == 2
    assert "optimizer: 'theirs' -> 'tiny_plugin'" in capsys.readouterr().err


class EntryPoint:
    name, value = "mylab", "mylab.rkbench_plugin"

    class dist:
        name, version = "mylab-tools", "7.1"

    def __init__(self, found):
        self.found, self.loads = found, 0

    def load(self):
        self.loads += 1
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


def installed(monkeypatch, found):
    entry = EntryPoint(found)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [entry])
    return entry


def halving(learning_rate):
    return optax.sgd(learning_rate)


def test_an_installed_plugin_is_loaded_once_and_only_for_names_that_are_not_rkbenchs(monkeypatch):
    entry = installed(monkeypatch, lambda: optimizers.register("halving", halving))
    optimizers.create("rk4", 0.1)
    digits_mlp.get_config("rk4")
    assert entry.loads == 0
    config = digits_mlp.get_config("halving")
    assert config.optimizer.to_dict() == {"name": "halving", "learning_rate": 1e-3}
    optimizers.create("halving", 0.1)
    assert optimizers.names()[-1] == "halving"
    assert entry.loads == 1
    assert plugins.used("halving", "digits_mlp", "digits") == {
        "optimizer": {"name": "halving", "plugin": "mylab-tools", "version": "7.1"}
    }


def test_the_python_interface_trains_with_an_installed_plugin(monkeypatch, tmp_path):
    installed(monkeypatch, lambda: optimizers.register("halving", halving, evaluations=2))
    config = digits_mlp.get_config("halving")
    config.update({"total_steps": 2, "tensorboard": False})
    record = train.train_and_evaluate(config.lock(), tmp_path / "run")
    assert record["grad_evals"] == 4
    assert record["plugins"]["optimizer"]["plugin"] == "mylab-tools"


def test_the_list_shows_plugins(monkeypatch, capsys):
    installed(monkeypatch, lambda: optimizers.register("halving", halving))
    assert rkbench(monkeypatch, "list") == 0
    assert "  halving " in capsys.readouterr().out


def test_a_plugin_that_fails_is_named_in_one_line(monkeypatch, capsys):
    installed(monkeypatch, ImportError("no module torch"))
    assert rkbench(monkeypatch, "list") == 2
    error = capsys.readouterr().err
    assert error == (
        "rkbench: error: plug-in mylab (mylab.rkbench_plugin): ImportError: no module torch\n"
    )


SAID: Any = {"image_shape": (3, 3, 1), "num_classes": 2, "train_examples": 2, "test_examples": 2}
NUMBER: Any = 3


def without_rate(strength):
    return optax.sgd(strength)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: optimizers.register("rk4", halving), "'rk4' is rkbench's own"),
        (lambda: optimizers.register("optax:adam", halving), "a name has a letter first"),
        (lambda: optimizers.register("a,b", halving), "a name has a letter first"),
        (lambda: optimizers.register("mine", without_rate), "no argument learning_rate"),
        (lambda: optimizers.register("mine", NUMBER), "a function or a Tableau is needed"),
        (lambda: workloads.register("mnist_mlp", NUMBER), "'mnist_mlp' is rkbench's own"),
        (lambda: workloads.register("mine"), "either a factory, or a dataset and a model"),
        (lambda: workloads.register("mine", dataset="mnist"), "either a factory, or"),
        (
            lambda: workloads.register_dataset("mnist", lambda data_dir: {}, **SAID),
            "'mnist' is rkbench's own",
        ),
    ],
)
def test_what_cannot_be_registered(call, message):
    with pytest.raises(UserError, match=message):
        call()
    assert plugins.versions() == {}


def test_two_plugins_do_not_share_a_name(monkeypatch):
    optimizers.register("halving", halving)
    optimizers.register("halving", halving)  # the same plug-in may
    installed(monkeypatch, lambda: optimizers.register("halving", halving))
    with pytest.raises(UserError, match="is registered by test_register and by mylab-tools"):
        optimizers.names()


def test_a_dataset_is_what_it_was_said_to_be():
    def read(data_dir):
        images = np.zeros((2, 3, 3, 1), np.uint8)
        labels = np.zeros(2, np.int64)
        return {f"{s}_image": images for s in ("train", "test")} | {
            f"{s}_label": labels for s in ("train", "test")
        }

    workloads.register_dataset("mine", read, **SAID)
    assert datasets.published("mine") == (2, 2)
    assert datasets.synthetic("mine", 5).image_shape == (3, 3, 1)
    with pytest.raises(UserError, match="train_label must be int32 of shape"):
        datasets.load("mine")


def test_what_a_file_registers_has_its_digest_as_version(tmp_path):
    registry = Registry("thing")
    file = tmp_path / "mine.py"
    file.write_text("def add(registry):\n    registry.add('a', 1)\n")
    user_code.run(file)["add"](registry)
    ((name, origin),) = registry.origins()
    assert (name, origin.plugin) == ("a", "mine.py")
    assert origin.version.startswith("sha256:")
