"""What runs in a process with eight simulated devices: trainings on a mesh, and their programs."""

import dataclasses
import importlib
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from streams import Streamed

from rkbench.experiment import Experiment
from workloads.datasets import ArrayDataset
from workloads.models.convolution import matmul_convolution
from workloads.models.residual import Layers

CHANNELS = 6


def config(preset, variant, **changes):
    """A preset with fields changed, {"group.field": value}."""
    result = importlib.import_module(f"configs.{preset}").get_config(variant)
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
    return dataclasses.replace(made, workload=workload, loop=True)


def train(preset, variant, mesh, changes):
    """(batches' losses and gradient norms, test losses, parameters) of a few steps, as arrays."""
    made = experiment(preset, variant, mesh, changes)
    seeds = made.seed_groups[0]
    state, history = made.program.advance(made.program.init(seeds), seeds, 0, 5)
    evaluated = made.evaluator(state.params, state.model_state, made.splits["test"])
    curve = np.stack([np.asarray(leaf)[:5] for leaf in (history.loss, history.grad_norm)])
    leaves = jax.tree.leaves((state.params, state.model_state))
    return curve, evaluated["loss"], [np.asarray(leaf) for leaf in leaves]


_SHAPE = re.compile(r"(f32|s32|u32|u8|pred)\[([\d,]*)\]")
_BYTES = {"f32": 4, "s32": 4, "u32": 4, "u8": 1, "pred": 1}
_COLLECTIVE = re.compile(
    r" = (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(-start)?\("
)


def collectives(text):
    """{kind: bytes that its results have} of a compiled program without loops."""
    moved = {}
    for line in text.splitlines():
        if match := _COLLECTIVE.search(line):
            sizes = (
                _BYTES[dtype] * int(np.prod([int(n) for n in shape.split(",") if n]))
                for dtype, shape in _SHAPE.findall(match[1])
            )
            moved[match[2]] = moved.get(match[2], 0) + sum(sizes)
    return moved


def moved_bytes(preset, variant, mesh, changes):
    """(bytes by kind of collective in one step, bytes of the parameters, of state on a device)."""
    made = experiment(preset, variant, mesh, {"compiled_loops": "off", **changes})
    state = made.program.init(made.seed_groups[0])
    compiled = made.program.compile(state, made.seed_groups[0])
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(state.params))
    here = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(state))
    return collectives(compiled.as_text()), whole, here
