import importlib
import inspect
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from rkbench import optimizers, workloads
from rkbench.commands import command_line
from rkbench.configs import common, default
from rkbench.optimizers.rk_methods import TERMS

CONFIGS = pathlib.Path(common.__file__).parent
DEFAULT: dict[str, Any] = default.get_config().to_dict()
WORKLOADS = workloads.names()
MODULES = {
    workload: importlib.import_module(f"rkbench.configs.{workload}") for workload in WORKLOADS
}
WORDS = {workload: tuple(getattr(MODULES[workload], "VARIANTS", {})) for workload in WORKLOADS}
EVERY_PRESET = [
    (workload, ",".join((optimizer, *words)))
    for workload in WORKLOADS
    for optimizer in (*common.OPTIMIZERS, "optax:lion")
    for words in ((), *((word,) for word in WORDS[workload]))
]


def get_config(workload, variant) -> Any:
    return MODULES[workload].get_config(variant)


def leaves(config, prefix=""):
    for key, value in config.items():
        if hasattr(value, "items"):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def from_flags(preset, *overrides):
    """The config as the command line gives it."""
    arguments = (f"--config={CONFIGS}/{preset}", *overrides)
    values: Any = command_line.flag_values(__name__)
    command_line.parse_flags(["program", *arguments], values)
    return values.config.config()


@pytest.mark.parametrize("workload", WORKLOADS)
def test_every_preset_has_the_default_fields_and_makes_its_optimizer(workload):
    presets = [variant for name, variant in EVERY_PRESET if name == workload]
    assert presets
    for variant in presets:
        check_preset(workload, variant)


def check_preset(workload, variant):
    config = get_config(workload, variant)
    assert config.workload == workload
    assert set(config) == set(DEFAULT)
    for group in ("schedule", "augment"):
        assert set(config[group]) == set(DEFAULT[group])
    keywords = config.optimizer.to_dict()
    name, learning_rate = keywords.pop("name"), keywords.pop("learning_rate")
    optimizers.create(name, learning_rate, **keywords)
    assert config.schedule.name == "constant" or learning_rate is not None
    assert (config.batch_size == "full") == variant.endswith(",full")
    unset = {key for key, value in leaves(config) if value is None}
    assert unset <= {"data_dir", "optimizer.learning_rate"}


@pytest.mark.parametrize("workload", WORKLOADS)
def test_every_optimizer_has_a_preset_and_the_docstring_says_what_one_wants_to_know(workload):
    module = MODULES[workload]
    assert set(module.PRESETS) <= {*common.OPTIMIZERS, common.FAMILY}
    for optimizer in common.OPTIMIZERS:
        assert module.get_config(optimizer).optimizer.name == optimizer
    for word in ("Reference:", "Expected:", "Cost", f"--config=configs/{workload}.py"):
        assert word in str(module.__doc__)
    documented = f"{module.__doc__} {module.get_config.__doc__}"
    for word in WORDS[workload]:
        assert word in documented
        changed = module.VARIANTS[word].presets
        assert set(changed) <= {*common.OPTIMIZERS, common.FAMILY}
    assert ("smoke" in WORDS[workload]) == workload.startswith(("cifar", "imagenet"))


@pytest.mark.parametrize("workload", [name for name in WORKLOADS if "smoke" in WORDS[name]])
def test_a_smoke_run_is_short_and_its_model_small(workload):
    config = get_config(workload, "rk4,smoke")
    assert config.total_steps <= 50
    assert config.batch_size <= 64
    assert config.model != get_config(workload, "rk4").model
    assert 0 < config.checkpoint_every_steps < config.total_steps  # there is one to resume from


def test_every_registered_optimizer_is_in_the_table_with_its_defaults():
    registered = {name for name in optimizers.names() if not name.startswith("optax:")}
    assert set(common.OPTIMIZERS) == registered
    for name, keywords in common.OPTIMIZERS.items():
        defaults = optimizers.hyperparameters(name)
        assert keywords.items() <= defaults.items(), name
        seldom = {"eps_root", "mu_dtype", "nesterov", "mask", "tableau", *TERMS}
        seldom |= {"hvp", "curvature"}
        assert defaults.keys() - keywords.keys() <= seldom, name
        assert inspect.Parameter.empty not in defaults.values(), name


@pytest.mark.filterwarnings("ignore:Specifying a key will be required")
def test_the_whole_numbers_among_keywords_are_those_of_the_registry():
    whole, real = set(), set()
    for name in optimizers.names():
        for keyword, value in optimizers.hyperparameters(name).items():
            if type(value) in (int, float):
                (whole if type(value) is int else real).add(keyword)
    unset = {"seed", "warmup_steps"}  # None by default
    assert {
        keyword for keyword in whole | real | unset if common.is_whole(keyword)
    } == whole | unset
    assert not real & (whole | unset)


def test_hyperparameters_are_real_whatever_the_literal_was():
    config = from_flags(
        "digits_mlp.py:rk4,preconditioner=adagrad,eps=1,momentum=0",
        "--config.optimizer.eps=0.5",
        "--config.optimizer.momentum=0.9",
    )
    assert (config.optimizer.eps, config.optimizer.momentum) == (0.5, 0.9)
    whole = get_config("digits_mlp", "optax:contrib.schedule_free_sgd,warmup_steps=5,b1=1")
    assert [type(whole.optimizer[name]) for name in ("warmup_steps", "b1")] == [int, float]


def test_a_config_of_ones_own_gets_real_numbers_too():
    config = get_config("digits_mlp", "adamw")
    del config.optimizer["eps"], config.optimizer["weight_decay"]
    config.optimizer.update({"eps": np.float32(0.5), "weight_decay": 0})
    found = common.with_real_numbers(config.lock())
    assert (found.optimizer.eps, found.optimizer.weight_decay) == (0.5, 0.0)
    assert all(type(found.optimizer[name]) is float for name in ("eps", "weight_decay"))
    assert found.is_locked
    assert common.with_real_numbers(found) is found


# Appendices D and E. Each row: what the text gives for this experiment.
FIGURE_17 = {"total_steps": 50_000, "batch_size": 1_024}
FIGURE_18 = {  # "no regularization, augmentation, or schedule"
    "total_steps": 3_000,
    "batch_size": 8_192,
    "l2": 0.0,
    "label_smoothing": 0.0,
    "schedule.name": "constant",
    "augment.crop_padding": 0,
    "augment.flip": False,
    "augment.cutout": 0,
    "augment.mixup_alpha": 0.0,
}
PAPER = [
    ("mnist_mlp", "adam", {"total_steps": 10_000, "batch_size": 16, "learning_rate": 0.001}),
    ("mnist_mlp", "rk4", {"total_steps": 10_000, "batch_size": 16, "learning_rate": 0.003}),
    ("fashion_mlp", "adam", {"total_steps": 10_000, "batch_size": 16, "learning_rate": 0.001}),
    ("fashion_mlp", "rk4", {"total_steps": 10_000, "batch_size": 16, "learning_rate": 0.003}),
    (
        "mnist_cnn",
        "momentum",
        {"total_steps": 10_000, "batch_size": 64, "learning_rate": 0.01, "momentum": 0.9}
        | {"l2": 0.002},
    ),
    (
        "mnist_cnn",
        "rk4",
        {"total_steps": 10_000, "batch_size": 64, "learning_rate": 0.1, "l2": 0.0},
    ),
    (
        "fashion_cnn",
        "momentum",
        {"total_steps": 10_000, "batch_size": 512, "learning_rate": 0.01, "momentum": 0.9}
        | {"l2": 0.0005},
    ),
    (
        "fashion_cnn",
        "rk4",
        {"total_steps": 10_000, "batch_size": 64, "learning_rate": 0.5, "l2": 0.0},
    ),
    ("mnist_mlp", "adam,full", {"total_steps": 10_000, "learning_rate": 0.001}),
    ("mnist_mlp", "rk4,full", {"total_steps": 10_000, "learning_rate": 0.004}),
    ("mnist_mlp", "rk4_adagrad,full", {"total_steps": 5_000, "learning_rate": 0.032}),
    ("mnist_mlp", "rk4_modified_adagrad,full", {"total_steps": 5_000, "learning_rate": 0.064}),
    ("mnist_mlp", "rk4_dalr,full", {"total_steps": 5_000, "c": 4.0, "p": 0.8}),
    (
        "mnist_mlp",
        "rk4_momentum,full",
        {"total_steps": 5_000, "learning_rate": 0.004, "momentum": 0.95},
    ),
    ("fashion_mlp", "adam,full", {"total_steps": 10_000, "learning_rate": 0.001}),
    ("fashion_mlp", "rk4,full", {"total_steps": 10_000, "learning_rate": 0.003}),
    ("fashion_mlp", "rk4_adagrad,full", {"total_steps": 5_000, "learning_rate": 0.016}),
    ("fashion_mlp", "rk4_modified_adagrad,full", {"total_steps": 5_000, "learning_rate": 0.032}),
    ("fashion_mlp", "rk4_dalr,full", {"total_steps": 5_000, "c": 1.0, "p": 0.8}),
    (
        "fashion_mlp",
        "rk4_momentum,full",
        {"total_steps": 5_000, "learning_rate": 0.001, "momentum": 0.95},
    ),
    (
        "cifar10_wrn",
        "momentum",
        {"total_steps": 117_187, "batch_size": 128, "learning_rate": 0.1, "momentum": 0.9}
        | {"l2": 0.0, "schedule.name": "cosine"},
    ),
    (
        "cifar10_wrn",
        "rk4",
        {"total_steps": 117_187, "batch_size": 512, "learning_rate": 0.5}
        | {"l2": 0.0, "schedule.name": "cosine"},
    ),
    (
        "cifar100_wrn",
        "momentum",
        {"total_steps": 117_187, "batch_size": 128, "learning_rate": 0.1, "momentum": 0.9}
        | {"l2": 0.0005, "schedule.name": "cosine"},
    ),
    (
        "cifar100_wrn",
        "rk4",
        {"total_steps": 117_187, "batch_size": 256, "learning_rate": 0.75}
        | {"l2": 0.0005, "schedule.name": "cosine"},
    ),
    ("cifar10_mlp", "adam", {**FIGURE_17, "learning_rate": 0.002}),
    ("cifar10_mlp", "rk4", {**FIGURE_17, "learning_rate": 0.001}),
    ("cifar10_mlp", "rk4_adagrad", {**FIGURE_17, "learning_rate": 0.008}),
    ("cifar10_mlp", "rk4_modified_adagrad", {**FIGURE_17, "learning_rate": 0.004}),
    ("cifar10_resnet18", "adam", {**FIGURE_18, "learning_rate": 0.001, "b1": 0.9, "b2": 0.999}),
    ("cifar10_resnet18", "rk4", {**FIGURE_18, "learning_rate": 0.004}),
    (
        "cifar10_resnet18",
        "rk4_momentum",
        {**FIGURE_18, "learning_rate": 0.004, "momentum": 0.99},
    ),
    ("cifar10_resnet18", "rk4_dalr", {**FIGURE_18, "learning_rate": None}),
    (
        "imagenet_vit",
        "nadamw",
        {"total_steps": 186_666, "eval_every_steps": 1_866, "label_smoothing": 0.2}
        | {"b1": 0.9414, "b2": 0.9768, "eps": 1e-8, "weight_decay": 0.02},
    ),
    (
        "imagenet_vit",
        "rk4",
        {"total_steps": 186_666, "batch_size": 1024, "learning_rate": 0.16}
        | {"schedule.name": "warmup_cosine"},
    ),
    (
        "cifar10_resnet18",
        "adam,batch1",
        {"total_steps": 1_000, "batch_size": 1, "learning_rate": 0.001, "log_every_steps": 1},
    ),
    (
        "cifar10_resnet18",
        "rk4,batch8192",
        {"total_steps": 1_000, "batch_size": 8_192, "learning_rate": 0.004, "log_every_steps": 1},
    ),
]
MODELS = {
    "mlp": {"hidden_sizes": (500, 500, 500)},
    "cnn": {"features": (20, 10), "kernel_size": 3, "convolution": "auto"},
    "wrn": {"depth": 28, "width": 10, "convolution": "auto"},
    "resnet18": {"features": 64, "convolution": "auto"},
    "vit": {
        "variant": "B/16",
        "pooling": "mean",
        "positions": "sincos",
        "representation_layer": False,
        "dropout": 0.0,
    },
}


@pytest.mark.parametrize(("workload", "variant", "settings"), PAPER)
def test_presets_are_the_papers(workload, variant, settings):
    config = get_config(workload, variant)
    found = {**config.optimizer, **config, **dict(leaves(config))}
    assert {key: found[key] for key in settings} == settings
    assert config.model.to_dict() == MODELS[workload.split("_")[1]]


@pytest.mark.parametrize("full", ["", ",full"])
@pytest.mark.parametrize("value", [32, "full"])
def test_batch_size_from_the_command_line_is_a_number_or_full(value, full):
    config = from_flags(f"mnist_mlp.py:rk4{full}", f"--config.batch_size={value}")
    assert config.batch_size == value


def test_overrides_from_the_command_line_are_typed_and_the_config_is_locked():
    config = from_flags(
        "mnist_cnn.py:optax:adabelief,b1=0.8,seeds=(4,)",
        "--config.seeds=(0,1)",
        "--config.data_dir=data",
        "--config.optimizer.learning_rate=1",
        "--config.model.convolution=xla",
        "--config.schedule.name=cosine",
    )
    assert config.optimizer.to_dict() == {
        "name": "optax:adabelief",
        "learning_rate": 1.0,
        "b1": 0.8,
    }
    assert (config.seeds, config.data_dir) == ((0, 1), "data")
    assert (config.model.convolution, config.schedule.name) == ("xla", "cosine")
    assert config.is_locked


def test_a_variant_sets_fields_and_composes_parts():
    config = get_config(
        "mnist_mlp", "heun,preconditioner=adagrad,eps=1,seeds=(1, 2),batch_size=full,l2=1"
    )
    assert config.optimizer.to_dict() == {
        "name": "heun",
        "learning_rate": 0.003,
        "preconditioner": "adagrad",
        "eps": 1.0,
        "step_size": "fixed",
        "momentum": 0.0,
    }
    assert (config.seeds, config.batch_size, config.l2) == ((1, 2), "full", 1.0)
    assert get_config("mnist_mlp", "rk4").batch_size == 16  # the preset itself is as it was


def test_a_step_size_rule_takes_the_place_of_the_presets_learning_rate():
    config = get_config("mnist_mlp", "midpoint,step_size=dalr,c=2.0")
    assert config.optimizer.learning_rate is None
    assert (config.optimizer.step_size, config.optimizer.c) == ("dalr", 2.0)


def test_a_tableau_of_ones_own():
    variant = "rk,tableau={'a': ((), (0.25,)), 'b': (-1.0, 2.0), 'order': 2},total_steps=3"
    config = get_config("digits_mlp", variant)
    assert config.total_steps == 3
    assert config.optimizer.to_dict()["tableau"] == {
        "a": ((), (0.25,)),
        "b": (-1.0, 2.0),
        "order": 2,
    }


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ("adm", "unknown optimizer 'adm'; nearest: adam"),
        ("", "unknown optimizer ''"),
        ("rk4,=3", "unknown variant of cifar10_resnet18 '=3'"),
        ("rk4,batch.1", "unknown variant of cifar10_resnet18 'batch.1'; nearest: batch1"),
        ("rk4,smok", "unknown variant of cifar10_resnet18 'smok'; nearest: smoke"),
        ("rk4,full", "unknown variant of cifar10_resnet18 'full'"),
        ("rk4,total_steps=many", "total_steps='many': a value of type int is needed"),
        ("rk4,schedule=cosine", "schedule is a group of fields"),
        ("rk4,schedule.nam=cosine", "unknown field 'schedule.nam'; nearest: schedule.name"),
        ("rk4,seeds.first=1", "unknown field 'seeds.first'"),
        ("rk4,augment.flip=1.5", "augment.flip=1.5: a value of type bool is needed"),
    ],
)
def test_what_a_variant_does_not_know_it_names(variant, message):
    with pytest.raises(ValueError, match=message):
        get_config("cifar10_resnet18", variant)


def test_words_of_a_variant_add_up_and_the_later_ones_prevail():
    first = get_config("cifar10_resnet18", "rk4,batch1,smoke,model.features=4,total_steps=7")
    assert (first.batch_size, first.model.features) == (64, 4)
    assert (first.total_steps, first.log_every_steps) == (7, 5)
    second = get_config("cifar10_resnet18", "rk4,total_steps=7,smoke,batch1")
    assert (second.batch_size, second.model.features) == (1, 8)
    assert (second.total_steps, second.log_every_steps) == (7, 1)


def test_an_optimizer_that_chooses_its_step_size_has_no_schedule():
    for variant in ("rk4_dalr", "heun,step_size=dalr"):
        assert get_config("cifar10_wrn", variant).schedule.name == "constant"
    chosen = get_config("cifar10_wrn", "rk4_dalr,schedule.name=cosine")
    assert chosen.schedule.name == "cosine"  # the trainer refuses it, rather than leave it out
    assert get_config("cifar10_wrn", "heun").schedule.name == "cosine"


def test_configs_import_nothing_but_ml_collections():
    program = (
        "import sys; from rkbench.configs import mnist_mlp; mnist_mlp.get_config('rk4_dalr,full'); "
        "print({'jax', 'flax', 'numpy', 'rkbench.workloads', 'tensorflow'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "set()"
