"""Optimizers with explicit sharding and inside `jax.shard_map`, on eight devices."""

import runpy

import jax
import numpy as np
import pytest
import sharded_steps
from test_conventions import assert_all_but
from test_own_loop import EXAMPLES

# Of optax's own: contractions whose sharding is ambiguous, a singular value decomposition.
AMBIGUOUS = (
    "lbfgs contrib.dadapt_adamw contrib.galore contrib.momo contrib.momo_adam contrib.muon "
    "contrib.prodigy"
)


def test_explicit_shardings_are_kept(devices):
    assert_all_but(AMBIGUOUS, devices(sharded_steps.explicit_sharding))


@pytest.mark.parametrize("guarded", [False, True])
def test_a_mean_over_devices_inside_grad_fn_is_the_step_on_the_whole_batch(devices, guarded):
    found = devices(sharded_steps.shard_map_step, True, guarded)
    expected = devices(sharded_steps.one_device_steps)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_mean_missing_in_grad_fn_is_another_step_which_the_check_names(devices):
    found = devices(sharded_steps.shard_map_step, False, False)
    expected = devices(sharded_steps.one_device_steps)
    assert np.linalg.norm(found - expected) > 0.01 * np.linalg.norm(expected)
    with pytest.raises(Exception, match="same mean over devices"):
        devices(sharded_steps.shard_map_step, False, True)
    # JAX itself sees that the parameters are not the same on all devices.
    with pytest.raises(Exception, match=r"varying|varies|replicat"):
        devices(sharded_steps.shard_map_step, False, False, True)


def test_the_example_trains_alike_on_one_and_eight_devices(devices):
    file = EXAMPLES / "several_devices.py"
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        expected = np.array(runpy.run_path(str(file))["train"](steps=4))
    np.testing.assert_allclose(devices(sharded_steps.example, file), expected, rtol=1e-5)
