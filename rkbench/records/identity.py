"""Plain configs: what they say, which of their fields make a run what it is, how two differ."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from rkbench import errors
from rkbench.configs import default
from rkbench.configs.common import number
from rkbench.configs.fields import Role
from rkbench.records.schemas import Object


def plain_config(config) -> Object:
    """The config as JSON holds it."""
    return plain(config.to_dict())


def plain(content: Any) -> Any:
    """The content as JSON holds it: tuples and arrays become lists, NumPy's numbers Python's.

    Raises:
      UserError: it holds something other than numbers, texts and collections of them.
    """
    return json.loads(json.dumps(content, default=_plain))


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # of NumPy or JAX
        return value.tolist()
    raise errors.UserError(f"{value!r} cannot be recorded: JSON holds numbers, texts and lists")


def of(config: Object) -> Object:
    """The fields that decide a seed's numbers: configs that agree in them can share a folder.

    `configs/default.py` says which fields do not, and which are newer than published records: with
    their default these change nothing, and so no hash.
    """
    around = default.names(role=Role.AROUND)
    kept = {name: value for name, value in config.items() if name not in around}
    for path, field in default.FIELDS.items():
        if field.newer:
            kept = _without(kept, path.split("."), plain(field.default))
    return kept


def _without(config: Object, path: Sequence[str], value: Any) -> Object:
    """The config without the field at `path` where that has this value."""
    name, *rest = path
    if name not in config:
        return config
    if rest:
        return {**config, name: _without(config[name], rest, value)}
    return config if config[name] != value else {k: v for k, v in config.items() if k != name}


def config_hash(config: Object) -> str:
    """16 hexadecimal digits that name the identity of a plain config."""
    return hashlib.sha256(canonical(of(config)).encode()).hexdigest()[:16]


def canonical(content: Any) -> str:
    """Plain content as the one text that stands for it, whatever the order of its fields."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def comparable(record: Object) -> Object:
    """The identity of a record's config, with the fields that are newer than the record.

    Real numbers of the optimizer are floats: `eps=1` and `eps=1.0` are one setting.
    """
    found = of(completed(record["config"], plain_config(default.get_config())))
    optimizer = found.get("optimizer", {})
    return found | {"optimizer": {name: number(name, value) for name, value in optimizer.items()}}


def completed(config: Mapping, defaults: Mapping) -> Object:
    """A recorded config with the fields that were added since, which had their defaults then."""
    filled = dict(config)
    for name, value in defaults.items():
        if name not in config:
            filled[name] = value
        elif isinstance(value, Mapping) and isinstance(config[name], Mapping):
            filled[name] = completed(config[name], value)
    return filled


def differences(a: Mapping, b: Mapping, prefix: str = "") -> list[str]:
    """The fields in which two plain configs differ, as "name: one -> other"."""
    lines = []
    for name in sorted(a.keys() | b.keys()):
        one, other = a.get(name), b.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            lines += differences(one, other, f"{prefix}{name}.")
        elif one != other:
            lines.append(f"{prefix}{name}: {one!r} -> {other!r}")
    return lines


def data_differences(a: Mapping, b: Mapping) -> list[str]:
    """The `differences` of two records' data; a field that only one of them has says nothing."""
    newer = {"sha256"} - (a.keys() & b.keys())
    one, other = ({k: v for k, v in data.items() if k not in newer} for data in (a, b))
    return differences(one, other)
