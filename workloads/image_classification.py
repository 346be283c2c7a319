"""Image classification: array dataset x Flax Linen model x input scaling x cross-entropy."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from rkbench.errors import UserError, unknown
from workloads.base import Batch, ModelState, Params
from workloads.datasets import ArrayDataset

Scaling = Callable[[jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True, eq=False)
class ImageClassification:
    """Implements `workloads.base.Workload` with the mean cross-entropy as the training loss.

    `scale` maps stored uint8 images to the float32 inputs of `model`; `l2` is the penalty's factor
    and `label_smoothing` the mass spread over all classes, in [0, 1).
    """

    name: str
    dataset: ArrayDataset
    model: nn.Module
    scale: Scaling
    l2: float
    label_smoothing: float
    convolves: bool

    def __post_init__(self):
        if not 0 <= self.l2 < float("inf"):
            raise UserError(f"l2 is {self.l2}, must be a finite number >= 0")
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f"label_smoothing is {self.label_smoothing}, must be in [0, 1)")

    @property
    def train(self) -> dict[str, np.ndarray]:
        return self.dataset.train

    @property
    def test(self) -> dict[str, np.ndarray]:
        return self.dataset.test

    @property
    def provenance(self) -> dict[str, Any]:
        return {
            "name": self.dataset.name,
            "version": self.dataset.version,
            "fingerprint": self.dataset.fingerprint,
            "train_examples": len(self.train["label"]),
            "test_examples": len(self.test["label"]),
        }

    def init(self, key: jax.Array) -> tuple[Params, ModelState]:
        images = self.scale(jnp.asarray(self.train["image"][:1]))
        variables = dict(self.model.init(key, images, train=False))
        return variables.pop("params"), variables

    def losses(
        self, params: Params, model_state: ModelState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, ModelState]:
        logits, new_model_state = self.model.apply(
            {"params": params, **model_state},
            self.scale(batch["image"]),
            train=True,
            mutable=list(model_state),
            rngs={"dropout": key},
        )
        return _cross_entropy(logits, batch["label"], self.label_smoothing), dict(new_model_state)

    def penalty(self, params: Params) -> jax.Array:
        """0.5 * l2 * sum of squares of the parameters of rank >= 2: no biases, no scales.

        This is init2winit's L2 penalty, from which the paper's CNN baselines come.
        """
        if not self.l2:
            return jnp.zeros((), jnp.float32)
        squares = [jnp.sum(jnp.square(w)) for w in jax.tree.leaves(params) if w.ndim >= 2]
        return 0.5 * self.l2 * sum(squares, jnp.zeros((), jnp.float32))

    def evaluate(
        self, params: Params, model_state: ModelState, batch: Batch
    ) -> tuple[jax.Array, jax.Array]:
        images = self.scale(batch["image"])
        logits, _ = self.model.apply(
            {"params": params, **model_state}, images, train=False, mutable=[]
        )
        correct = jnp.argmax(logits, axis=-1) == batch["label"]
        return _cross_entropy(logits, batch["label"], 0.0), correct.astype(jnp.float32)


def _cross_entropy(logits: jax.Array, labels: jax.Array, label_smoothing: float) -> jax.Array:
    """[B] float32 from logits [B, K] and labels [B]; the smoothed target is optax's."""
    if not label_smoothing:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), label_smoothing)
    return optax.softmax_cross_entropy(logits, targets)


def _raw(dataset: ArrayDataset) -> Scaling:
    """Pixels as they are, 0 to `max_value`."""
    del dataset
    return lambda images: images.astype(jnp.float32)


def _unit(dataset: ArrayDataset) -> Scaling:
    """Pixels divided by `max_value`: [0, 1]."""
    return lambda images: images.astype(jnp.float32) / dataset.max_value


def _standardized(dataset: ArrayDataset) -> Scaling:
    """Mean 0, standard deviation 1 over all pixels of the training set (two scalars)."""
    counts = sum(
        np.bincount(images.ravel(), minlength=dataset.max_value + 1)
        for images in np.array_split(dataset.train["image"], 64)  # bounds the memory
    )
    values = np.arange(dataset.max_value + 1)
    mean = np.average(values, weights=counts)
    std = np.sqrt(np.average((values - mean) ** 2, weights=counts))
    return lambda images: (images.astype(jnp.float32) - np.float32(mean)) / np.float32(std)


_SCALINGS = {"raw": _raw, "unit": _unit, "standardized": _standardized}


def input_scaling(name: str, dataset: ArrayDataset) -> Scaling:
    """The scaling called `name` ("raw", "unit" or "standardized"); UserError for any other name."""
    if name not in _SCALINGS:
        raise unknown("input_scaling", name, _SCALINGS)
    return _SCALINGS[name](dataset)
