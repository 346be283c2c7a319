"""What runs in a process with eight simulated devices: trainings on a mesh, and their programs."""

import dataclasses
import importlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from streams import Streamed

from rkbench.step.collectives import moved
from rkbench.trainer.checkpoint import Checkpoints, checksum
from rkbench.trainer.experiment import Experiment
from rkbench.workloads.datasets import ArrayDataset
from rkbench.workloads.models.convolution import matmul_convolution
from rkbench.workloads.models.residual import Layers

CHANNELS = 6


def config(preset, variant, **changes):
    """A preset with fields changed, {"group.field": value}."""
    result = importlib.import_module(f"rkbench.configs.{preset}").get_config(variant)
    result.update_from_flattened_dict({"total_steps": 5, "batch_size": 16, **changes})
    return result


def tiny_digits(**changes):
    return {"model.hidden_sizes": (16,), **changes}


def colors():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (24, 8, 8, 3)).astype(np.uint8)
    examples = {"image": images, "label": rng.integers(0, 10, 24).astype(np.int32)}
    return ArrayDataset("cifar10", "1", "f", 10, 255, examples, examples)


class Normalised(nn.Module):
    """The least network with the residual networks' batch norm."""

    batch_axes: tuple[str, ...]

    @nn.compact
    def __call__(self, images, *, train):
        layers = Layers(train, matmul_convolution, jnp.float32, self.batch_axes)
        hidden = layers.convolution(CHANNELS, 3, name="convolution")(images)
        return layers.head(nn.relu(layers.batch_norm("norm")(hidden)), 10)


def experiment(preset, variant, mesh, changes):
    """A preset on a mesh; `cifar10_wrn` with `Normalised` for its model, on images of noise."""
    axes = dict(zip(("mesh.seed", "mesh.data", "mesh.fsdp"), mesh, strict=True))
    settings = config(preset, variant, **changes, **axes)
    if preset != "cifar10_wrn":
        return Experiment.from_config(settings)
    dataset = colors()
    if changes.get("augment.mixup_alpha"):
        dataset = Streamed(dataset)
    made = Experiment.from_config(settings, dataset)
    model = Normalised(made.workload.model.batch_axes)
    workload = dataclasses.replace(made.workload, model=model, convolves=False)
    programs = dataclasses.replace(made.programs, workload=workload, loop=True)
    return dataclasses.replace(made, programs=programs)


def train(preset, variant, mesh, changes):
    """(batches' losses and gradient norms, test losses, parameters) of a few steps, as arrays."""
    made = experiment(preset, variant, mesh, changes)
    seeds = made.seed_groups[0]
    state, history = made.program.advance(made.program.init(seeds), seeds, 0, 5)
    evaluated = made.evaluator(state.params, state.model_state, made.splits["test"])
    curve = np.stack([np.asarray(leaf)[:5] for leaf in (history.loss, history.grad_norm)])
    leaves = jax.tree.leaves((state.params, state.model_state))
    return curve, evaluated["loss"], [np.asarray(leaf) for leaf in leaves]


def carry_over(folder, meshes, changes):
    """A state trained on one mesh, saved, restored on another: (checksums, its next losses)."""
    checksums, losses = [], []
    for mesh in meshes:
        made = experiment("digits_mlp", "rk4_momentum", mesh, changes)
        seeds, template = made.seed_groups[0], made.program.init(made.seed_groups[0])
        checkpoints = Checkpoints(folder)
        restored = checkpoints.restore(template)
        if restored is None:
            state, _ = made.program.advance(template, seeds, 0, 3)
            checkpoints.save(3, state, {})
        else:
            state = restored.state
            placed = jax.tree.map(
                lambda one, other: one.sharding == other.sharding, state, template
            )
            assert all(jax.tree.leaves(placed))
        checkpoints.close()
        checksums.append(checksum(state))
        _, history = made.program.advance(state, seeds, 3, 2)
        losses.append(np.asarray(history.loss)[:2])
    return checksums, losses


def moved_bytes(preset, variant, mesh, changes):
    """(bytes by kind of collective in one step, bytes of the parameters, of state on a device)."""
    made = experiment(preset, variant, mesh, {"compiled_loops": "off", **changes})
    state = made.program.init(made.seed_groups[0])
    compiled = made.program.compile(state, made.seed_groups[0])
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(state.params))
    here = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(state))
    bytes_moved = {kind: each.bytes for kind, each in moved(compiled.as_text() or "").items()}
    return bytes_moved, whole, here
