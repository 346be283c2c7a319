"""How a config file turns a variant string into a config.

A variant is `<optimizer>[,<word>...][,key=value...]`, for instance `rk4_dalr,full,c=2.0` or
`optax:adabelief,learning_rate=0.01,seeds=(0,1)`:

- `<optimizer>` is a key of `OPTIMIZERS`, or `optax:<name>` for an optimizer that optax exports;
- `<word>` names a change of the preset, one that the config file has in its `VARIANTS`: `full`,
  training on the full batch, or `smoke`, a few steps of a small model; later ones prevail;
- `key=value` sets a field of the config, `group.field=value` one of a group, and any other key a
  keyword of the optimizer: also those that compose a Runge-Kutta method with other parts, as in
  `heun,preconditioner=adagrad,eps=0.1`. A value is a Python literal; what is none is a string.

Presets are tables with the same keys: {optimizer: {field of the config or keyword: value}}. What
"runge_kutta" says holds for every Runge-Kutta method that has no row of its own.
"""

import ast
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict, config_dict

_ADAM = {"b1": 0.9, "b2": 0.999, "eps": 1e-8}
_FIELD = {"preconditioner": "identity"}  # of the Runge-Kutta methods: what acts on the field,
_STEP = {"step_size": "fixed"}  # the rule for the step size,
_MOMENTUM = {"momentum": 0.0}  # and the momentum of the Runge-Kutta gradient
_RUNGE_KUTTA = {**_FIELD, **_STEP, **_MOMENTUM}
_NEWTON = {"newton_iterations": 3, "krylov_iterations": 10, "tolerance": 1e-3}

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "momentum": {"momentum": 0.9},
    "adam": _ADAM,
    "adamw": {**_ADAM, "weight_decay": 1e-4},
    "nadamw": {**_ADAM, "weight_decay": 1e-4},
    "sgd_g2": {"beta": 0.9},
    "rgd": {"momentum": 0.9, "delta": 1.0, "alpha": 1.0},
    "aggmo": {"betas": (0.0, 0.9, 0.99)},
    "euler": _RUNGE_KUTTA,
    "midpoint": _RUNGE_KUTTA,
    "heun": _RUNGE_KUTTA,
    "ralston": _RUNGE_KUTTA,
    "rk2": {**_RUNGE_KUTTA, "alpha": 0.5},
    "kutta3": _RUNGE_KUTTA,
    "ssprk3": _RUNGE_KUTTA,
    "rk4": _RUNGE_KUTTA,
    "rk4_38": _RUNGE_KUTTA,
    "rkc1": {**_RUNGE_KUTTA, "stages": 4, "damping": 0.05, "monotone": False},
    "rkc2": {**_RUNGE_KUTTA, "stages": 4, "damping": 2 / 13},
    "rkl2": {**_RUNGE_KUTTA, "stages": 4},
    "implicit_euler": {**_RUNGE_KUTTA, **_NEWTON},
    "implicit_midpoint": {**_RUNGE_KUTTA, **_NEWTON},
    "crank_nicolson": {**_RUNGE_KUTTA, **_NEWTON},
    "sdirk2": {**_RUNGE_KUTTA, **_NEWTON},
    "rosenbrock_euler": {**_RUNGE_KUTTA, "krylov_iterations": 10, "tolerance": 1e-3},
    "rk": _RUNGE_KUTTA,  # and tableau: a name, or {"a": (...), "b": (...), "order": ...}
    "rk4_adagrad": {**_STEP, **_MOMENTUM, "eps": 0.1},
    "rk4_modified_adagrad": {**_STEP, **_MOMENTUM},
    "rk4_natural": {**_STEP, **_MOMENTUM, "alpha": -1.0},
    "rk4_adam": {**_STEP, **_MOMENTUM, **_ADAM},
    "rk4_dalr": {**_FIELD, **_MOMENTUM, "c": 1.0, "p": 0.8},
    "rk4_momentum": {**_FIELD, **_STEP, "momentum": 0.95},
}
"""The keywords of each optimizer that its config shows, with the defaults of `rkbench.optimizers`.

They stand here too because a config imports nothing; a test compares the two. An optimizer may
have more, of the parts one chooses or seldom used ones of optax's: `key=value` adds them.
"""

WHOLE = frozenset(
    (
        *("decay_offset", "memory_size", "min_dim_size_to_factor", "ns_steps", "rank", "seed"),
        *("stages", "newton_iterations", "krylov_iterations"),
        *("print_win_rate_every_n_steps", "update_interval", "update_proj_gap", "warmup_steps"),
    )
)
"""The keywords of optimizers that are whole numbers; all others that are numbers are real.

They stand here for the same reason, and a test compares them too.
"""

FAMILY = "runge_kutta"
"""The preset of the Runge-Kutta methods that a config file names no preset for."""

KIN = {"sgd_g2": "sgd", "rgd": "momentum", "aggmo": "momentum", "rk4_adam": "adam"}
"""Optimizers whose preset is that of another one where a config file names none for them."""

OPTAX_PREFIX = "optax:"
_OPTAX_PRESET = {"learning_rate": 1e-3}  # Adam's; the paper runs no other optimizer of optax's

Preset = Mapping[str, Any]


class Variant(NamedTuple):
    """What a word of the variant string changes: settings of all optimizers, then of one."""

    settings: Preset
    presets: Mapping[str, Preset] = {}


def number(field: str, value: Any) -> Any:
    """The value of an optimizer's field; a float where the field is real, whatever its literal was.

    A numpy scalar becomes Python's number, as records hold it.
    """
    if hasattr(value, "item") and not getattr(value, "ndim", 0):
        value = value.item()
    return float(value) if type(value) is int and field not in WHOLE else value


def with_real_numbers(config: Any) -> Any:
    """`config` itself, or where its optimizer has an integer in a real field a copy with floats."""
    optimizer = config.optimizer
    changed = {field: number(field, value) for field, value in optimizer.items()}
    if all(changed[field] is optimizer[field] for field in changed):
        return config
    copy = config.copy_and_resolve_references()
    with copy.unlocked():
        for field, value in changed.items():
            if value is not optimizer[field]:
                del copy.optimizer[field]  # and with it the type that the field had
                copy.optimizer[field] = value
    return copy


def with_variant(
    config: Any,
    variant: str,
    presets: Mapping[str, Preset],
    variants: Mapping[str, Variant] = {},
) -> ConfigDict:
    """`config` with the optimizer and the settings that `variant` asks for.

    The preset of the optimizer comes first, then the words of `variant` that `variants` names, then
    its key=value. An optimizer that chooses its own step size has no learning rate and no schedule.
    Raises ValueError for what it does not know, nearest names first.
    """
    name, *words = _split(variant)
    preset = dict(_preset(name, presets))
    settings = {}
    for word in words:
        if word in variants:
            preset |= {**variants[word].settings, **_of_optimizer(name, variants[word].presets, {})}
        else:
            key, value = _setting(word, config.workload, variants)
            settings[key] = value
    config.optimizer = ConfigDict({"name": name, **OPTIMIZERS.get(name, {})})
    config.optimizer["learning_rate"] = config_dict.placeholder(float)  # None: a rule chooses it
    if settings.get("step_size", "fixed") != "fixed":
        preset["learning_rate"] = None
    for key, value in {**preset, **settings}.items():
        _set(config, key, value)
    if config.optimizer.learning_rate is None and "schedule.name" not in settings:
        config.schedule.name = "constant"
    return config


def _preset(name: str, presets: Mapping[str, Preset]) -> Preset:
    if name.startswith(OPTAX_PREFIX):
        return _OPTAX_PRESET
    if name not in presets and name not in OPTIMIZERS:
        raise _unknown("optimizer", name, (*OPTIMIZERS, f"{OPTAX_PREFIX}<name>"))
    found = _of_optimizer(name, presets, None)
    if found is None:
        raise ValueError(f"this config has no preset for {name!r}, and none for {FAMILY!r}")
    return found


def _of_optimizer(name: str, presets: Mapping[str, Preset], default: Any) -> Any:
    """The preset of the optimizer, else that of its kin or family, else `default`."""
    kin = KIN.get(name, name)
    if name not in presets and kin in presets:
        foreign = OPTIMIZERS[kin].keys() - OPTIMIZERS[name].keys()
        return {key: value for key, value in presets[kin].items() if key not in foreign}
    is_runge_kutta = "preconditioner" in OPTIMIZERS.get(name, {})
    return presets.get(name, presets.get(FAMILY, default) if is_runge_kutta else default)


def _split(variant: str) -> list[str]:
    """The parts of `variant` between commas that are outside brackets."""
    words, depth = [""], 0
    for character in variant:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            words.append("")
        else:
            words[-1] += character
    return [word.strip() for word in words]


def _setting(word: str, workload: str, variants: Iterable[str]) -> tuple[str, Any]:
    key, separator, text = word.partition("=")
    key = key.strip()
    if not separator or not all(part.isidentifier() for part in key.split(".")):
        raise _unknown(f"variant of {workload}", word, [*variants, "key=value"])
    try:
        return key, ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return key, text


def _set(config: Any, key: str, value: Any) -> None:
    """Sets a field of `config`, or of a group of it, or else a keyword of its optimizer."""
    groups = {name: group for name, group in config.items() if isinstance(group, ConfigDict)}
    if key in groups:
        raise ValueError(f"{key} is a group of fields: set them by {key}.<field>=value")
    holder, field = config if key in config else config.optimizer, key
    if "." in key:
        fields = {f"{name}.{field}": name for name, group in groups.items() for field in group}
        if key not in fields:
            raise _unknown("field", key, fields)
        holder, field = groups[fields[key]], key.removeprefix(f"{fields[key]}.")
    if holder is config.optimizer:
        value = number(field, value)
    try:
        holder[field] = value
    except TypeError:
        expected = holder.get_type(field).__name__
        raise ValueError(f"{key}={value!r}: a value of type {expected} is needed") from None


def _unknown(kind: str, name: str, valid: Iterable[str]) -> ValueError:
    from rkbench.errors import unknown  # only where it is needed: a config imports nothing

    return unknown(kind, name, valid)
