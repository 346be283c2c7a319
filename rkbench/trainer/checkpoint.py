"""Checkpoints by Orbax: asynchronous, checked by a checksum, the newest sound one restored.

Three things can be wrong with a checkpoint. It is damaged: its content is not what was written. It
does not fit: it was written by a program whose state has another structure. Or it cannot be read
now: a disk or a network fails. Only a damaged one is moved aside.

With several processes each writes the pieces of the state that lie on its own devices. A checkpoint
holds whole arrays: it can be restored on another mesh, with other processes.
"""

import contextlib
import errno
import functools
import hashlib
import json
import logging
import pathlib
import sys
import traceback
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import absl.logging
import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from rkbench import errors
from rkbench.trainer import distributed

PyTree = Any


@functools.cache
def _quiet_orbax() -> None:
    """Silences what Orbax and its threads report, unless absl's verbosity is INFO or more.

    Orbax logs each missing metadata file as a warning, and also logs each error that it raises.
    When a write fails, for example on a full disk, its event loop closes: each write that ends
    later, and each further failure, would print a traceback. The failure itself is raised by the
    next call.
    """
    logging.getLogger("absl").addFilter(lambda record: _is_wanted([record.pathname]))
    logging.getLogger("asyncio").addFilter(lambda record: _is_wanted(_raised_in(record)))
    usual = sys.unraisablehook

    def hook(raised: "sys.UnraisableHookArgs") -> None:
        late = (
            isinstance(raised.exc_value, RuntimeError)
            and str(raised.exc_value) == "Event loop is closed"
        )
        if not late:
            usual(raised)

    sys.unraisablehook = hook


def _raised_in(record: logging.LogRecord) -> list[str]:
    """The source files that the error of a log line came through."""
    trace = record.exc_info[2] if record.exc_info else None
    return [frame.filename for frame in traceback.extract_tb(trace)]


def _is_wanted(files: list[str]) -> bool:
    """Whether a log line that comes of these source files is not Orbax's; see `_quiet_orbax`."""
    of_orbax = any("orbax" in pathlib.PurePath(file).parts for file in files)
    return not of_orbax or absl.logging.get_verbosity() >= absl.logging.INFO


class Restored(NamedTuple):
    """A checkpoint read back."""

    step: int
    state: PyTree
    progress: dict[str, Any]


class Checkpoints:
    """The checkpoints of one group of seeds, in a folder of their own.

    Attributes:
      folder: that folder.
      set_aside: how many damaged ones `restore` has moved aside.
    """

    KEPT = 2  # the newest and one to fall back to

    def __init__(self, folder: pathlib.Path):
        _quiet_orbax()
        self.folder = folder
        self.set_aside = 0
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(
            max_to_keep=self.KEPT, cleanup_tmp_directories=True, enable_async_checkpointing=True
        )
        return ocp.CheckpointManager(self.folder.absolute(), options=options)

    def save(self, step: int, state: PyTree, progress: dict[str, Any]) -> None:
        """Starts writing `state` and `progress` (JSON) as the checkpoint of `step`.

        The state is copied first: its buffers are given up to the next step while a thread writes.
        """
        copy = jax.tree.map(jnp.copy, state)
        progress = progress | {"checksum": checksum(copy)}
        arguments = ocp.args.Composite(
            state=ocp.args.StandardSave(copy),
            progress=ocp.args.JsonSave(progress | {"sha256": _sha256(progress)}),
        )
        with self._writing():
            self._manager.save(step, args=arguments, force=True)

    def restore(
        self, template: PyTree, check: Callable[[dict[str, Any]], None] = lambda progress: None
    ) -> Restored | None:
        """The newest checkpoint that is whole, or None where there is none.

        A damaged one is named on stderr and moved aside, and the one before it is taken.

        Args:
          template: a state of the same structure, shapes and dtypes, placed on the devices as the
            restored one is to be.
          check: raises a ValueError for the `progress` of a checkpoint that is of no use.

        Raises:
          UserError: one does not fit the template; see `check_fit`.
          OSError: a file cannot be read, which says nothing about its content.
        """
        check_fit(self.folder, template)
        for step in sorted(self._manager.all_steps(), reverse=True):
            restored, failure = None, None
            try:
                found = self._read(step, template)
                check(found.progress)
                restored = found
            except (MemoryError, jax.errors.JaxRuntimeError, errors.UserError):
                raise  # they say nothing about the files of the checkpoint
            except Exception as error:  # Orbax and its storage raise many kinds for a damaged file
                _raise_unreadable(self.folder / str(step), error)
                failure = error
            if not distributed.any_process(restored is None):
                return restored
            self._set_aside(step, failure or ValueError("another process cannot read it"))
        return None

    def _read(self, step: int, template: PyTree) -> Restored:
        abstract = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding),
            template,
        )
        parts = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(abstract), progress=ocp.args.JsonRestore()
            ),
        )
        progress = dict(parts["progress"])
        if progress.pop("sha256", None) != _sha256(progress):
            raise ValueError("its progress is not what was written")
        if progress.pop("checksum") != checksum(parts["state"]):
            raise ValueError("its checksum does not match its content")
        return Restored(step, parts["state"], progress)

    def _set_aside(self, step: int, error: Exception) -> None:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        self.set_aside += 1
        self._manager.close()
        if distributed.is_primary():
            print(
                f"rkbench: the checkpoint of step {step} is damaged ({reason[:200]}); "
                "falling back to the one before",
                file=sys.stderr,
            )
            aside = self.folder.parent / f"damaged-{self.folder.name}-{step}"
            (self.folder / str(step)).rename(unused_name(aside))
        distributed.wait_for_all(f"setting aside checkpoint {step}")
        self._manager = self._open()

    def wait(self) -> None:
        """Returns when all that was saved is on disk."""
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits and gives up the threads."""
        with self._writing():
            self._manager.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Raises an OSError for what failed in Orbax's threads.

        Orbax raises it in its next call, and the type depends on what failed.
        """
        try:
            yield
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise OSError(f"cannot write a checkpoint in {self.folder}: {reason}") from error


# Something else has the place of a file: damage, as any other content is.
_NO_FILE = (errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ELOOP)


def _raise_unreadable(folder: pathlib.Path, error: Exception) -> None:
    """Raises an OSError where `error` comes from a file that cannot be read at all.

    Orbax's storage raises the same kind of error for that and for damage, so the files are read.
    """
    if isinstance(error, OSError) and error.errno is not None and error.errno not in _NO_FILE:
        raise OSError(f"cannot read the checkpoint {folder}: {error}") from error
    for path in folder.rglob("*"):
        try:
            if path.is_dir():
                continue
            with open(path, "rb") as file:
                while file.read(1 << 20):
                    pass
        except OSError as failure:
            if failure.errno in _NO_FILE:
                continue
            raise OSError(f"cannot read the checkpoint {folder}: {failure}") from error


def check_fit(folder: pathlib.Path, template: PyTree) -> None:
    """Makes sure that the checkpoints in `folder` have the structure of `template`.

    Reads only, and passes over checkpoints that are damaged.

    Args:
      folder: of a group of seeds.
      template: a state; arrays or `jax.ShapeDtypeStruct`s.

    Raises:
      UserError: one has other leaves, dtypes or shapes; it says which.
    """
    for path in sorted(folder.glob("[0-9]*")):
        progress = _progress(path) if path.name.isdigit() else None
        if progress is None or progress["checksum"][:8] == _structure(template):
            continue
        saved, here = _saved_leaves(path), _leaves(template)
        differing = [
            f"{name}: {saved.get(name, 'nothing')} -> {here.get(name, 'nothing')}"
            for name in sorted(saved.keys() | here.keys())
            if saved.get(name) != here.get(name)
        ]
        more = f"; and {len(differing) - 5} more" if len(differing) > 5 else ""
        raise errors.UserError(
            f"the checkpoint {path} does not fit the state that this program trains: "
            f"{'; '.join(differing[:5]) or 'its parts are arranged differently'}{more}"
        )


def _progress(path: pathlib.Path) -> dict[str, Any] | None:
    """The progress of a checkpoint as it was saved, or None where it is damaged."""
    try:
        progress = json.loads((path / "progress" / "metadata").read_text(encoding="utf-8"))
        whole = progress.pop("sha256", None) == _sha256(progress)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None
    return progress if whole else None


def _saved_leaves(path: pathlib.Path) -> dict[str, str]:
    """The leaves of a checkpoint's state, as `_leaves`; {} where Orbax cannot tell them."""
    try:
        state: Any = path.absolute() / "state"
        return _leaves(ocp.StandardCheckpointHandler().metadata(state).tree)
    except Exception:  # it is damaged: then there is less to say
        return {}


def _leaves(tree: PyTree) -> dict[str, str]:
    """{"opt_state/0/count": "int32[]", ...}."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def unused_name(path: pathlib.Path) -> pathlib.Path:
    """`path`, or `path` with the first free number behind it."""
    candidates = [path, *(path.with_name(f"{path.name}.{i}") for i in range(1, 1000))]
    for candidate in candidates:
        if not candidate.exists():
            return candidate
    raise errors.UserError(f"too many damaged checkpoints beside {path}")


def _sha256(progress: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(progress, sort_keys=True).encode()).hexdigest()


def checksum(state: PyTree) -> str:
    """16 hexadecimal digits over structure, dtypes, shapes and bytes of all leaves.

    The second half is the sum, modulo 2^32, of each byte times an odd number that belongs to its
    place: any changed bit changes it, and it does not depend on how the arrays are spread over
    devices, where it is computed.
    """
    return f"{_structure(state)}{int(_weighted_sum(jax.tree.leaves(state))):08x}"


def _structure(state: PyTree) -> str:
    """The first half of `checksum`: names, dtypes and shapes."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    described = [f"{jax.tree_util.keystr(path)} {x.dtype} {x.shape}" for path, x in leaves]
    names = zlib.crc32("\n".join(described).encode())
    return f"{names:08x}"


@jax.jit
def _weighted_sum(leaves: list[jax.Array]) -> jax.Array:
    total = jnp.uint32(0)
    for number, leaf in enumerate(leaves):
        # One leaf's numbers are apart from another's, so that two exchanged leaves are noticed.
        content = leaf if leaf.dtype == bool else jax.lax.bitcast_convert_type(leaf, jnp.uint8)
        content = content.astype(jnp.uint32)
        place = jnp.uint32(0)
        for axis, size in enumerate(content.shape):
            place = place * jnp.uint32(size) + jax.lax.broadcasted_iota(
                jnp.uint32, content.shape, axis
            )
        weight = (2 * place + 1) * jnp.uint32(2 * number + 1)
        total += jnp.sum(content * weight, dtype=jnp.uint32)
    return total
