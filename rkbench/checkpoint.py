"""Checkpoints by Orbax: asynchronous, checked by a digest, the newest sound one restored."""

import contextlib
import hashlib
import json
import logging
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from rkbench import errors

PyTree = Any


class Restored(NamedTuple):
    """A checkpoint read back."""

    step: int
    state: PyTree
    progress: dict[str, Any]


class Checkpoints:
    """The checkpoints of one group of seeds, in a folder of their own."""

    KEPT = 2  # the newest and one to fall back to

    def __init__(self, folder: pathlib.Path):
        # Orbax reports each step of a save at INFO, each missing metadata file at WARNING, and what
        # it raises at ERROR too.
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        self._folder = folder
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(
            max_to_keep=self.KEPT, cleanup_tmp_directories=True, enable_async_checkpointing=True
        )
        return ocp.CheckpointManager(self._folder.absolute(), options=options)

    def save(self, step: int, state: PyTree, progress: dict[str, Any]) -> None:
        """Starts writing `state` and `progress` (JSON) as the checkpoint of `step`.

        The state is copied first: its buffers are given up to the next step while a thread writes.
        """
        copy = jax.tree.map(lambda leaf: np.array(leaf, copy=True), state)
        progress = progress | {"digest": digest(copy)}
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
          template: a state of the same structure, shapes and dtypes.
          check: raises a ValueError for the `progress` of a checkpoint that is of no use.
        """
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                restored = self._read(step, template)
                check(restored.progress)
                return restored
            except Exception as error:  # Orbax and its storage raise many kinds for a damaged file
                self._set_aside(step, error)
        return None

    def _read(self, step: int, template: PyTree) -> Restored:
        abstract = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), template)
        parts = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(abstract), progress=ocp.args.JsonRestore()
            ),
        )
        progress = dict(parts["progress"])
        # Older checkpoints have none.
        if progress.pop("sha256", None) not in (None, _sha256(progress)):
            raise ValueError("its progress is not what was written")
        if progress.pop("digest") != digest(parts["state"]):
            raise ValueError("its digest does not match its content")
        return Restored(step, parts["state"], progress)

    def _set_aside(self, step: int, error: Exception) -> None:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        folder = self._folder / str(step)
        print(
            f"rkbench: the checkpoint of step {step} is damaged ({reason[:200]}); "
            "falling back to the one before",
            file=sys.stderr,
        )
        self._manager.close()
        folder.rename(unused_name(self._folder.parent / f"damaged-{self._folder.name}-{step}"))
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
        """What fails in Orbax's threads is raised by its next call, as many kinds of error."""
        try:
            yield
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise OSError(f"cannot write a checkpoint in {self._folder}: {reason}") from error


def unused_name(path: pathlib.Path) -> pathlib.Path:
    """`path`, or `path` with the first free number behind it."""
    candidates = [path, *(path.with_name(f"{path.name}.{i}") for i in range(1, 1000))]
    for candidate in candidates:
        if not candidate.exists():
            return candidate
    raise errors.UserError(f"too many damaged checkpoints beside {path}")


def _sha256(progress: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(progress, sort_keys=True).encode()).hexdigest()


def digest(state: PyTree) -> str:
    """SHA-256 over structure, dtypes, shapes and bytes of all leaves."""
    sha = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        array = np.ascontiguousarray(leaf)
        sha.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        sha.update(array.data)
    return sha.hexdigest()
