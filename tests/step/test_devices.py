"""One config on one, two, four and eight devices: the same training, up to the order of sums."""

import numpy as np
import on_devices
import pytest

from rkbench.errors import UserError

# Sums of 2 to 8 parts in float32 in another order, carried through five steps.
TOLERANCE = 2e-5


@pytest.fixture(scope="session")
def references():
    return {}


def check(devices, references, preset, variant, mesh, changes):
    key = (preset, variant, repr(changes))
    if key not in references:
        references[key] = devices(on_devices.train, preset, variant, (1, 1, 1), changes)
    curve, test_loss, leaves = devices(on_devices.train, preset, variant, mesh, changes)
    expected_curve, expected_loss, expected_leaves = references[key]
    assert np.ptp(expected_curve[0]) > 0.01  # it trains
    np.testing.assert_allclose(curve, expected_curve, rtol=TOLERANCE)
    np.testing.assert_allclose(test_loss, expected_loss, rtol=TOLERANCE)
    for leaf, expected in zip(leaves, expected_leaves, strict=True):
        np.testing.assert_allclose(leaf, expected, rtol=1e-3, atol=TOLERANCE)


DIGITS = on_devices.tiny_digits()
CHUNKED = on_devices.tiny_digits(physical_batch_size=8)


@pytest.mark.parametrize(
    ("variant", "mesh", "changes"),
    [
        ("adam", (1, 2, 1), DIGITS),
        ("adam", (1, 1, 4), DIGITS),
        ("rk4", (1, 8, 1), DIGITS),
        ("rk4", (1, 2, 4), DIGITS),
        ("rk4_adagrad", (1, 4, 1), DIGITS),
        ("rk4_modified_adagrad", (1, 2, 2), DIGITS),
        ("rk4_momentum", (1, 8, 1), DIGITS),
        ("rk4_dalr", (1, 8, 1), CHUNKED),
        ("rk4_dalr", (1, 2, 2), CHUNKED),
        ("rk4,full", (1, 8, 1), CHUNKED | {"train_examples": 20}),  # the last chunk is half full
    ],
)
def test_optimizers(devices, references, variant, mesh, changes):
    check(devices, references, "digits_mlp", variant, mesh, changes)


def test_seeds_on_devices_of_their_own(devices, references):
    changes = on_devices.tiny_digits(seeds=(0, 3), vectorize_seeds="on")
    check(devices, references, "digits_mlp", "rk4_momentum", (2, 2, 2), changes)
    one = devices(on_devices.train, "digits_mlp", "rk4_momentum", (1, 1, 1), DIGITS)
    both = references["digits_mlp", "rk4_momentum", repr(changes)]
    np.testing.assert_allclose(both[0][:, :, 0], one[0], rtol=TOLERANCE)


NORMALISED = {"physical_batch_size": 8, "augment.mixup_alpha": 0.0}


@pytest.mark.parametrize("mixup_alpha", [0.0, 1.0])  # with mixup streamed: partners cross devices
def test_batch_norm_and_mixup_in_chunks(devices, references, mixup_alpha):
    changes = NORMALISED | {"augment.mixup_alpha": mixup_alpha}
    check(devices, references, "cifar10_wrn", "momentum", (1, 4, 1), changes)


@pytest.mark.parametrize(
    ("variant", "reduced"),
    [("adam", 1), ("rk4", 4), ("rk4_dalr", 5)],  # DALR: and the Hessian-vector product
)
@pytest.mark.parametrize("changes", [DIGITS, CHUNKED])
def test_a_step_reduces_each_gradient_once_and_moves_nothing_else(
    devices, variant, reduced, changes
):
    moved, parameters, state = devices(
        on_devices.moved_bytes, "digits_mlp", variant, (1, 4, 1), changes
    )
    loss = 4
    assert moved == {"all-reduce": reduced * parameters + loss}
    assert state >= parameters


def test_batch_norm_adds_its_statistics(devices):
    changes = NORMALISED | {"physical_batch_size": 0}
    moved, parameters, _ = devices(
        on_devices.moved_bytes, "cifar10_wrn", "momentum", (1, 4, 1), changes
    )
    # Mean and mean square, the cotangents of both, and the running mean and variance.
    statistics = (2 + 2 + 2) * 4 * on_devices.CHANNELS
    assert moved == {"all-reduce": parameters + statistics + 4}


def test_mixup_of_streamed_batches_moves_one_row_of_each_chunk(devices):
    changes = NORMALISED | {"augment.mixup_alpha": 1.0}
    moved, _, _ = devices(on_devices.moved_bytes, "cifar10_wrn", "momentum", (1, 4, 1), changes)
    image, label, chunks = 8 * 8 * 3, 4, 2
    assert moved["collective-permute"] == chunks * (image + label)
    assert moved.keys() == {"all-reduce", "collective-permute"}


def test_fsdp_cuts_the_state_and_gathers_parameters_for_each_gradient(devices):
    arguments = ("digits_mlp", "rk4_momentum")
    moved, parameters, state = devices(on_devices.moved_bytes, *arguments, (1, 1, 2), DIGITS)
    _, _, whole = devices(on_devices.moved_bytes, *arguments, (1, 2, 1), DIGITS)
    assert whole / 2 <= state < whole / 2 + 64  # counters are on each device
    assert moved["all-gather"] == 4 * parameters
    assert 4 * parameters < moved["all-reduce"] < 4 * parameters + 64


def test_a_checkpoint_of_one_mesh_restores_on_another(devices, tmp_path):
    meshes = [(1, 2, 2), (1, 1, 1), (1, 1, 8)]
    checksums, losses = devices(on_devices.carry_over, tmp_path, meshes, DIGITS)
    assert len(set(checksums)) == 1
    for other in losses[1:]:
        np.testing.assert_allclose(other, losses[0], rtol=TOLERANCE)


def refused(preset, variant, mesh, changes):
    with pytest.raises(UserError) as error:
        on_devices.experiment(preset, variant, mesh, changes)
    return str(error.value)


def test_a_batch_that_does_not_divide_is_refused_with_the_nearest_that_do(devices):
    for changes, name in (({"batch_size": 21}, "batch_size"), ({"physical_batch_size": 5}, "phys")):
        message = devices(refused, "digits_mlp", "adam", (1, 4, 1), DIGITS | changes)
        assert name in message
        assert "nearest that do: 4, 8" in message or "nearest that do: 20, 24" in message


@pytest.mark.parametrize(
    ("mesh", "changes", "said"),
    [
        ((1, 16, 1), {}, "needs 16 devices; here are 8"),
        ((1, 0, 3), {}, "products that do: 1, 2, 4, 8"),
        ((1, -1, 1), {}, "mesh.data=-1"),
        ((0, 1, 1), {}, "mesh.seed=0"),
        ((2, 1, 1), {"seeds": (0, 1, 2)}, "does not divide the 3 seeds"),
        ((2, 1, 1), {"seeds": (0, 1), "vectorize_seeds": "off"}, "vectorize_seeds"),
    ],
)
def test_a_mesh_that_cannot_be_is_refused(devices, mesh, changes, said):
    assert said in devices(refused, "digits_mlp", "adam", mesh, DIGITS | changes)
