"""The compiled program: no sync, no recompilation, each stage of a chain traced once."""

import os
import warnings

import jax
import jax.numpy as jnp
import pytest

from rkbench.configs import digits_mlp
from rkbench.step import compilation
from rkbench.trainer.experiment import Experiment

pytestmark = pytest.mark.standard_promotion


def program(variant, **changes):
    config = digits_mlp.get_config(variant)
    config.update({"total_steps": 50, "tensorboard": False} | changes)
    return Experiment.from_config(config.lock()).program


def gradients(variant, **changes):
    """How many gradients the lowered program holds, by its matrix products."""
    one = program(variant, **changes)
    state = jax.eval_shape(lambda: one.init((0,)))
    products = one.lower(state, (0,)).as_text().count("stablehlo.dot_general")
    layers = 3
    norm = layers  # a product a weight matrix, for the gradient's norm
    gradient = 3 * layers - 1  # forward, and backward to weights and to all inputs but the first
    return (products - norm) / gradient


def test_the_stages_of_a_chain_are_traced_once():
    assert gradients("sgd") == 1
    assert gradients("rk4") == gradients("midpoint") == 2  # the first stage and the loop's
    assert gradients("rk4", compiled_loops="off") == 4
    assert gradients("kutta3") == 3


def test_another_rate_seed_schedule_or_number_of_steps_is_not_another_program():
    def text(seed=0, **changes):
        one = program("rk4", **changes)
        state = jax.eval_shape(lambda: one.init((seed,)))
        return one.lower(state, (seed,)).as_text()

    first = text()
    assert text(seed=7) == first
    assert text(optimizer={"learning_rate": 0.01}) == first
    assert text(schedule={"name": "cosine"}) == first
    assert text(total_steps=400) == first


def test_steps_make_no_transfer_that_is_not_asked_for():
    one = program("rk4_dalr")
    state = one.init((0,))
    state, _ = one.advance(state, (0,), 0, 3)
    with jax.transfer_guard_device_to_host("disallow"):
        state, metrics = one.advance(state, (0,), 3, 40)
        jax.block_until_ready(state)
    assert one.compilations == 1
    assert len(metrics.loss) >= 40


@pytest.fixture
def compiled(tmp_path, monkeypatch):
    """A cache of compiled programs of the test's own."""
    from jax.experimental.compilation_cache import compilation_cache

    monkeypatch.setenv("RKBENCH_CACHE_DIR", str(tmp_path))
    before = jax.config.jax_compilation_cache_dir
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    settings = ("jax_persistent_cache_min_compile_time_secs", 0.0)
    old = jax.config.jax_persistent_cache_min_compile_time_secs
    compilation_cache.reset_cache()
    yield lambda: (compilation.enable_cache(), jax.config.update(*settings))
    compilation_cache.reset_cache()
    jax.config.update("jax_compilation_cache_dir", before)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", old)


@pytest.mark.parametrize("cut", [0, 1, 0.5])
def test_an_entry_that_was_cut_short_is_made_again(tmp_path, compiled, cut):
    def start():
        jax.clear_caches()
        compiled()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            jax.jit(lambda x: 2 * x + 17)(jnp.ones(3))
        return {p.name: p.read_bytes() for p in (tmp_path / "compiled").glob("jit__lambda*-cache")}

    ((name, content),) = start().items()
    path = tmp_path / "compiled" / name
    path.write_bytes(content[: int(cut * len(content)) if cut < 1 else -1])
    (again,) = start().values()
    assert len(again) > len(content) // 2
    assert compilation._is_readable(again)


def test_entries_are_looked_at_once(tmp_path, monkeypatch):
    looked = []
    monkeypatch.setattr(compilation, "_is_readable", lambda entry: looked.append(entry) or True)
    (tmp_path / "old-cache").write_bytes(b"old")
    os.utime(tmp_path / "old-cache", (1e9, 1e9))
    compilation.remove_unreadable(tmp_path)
    (tmp_path / "new-cache").write_bytes(b"new")
    compilation.remove_unreadable(tmp_path)
    assert looked == [b"old", b"new"]
    compilation.remove_unreadable(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
