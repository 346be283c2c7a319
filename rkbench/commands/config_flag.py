"""`--config=FILE[:VARIANT]` and `--config.FIELD=VALUE`, which mean the same to every command.

absl alone reads the command line, in all spellings that it knows (`--flag=x`, `--flag x`, one dash,
`--noflag`, flag files), and of what is given twice the last counts. The config flag of
ml_collections searches the text of the arguments besides, adds up the tuples of a flag that is
given twice, and can set nothing to None.
"""

import ast
import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import Any

from absl import flags
from ml_collections import ConfigDict
from ml_collections.config_flags import tuple_parser

from rkbench import configs, errors, paths
from rkbench.configs.common import with_real_numbers
from rkbench.plugins import project

NONE = "None"
_INSTALLED = pathlib.Path(configs.__file__).parents[1]


@dataclasses.dataclass
class ConfigArgument:
    """What a command line says of a config.

    Attributes:
      file: the config file.
      variant: what `get_config` is called with; None: nothing.
      overrides: {field: its text}, in the order of the command line.
    """

    file: pathlib.Path
    variant: str | None
    overrides: dict[str, str] = dataclasses.field(default_factory=dict)

    def config(self, optimizer: str | None = None) -> Any:
        """The config with its overrides, locked.

        Args:
          optimizer: takes the place of the variant's first word.

        Raises:
          UserError: the file fails, or there is no such field, or a value is of another type.
        """
        variant = self.variant
        if optimizer is not None:
            _, comma, words = (variant or "").partition(",")
            variant = f"{optimizer}{comma}{words}"
        config = with_real_numbers(load(self.file, variant))
        for name, text in self.overrides.items():
            _override(config, name, text)
        return config.lock()


def load(file: pathlib.Path, variant: str | None) -> ConfigDict:
    """What the file's `get_config(variant)` returns. The file is code: trust it.

    It may import the modules of its project: see `rkbench.plugins.project`.

    Raises:
      UserError: the file fails, or that is no ConfigDict.
    """
    try:
        get_config = project.run(file)["get_config"]
        config = get_config() if variant is None else get_config(variant)
    except errors.UserError:
        raise
    except KeyError as error:
        raise errors.UserError(f"{file} has no get_config, or it lacks {error}") from error
    except Exception as error:  # whatever the user's code raises
        raise errors.UserError(f"{file}: {type(error).__name__}: {error}") from error
    if not isinstance(config, ConfigDict):
        raise errors.UserError(f"{file}: get_config() returned no ConfigDict, but {config!r}")
    return config


class _ConfigFlag(flags.Flag):
    """The flag `--config`; once it is read, every field of its config has a flag as well."""

    def __init__(self, values: flags.FlagValues):
        self._values = values
        self._overrides: dict[str, str] = {}
        meaning = "Config file and variant, as configs/mnist_mlp.py:rk4; its fields: --config.FIELD"
        super().__init__(flags.ArgumentParser(), None, "config", None, meaning)

    def parse(self, argument: Any) -> None:
        if not argument:
            raise errors.UserError(
                "--config is empty: it names a file, as configs/mnist_mlp.py:rk4"
            )
        path, colon, variant = argument.partition(":")
        file = find_file("config", path, "configs", "[a-z]*_*.py")
        self.value = ConfigArgument(file, variant if colon else None, self._overrides)
        self.present += 1
        for name, value in fields(load(file, self.value.variant)).items():
            if f"config.{name}" not in self._values:
                self._values[f"config.{name}"] = _FieldFlag(name, self._overrides)
            self._values[f"config.{name}"].boolean = isinstance(value, bool)


class _FieldFlag(flags.Flag):
    """An override, kept as text until the last `--config` is known."""

    def __init__(self, name: str, overrides: dict[str, str]):
        self._name, self._overrides = name, overrides
        super().__init__(flags.ArgumentParser(), None, f"config.{name}", None, name)

    def parse(self, argument: Any) -> None:
        self._overrides.pop(self._name, None)  # of two, the last counts, and in its place
        self._overrides[self._name] = argument


def define(values: flags.FlagValues, module: str) -> None:
    """Defines `--config`, whose value is a `ConfigArgument`, as a flag of the named module."""
    flags.DEFINE_flag(_ConfigFlag(values), values, module)


def unknown_flag(name: str, values: flags.FlagValues) -> errors.UserError:
    """The error for a flag that is none, which may be a field that the config does not have."""
    prefix, dot, field = name.removeprefix("no").partition(".")
    if not dot or prefix != "config":
        names = [known for known in values if not known.startswith("config.")]
        return errors.unknown("flag", name, names)
    argument = values["config"].value
    if argument is None:
        return errors.UserError(f"--{name} is given, but no --config before it")
    known = fields(load(argument.file, argument.variant))
    if field in known:
        return errors.UserError(f"--{name} must come after --config")
    return errors.unknown("config field", field, known)


def fields(config: ConfigDict, prefix: str = "") -> dict[str, Any]:
    """{name: value} of the fields of a config and of its groups, as "group.field"."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        found[f"{prefix}{name}"] = value
        if isinstance(value, ConfigDict):
            found |= fields(value, f"{prefix}{name}.")
    return found


def _literal(text: str) -> Any:
    """A Python literal; what is none is a string."""
    try:
        return ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
    except (SyntaxError, ValueError):
        return text


def _group(text: str) -> ConfigDict:
    value = ast.literal_eval(text)
    if not isinstance(value, dict):
        raise ValueError(f"{text} is no dictionary")
    return ConfigDict(value)


# type of a field: (what reads its text, what the text must be)
_PARSERS: dict[type, tuple[Callable[[str], Any], str]] = {
    bool: (flags.BooleanParser().parse, "true or false"),
    int: (flags.IntegerParser().parse, "a whole number"),
    float: (flags.FloatParser().parse, "a number"),
    str: (str, "a text"),
    tuple: (tuple_parser.TupleParser().parse, "values parted by commas"),
    ConfigDict: (_group, "a group of fields, as {'name': value},"),
}


def _override(config: ConfigDict, name: str, text: str) -> None:
    known = fields(config)
    if name not in known:
        raise errors.unknown("config field", name, known)
    *groups, field = name.split(".")
    holder: Any = config
    for group in groups:
        holder = holder[group]
    kind = holder.get_type(field)
    parse, expected = _PARSERS.get(kind, (_literal, f"a value of type {kind.__name__}"))
    try:
        holder[field] = None if text == NONE else parse(text)
    except (TypeError, ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise errors.UserError(f"--config.{name}={text!r}: {expected} is needed") from error


def find_file(kind: str, path: str, folder: str, pattern: str) -> pathlib.Path:
    """The file of that path, else the one of that name installed in `folder`, beside this package.

    Raises:
      UserError: there is neither; it lists the files in `folder` that match `pattern`.
    """
    here = paths.local(path)
    installed = _INSTALLED / folder
    if os.path.isfile(here):  # False also where the name is too long
        return here
    file = installed / f"{here.stem}.py"
    if here.parent in (pathlib.Path(), pathlib.Path(folder)) and os.path.isfile(file):
        return file
    valid = [f"{folder}/{file.name}" for file in sorted(installed.glob(pattern))]
    raise errors.unknown(kind, path, valid)
