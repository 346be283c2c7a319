"""Each thing that can be added, added by its row alone and used from its name to a trained run.

docs/extend.md and the README say how many files each takes: one where one row is set here.
"""

import importlib
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rkbench import optimizers, workloads
from rkbench.commands import listing
from rkbench.configs import default, digits_mlp
from rkbench.configs.fields import Field, Role
from rkbench.configs.optimizers import BASELINES, COMPOSED, Composed, Factory
from rkbench.configs.sweeps.distributions import Uniform
from rkbench.errors import UserError
from rkbench.optimizers.baselines import Spending
from rkbench.records import identity
from rkbench.rk import PRECONDITIONERS, STEP_SIZES, TABLEAUS, Preconditioner, Tableau, stateless
from rkbench.sweep.space import of_optimizer
from rkbench.train import train_and_evaluate
from rkbench.trainer import config_checks
from rkbench.trainer.schedules import _SCHEDULES
from rkbench.workloads import datasets
from rkbench.workloads.tfds_source import TfdsSource

STEPS = 3
TINY = f"model.hidden_sizes=(4,),total_steps={STEPS},tensorboard=False,eval_every_steps=0"
TINY += ",train_eval_size=10,compiled_loops=off,checkpoint_every_steps=0"


def trained(workdir: pathlib.Path, variant: str) -> dict[str, Any]:
    """The record of a few steps on the digits."""
    return train_and_evaluate(digits_mlp.get_config(f"{variant},{TINY}"), workdir)


def assert_runs_everywhere(name: str, capsys, workdir: pathlib.Path, evaluations: int) -> None:
    """The name is listed, has a preset in every config, and trains at its cost."""
    listing.run(["rkbench list"])
    assert f"  {name} " in capsys.readouterr().out
    assert name in optimizers.names()
    for workload in workloads.names():
        module = importlib.import_module(f"rkbench.configs.{workload}")
        for words in ((), *((word,) for word in getattr(module, "VARIANTS", {}))):
            assert module.get_config(",".join((name, *words))).optimizer.name == name
    record = trained(workdir, name)
    assert record["status"] == "done"
    assert record["grad_evals"] == evaluations * STEPS


def assert_same_step(one: Any, other: Any) -> None:
    """The first step on the sum of squares."""
    params = jnp.arange(1.0, 4.0)
    updates = [
        optimizer.update(2 * params, optimizer.init(params), params, grad_fn=lambda p: 2 * p)[0]
        for optimizer in (one, other)
    ]
    np.testing.assert_allclose(*updates, rtol=1e-6)


def test_a_runge_kutta_method(monkeypatch, capsys, tmp_path):
    nystrom = Tableau("nystrom3", ((), (2 / 3,), (0, 2 / 3)), (1 / 4, 3 / 8, 3 / 8), order=3)
    monkeypatch.setitem(TABLEAUS, nystrom.name, nystrom)
    assert_runs_everywhere("nystrom3", capsys, tmp_path / "run", evaluations=3)


def signs(power: Any = 0.5) -> Preconditioner:
    """Each coordinate of the gradient by itself: sign(g) |g|^power."""

    def precondition(g):
        return jax.tree.map(lambda x: jnp.sign(x) * jnp.abs(x) ** jnp.asarray(power, x.dtype), g)

    return Preconditioner(lambda params: (), lambda gradient, state: (precondition, state))


def test_a_preconditioner_and_a_name_for_it(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(PRECONDITIONERS, "signs", signs)
    config: Any = digits_mlp.get_config("heun,preconditioner=signs,power=1")
    keywords = config.optimizer.to_dict()
    optimizer = optimizers.create(keywords.pop("name"), keywords.pop("learning_rate"), **keywords)
    assert_same_step(optimizer, optimizers.create("heun", config.optimizer.learning_rate))
    row = Composed({"tableau": "heun", "preconditioner": "signs"}, {"power": 0.5})
    monkeypatch.setitem(COMPOSED, "heun_signs", row)
    assert_runs_everywhere("heun_signs", capsys, tmp_path / "run", evaluations=2)


def test_a_step_size_rule_and_a_name_for_it(monkeypatch, capsys, tmp_path):
    def harmonic(c: Any = 0.1):
        return stateless(lambda start: c / (1.0 + start.count.astype(float)))

    monkeypatch.setitem(STEP_SIZES, "harmonic", harmonic)
    config: Any = digits_mlp.get_config("euler,step_size=harmonic,c=0.2")
    assert config.optimizer.learning_rate is None
    optimizer = optimizers.create("euler", step_size="harmonic", c=config.optimizer.c)
    assert_same_step(optimizer, optimizers.create("euler", 0.2))
    row = Composed({"tableau": "rk4", "step_size": "harmonic"}, {"c": 0.1})
    monkeypatch.setitem(COMPOSED, "rk4_harmonic", row)
    assert_runs_everywhere("rk4_harmonic", capsys, tmp_path / "run", evaluations=4)


def half_sgd(learning_rate: Any, share: Any = 0.5) -> optax.GradientTransformation:
    return optax.chain(optax.scale(share), optax.scale_by_learning_rate(learning_rate))


def test_a_baseline(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(BASELINES, "half_sgd", Factory(f"{__name__}:half_sgd", {"share": 0.5}))
    assert_runs_everywhere("half_sgd", capsys, tmp_path / "run", evaluations=1)


@pytest.mark.parametrize(
    ("function", "spending"),
    [("optax:lbfgs", Spending.BY_LOSS), ("optax.contrib:sophia", Spending.SCHEDULED)],
)
def test_a_baseline_of_optax_spends_what_it_spends_there(monkeypatch, function, spending):
    monkeypatch.setitem(BASELINES, "another", Factory(function))
    assert optimizers.spending("another") is spending


@pytest.mark.standard_promotion
def test_a_workload_on_a_dataset_of_tfds(monkeypatch, tmp_path):
    source = TfdsSource(
        "letters", "1.0.0", "http://127.0.0.1:9/", 3, (6, 6, 1), train_examples=40, test_examples=20
    )
    monkeypatch.setitem(datasets.TFDS, source.name, source)
    monkeypatch.setitem(workloads._IMAGE_CLASSIFICATION, "letters_mlp", ("letters", workloads._mlp))
    folder = tmp_path / source.name / source.version
    folder.mkdir(parents=True)
    for name in ("dataset_info.json", "features.json"):
        (folder / name).write_text("{}")
    rng = np.random.default_rng(0)
    arrays = {
        f"{split}_{name}": array
        for split, count in (("train", 40), ("test", 20))
        for name, array in (
            ("image", rng.integers(0, 256, (count, 6, 6, 1), np.uint8)),
            ("label", rng.integers(0, 3, count, np.int32)),
        )
    }
    monkeypatch.setattr(TfdsSource, "read", lambda self, prepared: arrays)
    assert "letters_mlp" in workloads.names()
    assert workloads.dataset_name("letters_mlp") == "letters"
    assert datasets.synthetic("letters", 2).image_shape == (6, 6, 1)
    assert datasets.published("letters") == (40, 20)
    record = trained(tmp_path / "run", f"adam,workload=letters_mlp,data_dir={tmp_path}")
    assert record["status"] == "done"
    assert record["data"]["name"] == "letters"


def test_a_schedule(monkeypatch, tmp_path):
    def linear(peak, total_steps, warmup_steps, end_factor):
        return optax.linear_schedule(peak, end_factor * peak, total_steps)

    monkeypatch.setitem(_SCHEDULES, "linear", linear)
    assert trained(tmp_path / "run", "euler,schedule.name=linear")["status"] == "done"


@pytest.mark.parametrize("path", ["noise", "augment.noise"])
def test_a_config_field(monkeypatch, tmp_path, path):
    before = identity.plain_config(digits_mlp.get_config(f"euler,{TINY}"))
    old_hash = identity.config_hash(before)
    field = Field(0.0, Role.METHOD, most=1, compiled=False, newer=True)
    monkeypatch.setitem(default.FIELDS, path, field)
    # Range.
    with pytest.raises(UserError, match=rf"{path}=2.0 must lie between 0 and 1"):
        config_checks.check(digits_mlp.get_config(f"euler,{path}=2"))
    # The default changes no hash, other values do, and older records have the default.
    config: Any = digits_mlp.get_config(f"euler,{TINY}")
    assert identity.config_hash(identity.plain_config(config)) == old_hash
    noisy = identity.plain_config(digits_mlp.get_config(f"euler,{TINY},{path}=0.5"))
    assert identity.config_hash(noisy) != old_hash
    plain = identity.plain_config(config)
    assert identity.comparable({"config": before}) == identity.comparable({"config": plain})
    # A record tells it.
    if "." in path:
        record = train_and_evaluate(config, tmp_path / "run")
        assert record["config"]["augment"]["noise"] == 0.0
    # Its role: a sweep may search a method's fields.
    else:
        assert path in default.names(role=Role.METHOD) & default.names(compiled=False)
        assert of_optimizer({"euler": {path: Uniform(0.0, 1.0)}}, config)


def test_the_fields_of_a_group_have_one_role():
    """Hashes, compilation and scores know groups as a whole."""
    for what in ("role", "compiled"):
        groups: dict[str, set] = {}
        for path, field in default.FIELDS.items():
            groups.setdefault(path.split(".")[0], set()).add(getattr(field, what))
        assert {name: found for name, found in groups.items() if len(found) > 1} == {}
