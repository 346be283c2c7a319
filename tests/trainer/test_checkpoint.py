import itertools
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rkbench.trainer import checkpoint
from rkbench.trainer.checkpoint import Checkpoints, checksum


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints" / "seed-0"


def state(value):
    return {"w": jnp.full((3, 2), value, jnp.float32), "count": jnp.int32(value)}


def filled(folder, *steps):
    checkpoints = Checkpoints(folder)
    for step in steps:
        checkpoints.save(step, state(step), {"seconds": step / 2, "diverged": {}})
    checkpoints.close()
    return Checkpoints(folder)


def test_round_trip_keeps_every_bit_and_the_progress(folder):
    restored = filled(folder, 10, 20).restore(state(0))
    assert restored.step == 20
    assert restored.progress == {"seconds": 10.0, "diverged": {}}
    assert checksum(restored.state) == checksum(state(20))


def test_nothing_to_restore(folder):
    assert Checkpoints(folder).restore(state(0)) is None


def test_only_the_newest_two_are_kept(folder):
    filled(folder, 10, 20, 30).close()
    assert sorted(path.name for path in folder.iterdir() if path.name.isdigit()) == ["20", "30"]


def largest_file(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def truncate(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip_bit(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def flip_array_bits(folder):
    """Flips a bit in every file of the state."""
    for file in (folder / "state").rglob("*"):
        if file.is_file() and file.stat().st_size:
            flip_bit(file)


@pytest.mark.parametrize("damage", [truncate, flip_bit])
def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(folder, damage, capsys):
    filled(folder, 10, 20).close()
    for file in (folder / "20" / "state").rglob("*"):
        if file.is_file() and file.stat().st_size > 1:
            damage(file)
    checkpoints = Checkpoints(folder)
    restored = checkpoints.restore(state(0))
    assert restored.step == 10
    assert checksum(restored.state) == checksum(state(10))
    assert "checkpoint of step 20 is damaged" in capsys.readouterr().err
    assert (folder.parent / "damaged-seed-0-20").is_dir()
    checkpoints.save(20, state(20), {"seconds": 1.0, "diverged": {}})
    checkpoints.close()
    assert Checkpoints(folder).restore(state(0)).step == 20


def test_values_changed_without_a_trace_are_noticed_by_the_checksum(folder, capsys):
    filled(folder, 10).close()
    other = filled(folder.parent / "seed-1", 10)
    other.close()
    # A valid state of other values in place of the right one.
    checkpoints = Checkpoints(folder.parent / "seed-2")
    checkpoints.save(10, state(11), {"seconds": 0.0, "diverged": {}})
    checkpoints.close()
    (folder / "10" / "state").rename(folder / "old")
    (folder.parent / "seed-2" / "10" / "state").rename(folder / "10" / "state")
    assert Checkpoints(folder).restore(state(0)) is None
    assert "checksum" in capsys.readouterr().err


def test_a_changed_number_in_the_progress_is_noticed(folder, capsys):
    filled(folder, 10, 20).close()
    (path,) = (folder / "20" / "progress").glob("metadata")
    path.write_text(path.read_text().replace('"seconds": 10.0', '"seconds": 11.0'))
    assert "11.0" in path.read_text()
    assert Checkpoints(folder).restore(state(0)).step == 10
    assert "its progress is not what was written" in capsys.readouterr().err


def test_a_checkpoint_that_the_caller_refuses_is_passed_over(folder, capsys):
    def refuse(progress):
        if progress["seconds"] == 10.0:
            raise ValueError("of no use")

    assert filled(folder, 10, 20).restore(state(0), refuse).step == 10
    assert "checkpoint of step 20 is damaged (of no use)" in capsys.readouterr().err


def test_the_saved_values_are_those_of_the_call(folder):
    """The trainer gives up the buffers of a state that is still being written."""
    checkpoints = Checkpoints(folder)
    zeros = {"w": jnp.zeros(100_000, jnp.float32)}
    checkpoints.save(1, zeros, {"seconds": 0.0, "diverged": {}})
    ones = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)(zeros)
    assert zeros["w"].is_deleted()
    checkpoints.close()
    restored = Checkpoints(folder).restore(ones)
    assert not restored.state["w"].any()


@pytest.mark.parametrize("leaf", ["w", "count", "on"])
def test_any_flipped_bit_changes_the_checksum(leaf):
    original = {
        "w": np.arange(6, dtype=np.float32).reshape(3, 2),
        "count": np.int32(7),
        "on": np.array([True, False]),
    }
    expected = checksum(jax.tree.map(jnp.asarray, original))
    content = np.frombuffer(original[leaf].tobytes(), np.uint8)
    bits = [0] if leaf == "on" else range(8)  # a boolean has one bit
    for byte, bit in itertools.product(range(len(content)), bits):
        changed = content.copy()
        changed[byte] ^= 1 << bit
        array = changed.view(original[leaf].dtype).reshape(original[leaf].shape)
        assert checksum(jax.tree.map(jnp.asarray, original | {leaf: array})) != expected


def test_the_checksum_tells_places_names_and_dtypes_apart():
    one = {"a": jnp.array([1, 2], jnp.int32), "b": jnp.array([3, 4], jnp.int32)}
    others = [
        {"a": one["b"], "b": one["a"]},
        {"a": one["a"][::-1], "b": one["b"]},
        {"a": one["a"], "c": one["b"]},
        {"a": one["a"], "b": one["b"].astype(jnp.uint32)},
        {"a": one["a"][None], "b": one["b"]},
    ]
    assert len({checksum(tree) for tree in [one, *others]}) == 6


def test_a_write_that_ends_after_another_has_failed_prints_no_traceback(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    checkpoint._quiet_orbax.cache_clear()
    Checkpoints(tmp_path).close()
    errors = [RuntimeError("Event loop is closed"), RuntimeError("another")]
    for error in errors:
        sys.unraisablehook(types.SimpleNamespace(exc_value=error))  # pyright: ignore
    assert [one.exc_value for one in told] == errors[1:]
