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
"runge_kutta" says holds for every Runge-Kutta method that has no row of its own; any other
optimizer without one starts from Adam's learning rate.
"""

import ast
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict, config_dict

from rkbench.configs import optimizers
from rkbench.configs.optimizers import OPTIMIZERS, is_whole

FAMILY = "runge_kutta"
"""The preset of the Runge-Kutta methods that a config file names no preset for."""

KIN = {"sgd_g2": "sgd", "rgd": "momentum", "aggmo": "momentum", "rk4_adam": "adam"}
"""Optimizers whose preset is that of another one where a config file names none for them."""

OPTAX_PREFIX = "optax:"
_NO_PRESET = {"learning_rate": 1e-3}  # Adam's, for optimizers that the paper does not run

Preset = Mapping[str, Any]


class Variant(NamedTuple):
    """What a word of the variant string changes: settings of all optimizers, then of one."""

    settings: Preset
    presets: Mapping[str, Preset] = {}


def number(field: str, value: Any, optimizer: Any = None) -> Any:
    """The value of an optimizer's field; a float where the field is real, whatever its literal was.

    Of an optimizer that is named and was registered, its own whole numbers count too.

    A numpy scalar becomes Python's number, as records hold it.
    """
    if hasattr(value, "item") and not getattr(value, "ndim", 0):
        value = value.item()
    if type(value) is not int or is_whole(field):
        return value
    plugged = _plugged(optimizer)
    return value if plugged is not None and field in plugged.whole else float(value)


def with_real_numbers(config: Any) -> Any:
    """`config` itself, or where its optimizer has an integer in a real field a copy with floats."""
    optimizer = config.get("optimizer")
    if not isinstance(optimizer, ConfigDict):  # the trainer says what is missing
        return config
    name = optimizer.get("name")
    changed = {field: number(field, value, name) for field, value in optimizer.items()}
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
            preset |= {**variants[word].settings, **_of_word(name, variants[word].presets, presets)}
        else:
            key, value = _setting(word, config.workload, variants)
            settings[key] = value
    config.optimizer = ConfigDict({"name": name, **_keywords(name)})
    config.optimizer["learning_rate"] = config_dict.placeholder(float)  # None: a rule chooses it
    if settings.get("step_size", "fixed") != "fixed":
        preset["learning_rate"] = None
    for key, value in {**preset, **settings}.items():
        _set(config, key, value)
    if config.optimizer.learning_rate is None and "schedule.name" not in settings:
        config.schedule.name = "constant"
    return config


def names() -> tuple[str, ...]:
    """The optimizers that have a preset: those of rkbench, then those of plug-ins."""
    from rkbench import plugins

    return *OPTIMIZERS, *plugins.OPTIMIZERS.names()


def _keywords(name: str) -> Mapping[str, Any]:
    """The keywords of an optimizer that its config shows, with their defaults."""
    plugged = _plugged(name)
    return OPTIMIZERS.get(name, {}) if plugged is None else plugged.keywords


def _plugged(name: Any) -> Any:
    """The optimizer of that name which a plug-in has registered, or None."""
    if not isinstance(name, str) or name in OPTIMIZERS or name.startswith(OPTAX_PREFIX):
        return None
    from rkbench import plugins  # only where it is needed

    return plugins.OPTIMIZERS.find(name)


def _preset(name: str, presets: Mapping[str, Preset]) -> Preset:
    if name.startswith(OPTAX_PREFIX):
        return _NO_PRESET
    plugged = None if name in presets or name in OPTIMIZERS else _plugged(name)
    if plugged is not None:
        rate = plugged.learning_rate
        return presets.get(FAMILY, _NO_PRESET) if rate is None else {"learning_rate": rate}
    if name not in presets and name not in OPTIMIZERS:
        raise _unknown("optimizer", name, (*names(), f"{OPTAX_PREFIX}<name>"))
    if name not in presets and KIN.get(name) in presets:
        return _of_kin(name, presets)
    if name in presets or not optimizers.is_method(name):
        return presets.get(name, _NO_PRESET)
    preset = presets.get(FAMILY, _NO_PRESET)
    return {**preset, **_own_step_size(name)}


def _own_step_size(name: str) -> Preset:
    """That an optimizer has no learning rate, where its name stands for a step-size rule."""
    return {} if optimizers.step_size_rule(name) == "fixed" else {"learning_rate": None}


def _of_word(name: str, presets: Mapping[str, Preset], base: Mapping[str, Preset]) -> Preset:
    """What a word's presets say of the optimizer: by its name, else as one of its family.

    A composed method with a preset of its own keeps that.
    """
    is_method = optimizers.is_method(name) or "preconditioner" in _keywords(name)
    of_family = optimizers.is_plain_method(name) or (is_method and name not in base)
    if name not in presets and KIN.get(name) in presets:
        return _of_kin(name, presets)
    if name in presets or not of_family:
        return presets.get(name, {})
    return {**presets.get(FAMILY, {}), **_own_step_size(name)}


def _of_kin(name: str, presets: Mapping[str, Preset]) -> Preset:
    """What the presets say of an optimizer's kin, but for keywords that it does not have."""
    kin = KIN[name]
    foreign = OPTIMIZERS[kin].keys() - OPTIMIZERS[name].keys()
    return {key: value for key, value in presets[kin].items() if key not in foreign}


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
        value = number(field, value, config.optimizer.get("name"))
    try:
        holder[field] = value
    except TypeError:
        expected = holder.get_type(field).__name__
        raise ValueError(f"{key}={value!r}: a value of type {expected} is needed") from None


def _unknown(kind: str, name: str, valid: Iterable[str]) -> ValueError:
    from rkbench.errors import unknown  # only where it is needed: a config imports nothing

    return unknown(kind, name, valid)
