"""How a workload is compiled: loops or single steps, and the cache of compiled programs."""

import contextlib
import os
import pathlib
import time

import jax

from rkbench import errors, paths

_CLOCKS_DIFFER_SECONDS = 60.0  # those of machines that share a cache


def compiled_loops(choice: str, convolves: bool) -> bool:
    """Whether steps, stages and evaluation batches run as compiled loops.

    The rule behind "auto": yes, except for a model that uses XLA's own convolutions on a CPU. XLA's
    CPU backend runs a convolution inside a compiled loop several times slower than outside one
    (jax issue 12868), so there steps are dispatched one by one and stages are unrolled.
    `rkbench bench` measures both sides of the rule.

    Args:
      choice: the config's `compiled_loops`: "auto", "on" or "off".
      convolves: whether the model uses XLA's own convolutions.

    Raises:
      UserError: another choice.
    """
    choices = {"auto": not (convolves and jax.default_backend() == "cpu"), "on": True, "off": False}
    if choice not in choices:
        raise errors.unknown("compiled_loops", choice, choices)
    return choices[choice]


def vectorized_seeds(choice: str, streamed: bool, devices: int = 1) -> bool:
    """Whether the seeds of a run train together under `vmap` rather than one after the other.

    The rule behind "auto": together on accelerators; on a CPU one after the other is faster, since
    one seed already keeps all cores busy. With streamed data always one after the other: each seed
    has a stream of its own. Seeds that are spread over several devices are together.

    Args:
      choice: the config's `vectorize_seeds`: "auto", "on" or "off".
      streamed: whether the data is.
      devices: over which the seeds are spread, the config's `mesh.seed`.

    Raises:
      UserError: `choice` is another one, or contradicts the other two.
    """
    accelerated = jax.default_backend() != "cpu"
    choices = {"auto": (accelerated and not streamed) or devices > 1, "on": True, "off": False}
    if choice not in choices:
        raise errors.unknown("vectorize_seeds", choice, choices)
    if devices > 1 and not choices[choice]:
        raise errors.UserError(f"mesh.seed={devices} needs vectorize_seeds='on' or 'auto'")
    if streamed and choices[choice]:
        asked = f"mesh.seed={devices}" if devices > 1 else "vectorize_seeds='on'"
        raise errors.UserError(f"{asked} needs a dataset in memory; this one is streamed")
    return choices[choice]


def check_compiles() -> None:
    """Raises a UserError where JAX is told to compile nothing: here, all programs are compiled."""
    if jax.config.jax_disable_jit:  # pyright: ignore[reportAttributeAccessIssue]
        raise errors.UserError("JAX_DISABLE_JIT is set, but rkbench trains compiled programs only")


def enable_cache() -> None:
    """Keeps compiled programs between processes, so that the second start of a run is quick.

    A `JAX_COMPILATION_CACHE_DIR` of the user's own wins. Without a home folder there is no cache.
    Entries that cannot be read, as a full disk leaves them, are removed: JAX would warn of them and
    compile again at every start.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ and (folder := paths.cache_folder()):
        jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    chosen = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    if chosen and "://" not in chosen:
        with contextlib.suppress(OSError):  # a cache that cannot be written
            remove_unreadable(pathlib.Path(chosen))


def remove_unreadable(folder: pathlib.Path) -> None:
    """Removes what JAX could not read of a cache of compiled programs.

    Each entry is looked at once: the time of the file `.checked` says which are older.
    """
    begin, checked = time.time() - _CLOCKS_DIFFER_SECONDS, folder / ".checked"
    since = checked.stat().st_mtime if checked.exists() else 0.0
    for path in folder.glob("*-cache"):
        if path.stat().st_mtime >= since and not _is_readable(path.read_bytes()):
            path.unlink(missing_ok=True)
    if folder.is_dir():
        os.close(os.open(checked, os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW, 0o666))
        os.utime(checked, (begin, begin))


def _is_readable(entry: bytes) -> bool:
    from jax._src import compilation_cache

    # JAX's own: how it compresses depends on what is installed. It is not part of its API.
    decompress = getattr(compilation_cache, "decompress_executable", lambda found: True)
    try:
        return bool(decompress(entry))
    except Exception:  # of zlib or zstd, each its own
        return False
