"""What users add by name without a change of rkbench: optimizers, workloads and datasets.

    optimizers.register("mine", make_mine)
    workloads.register("my_task", dataset="mnist", model=make_model)
    workloads.register_dataset("my_data", read, image_shape=(28, 28, 1), num_classes=10, ...)

The calls stand in a config file, or in a module that an installed package names in its entry points
of the group `rkbench.plugins`; the value is a module, or a function without arguments:

    [project.entry-points."rkbench.plugins"]
    mylab = "mylab.rkbench_plugin"

These are imported only when a name is not one of rkbench's own, or when all names are listed.
"""

import hashlib
import importlib.metadata
import inspect
import pathlib
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from rkbench import errors

GROUP = "rkbench.plugins"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")  # variants of a config are parted by , : = and .

Value = TypeVar("Value")


class Origin(NamedTuple):
    """The plug-in that something comes from: a distribution, a module, or a file."""

    plugin: str
    version: str  # of a file the digest, as "sha256:0123456789abcdef"


class Optimizer(NamedTuple):
    """A registered optimizer.

    Attributes:
      entry: what `rkbench.optimizers` makes it by.
      keywords: those that its config shows, with their defaults.
      learning_rate: that of its config; None: as the config's preset of Runge-Kutta methods says.
      whole: the keywords that are whole numbers.
    """

    entry: Any
    keywords: Mapping[str, Any]
    learning_rate: float | None
    whole: frozenset[str]


class Registry(Generic[Value]):
    """What was registered of one kind, by name, with the plug-in it comes from."""

    def __init__(self, kind: str):
        self._kind = kind
        self._found: dict[str, tuple[Value, Origin]] = {}

    def add(self, name: str, value: Value, taken: Collection[str] = ()) -> None:
        """Registers a value; a plug-in may do so again, as a config file that is loaded twice does.

        Raises:
          UserError: the name is `taken`, belongs to another plug-in, or cannot stand in a variant.
        """
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise errors.UserError(
                f"{self._kind} {name!r} cannot be registered: a name has a letter first, then "
                "letters, digits, _ and -"
            )
        if name in taken:
            raise errors.UserError(f"{self._kind} {name!r} is rkbench's own: register another name")
        origin = _origin()
        before = self._found.get(name, (None, origin))[1]
        if before.plugin != origin.plugin:
            raise errors.UserError(
                f"{self._kind} {name!r} is registered by {before.plugin} and by {origin.plugin}"
            )
        self._found[name] = value, origin

    def find(self, name: str) -> Value | None:
        """The value of that name; None where no plug-in has registered one."""
        if name not in self._found:
            _Installed.load()
        return self._found[name][0] if name in self._found else None

    def names(self) -> tuple[str, ...]:
        """All names, in the order of their registration."""
        _Installed.load()
        return tuple(self._found)

    def origins(self) -> Iterator[tuple[str, Origin]]:
        """(name, plug-in) of what is registered so far; imports nothing."""
        return ((name, origin) for name, (_, origin) in self._found.items())


OPTIMIZERS: Registry[Optimizer] = Registry("optimizer")
WORKLOADS: Registry[Any] = Registry("workload")
DATASETS: Registry[Any] = Registry("dataset")


def used(optimizer: str, workload: str, dataset: str | None) -> dict[str, dict[str, str]]:
    """What of a run comes from plug-ins: {"optimizer": {"name", "plugin", "version"}, ...}."""
    chosen = {"optimizer": optimizer, "workload": workload, "dataset": dataset}
    registries = {"optimizer": OPTIMIZERS, "workload": WORKLOADS, "dataset": DATASETS}
    found = {}
    for kind, name in chosen.items():
        origin = dict(registries[kind].origins()).get(name or "")
        if origin is not None:
            found[kind] = {"name": name, **origin._asdict()}
    return found


def versions() -> dict[str, str]:
    """{plug-in: version} of all that has been registered in this process."""
    registries = (OPTIMIZERS, WORKLOADS, DATASETS)
    return dict(origin for registry in registries for _, origin in registry.origins())


class _Installed:
    """The entry points, which are loaded once."""

    begun = False
    loading: Origin | None = None  # the plug-in that is being imported

    @classmethod
    def load(cls) -> None:
        if cls.begun:
            return
        cls.begun = True
        for entry in importlib.metadata.entry_points(group=GROUP):
            distribution = entry.dist
            cls.loading = Origin(distribution.name, distribution.version) if distribution else None
            try:
                found = entry.load()
                if callable(found):
                    found()
            except errors.UserError:
                raise
            except Exception as error:  # whatever the plug-in's code raises
                raise errors.UserError(
                    f"plug-in {entry.name} ({entry.value}): {type(error).__name__}: {error}"
                ) from error
            finally:
                cls.loading = None


def _origin() -> Origin:
    """The plug-in whose code registers something now: the first caller outside of rkbench."""
    if _Installed.loading is not None:
        return _Installed.loading
    frame = inspect.currentframe()
    while frame is not None and _top(frame.f_globals) == "rkbench":
        frame = frame.f_back
    caller = {} if frame is None else frame.f_globals
    top, file = _top(caller), pathlib.Path(caller.get("__file__") or "interactive")
    version = getattr(sys.modules.get(top), "__version__", None)
    if version is None:
        try:
            version = importlib.metadata.version(top)
        except (importlib.metadata.PackageNotFoundError, ValueError):  # a file, and no package
            is_module = top in sys.modules and top != "__main__"
            return Origin(top if is_module else file.name, _digest(file))
    return Origin(top, str(version))


def _top(module: Mapping[str, Any]) -> str:
    return str(module.get("__name__", "")).partition(".")[0]


def _digest(file: pathlib.Path) -> str:
    try:
        return f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()[:16]}"
    except OSError:  # typed in, as in an interactive Python
        return "unknown"
