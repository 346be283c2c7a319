"""The ImageNet workload: its contract, its training with every family, and exact resuming."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from imagenet_data import examples, jpeg, picture, write
from resuming import check_resuming, contents, log

from rkbench import workloads
from rkbench.configs import imagenet_vit
from rkbench.errors import UserError
from rkbench.train import train_and_evaluate

pytestmark = pytest.mark.standard_promotion


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    write(folder, {"train": examples(23), "validation": examples(11)}, per_shard=6)
    return str(folder)


def config(data_dir, variant="rk4", **changes: Any):
    result = imagenet_vit.get_config(f"{variant},smoke")
    settings = {"batch_size": 6, "total_steps": 6, "eval_every_steps": 3, "log_every_steps": 1}
    small = {"checkpoint_every_steps": 2, "eval_batch_size": 4, "train_eval_size": 7}
    result.update(settings | small | {"data_dir": data_dir, "tensorboard": False} | changes)
    return result


def test_contract_in_full_size(data_dir):
    """Shapes and dtypes: nothing is computed."""
    full = imagenet_vit.get_config("nadamw")
    full.data_dir, full.input_workers = data_dir, 0
    workload = workloads.create(full)
    assert (workload.name, workload.convolves, workload.pairs) == ("imagenet_vit", False, True)
    params, state = jax.eval_shape(workload.init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 86_415_592
    assert state == {}
    batch: dict[str, Any] = {
        name: jnp.zeros((2, *leaf.shape), leaf.dtype) for name, leaf in workload.train.spec.items()
    }
    batch["position"] = jnp.arange(2)
    batch["partner"] = dict(batch)
    losses, _ = jax.eval_shape(workload.losses, params, state, batch, jax.random.key(1))
    assert (losses.shape, losses.dtype) == ((2,), jnp.float32)
    assert workload.provenance["full_test_examples"] == 50_000


@pytest.mark.parametrize("variant", ["nadamw", "rk4_dalr"])
def test_every_family_trains_and_the_loss_falls(tmp_path, data_dir, variant):
    record = train_and_evaluate(config(data_dir, variant, total_steps=12).lock(), tmp_path)
    assert record["data"]["subset"] is True
    lines = [line for line in log(tmp_path) if "train/loss" in line]
    assert lines[-1]["train/loss"] < lines[0]["train/loss"] == pytest.approx(np.log(1000), rel=1e-5)


def test_a_killed_run_resumes_bit_for_bit_though_the_data_was_gone_for_a_while(
    tmp_path, monkeypatch, data_dir
):
    configuration = config(data_dir)
    configuration.model.dropout = 0.1
    configuration.augment.rand_augment_layers = 2

    def start_without_data(workdir):
        before = contents(workdir)
        gone = pathlib.Path(data_dir).rename(tmp_path / "gone")
        with pytest.raises(UserError, match=r"imagenet2012 5\.1\.0 is neither in"):
            train_and_evaluate(configuration, workdir)
        gone.rename(data_dir)
        assert contents(workdir) == before

    check_resuming(monkeypatch, tmp_path, configuration.lock(), 4, start_without_data)


def test_worker_processes_and_chunks_change_no_batch(tmp_path, data_dir):
    runs = {"alone": {}, "workers": {"input_workers": 1}, "chunks": {"physical_batch_size": 2}}
    for name, changes in runs.items():
        configuration = config(data_dir, "nadamw", total_steps=3, **changes)
        configuration.model.dropout = 0.1
        train_and_evaluate(configuration.lock(), tmp_path / name)
    assert log(tmp_path / "workers") == log(tmp_path / "alone")
    for one, other in zip(log(tmp_path / "chunks"), log(tmp_path / "alone"), strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-5)


def test_a_replaced_image_is_counted_in_the_log(tmp_path):
    damaged = examples(7)
    damaged[2] = damaged[2] | {"image": jpeg(picture(2))[:200]}
    write(tmp_path, {"train": damaged, "validation": examples(3)}, per_shard=4)
    settings: dict[str, Any] = {"batch_size": 7, "total_steps": 4, "eval_every_steps": 2}
    settings["train_eval_size"] = 2
    skipping = config(str(tmp_path), **settings, on_corrupt="skip").lock()
    train_and_evaluate(skipping, tmp_path / "run")
    counts = [line["input/replaced"] for line in log(tmp_path / "run") if "test/loss" in line]
    assert counts == [0, 2, 4]  # one in each batch of all seven
    with pytest.raises(UserError, match=r"record 2 \(picture_2.jpg\): damaged JPEG"):
        train_and_evaluate(config(str(tmp_path), **settings).lock(), tmp_path / "other")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_workers": -2}, "input_workers is -2"),
        ({"on_corrupt": "skp"}, "unknown on_corrupt 'skp'; nearest: skip"),
        ({"augment.rand_augment_layers": -1}, "-1 layers"),
        ({"model.variant": "B/17"}, "not whole patches of 17x17"),
        ({"model.dropout": 1.0}, "dropout is 1.0"),
        ({"data_dir": "/nowhere"}, "neither in /nowhere"),
    ],
)
def test_bad_settings_are_named(data_dir, changes, message):
    configuration = config(data_dir)
    configuration.update_from_flattened_dict(changes)
    with pytest.raises(UserError, match=message):
        jax.eval_shape(lambda: workloads.create(configuration).init(jax.random.key(0)))
