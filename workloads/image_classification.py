"""Image classification: data x augmentation x input scaling x Flax Linen model x cross-entropy."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from rkbench.errors import UserError, unknown
from workloads.augment import Augmentation, mix
from workloads.base import Batch, ModelState, Params
from workloads.datasets import ArrayDataset

Scaling = Callable[[jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True, eq=False)
class ImageClassification:
    """Implements `workloads.base.Workload` with the mean cross-entropy as the training loss.

    Attributes:
      name: the workload's.
      dataset: the examples.
      model: called as `model(images, train=...)`, gives float32 logits [B, num_classes].
      scale: maps images as stored (uint8, or float32 of the same range) to the float32 inputs.
      l2: the penalty's factor.
      label_smoothing: the mass spread over all classes, in [0, 1).
      convolves: see `Workload`.
      augment: acts on the training examples in `losses`, never in `evaluate`.
      dtype: what the inputs are cast to: the dtype in which the model computes.
    """

    name: str
    dataset: ArrayDataset
    model: nn.Module
    scale: Scaling
    l2: float
    label_smoothing: float
    convolves: bool
    augment: Augmentation
    dtype: jnp.dtype

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
            **self.dataset.subset_of,
        }

    @property
    def pairs(self) -> bool:
        return self.augment.pairs

    def init(self, key: jax.Array) -> tuple[Params, ModelState]:
        images = self._inputs(jnp.asarray(self.train["image"][:1]))
        variables = dict(self.model.init(key, images, train=False))
        return variables.pop("params"), variables

    def losses(
        self, params: Params, model_state: ModelState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, ModelState]:
        augment_key, dropout_key = jax.random.split(key)
        images, shares = self.augment(batch, augment_key)
        logits, new_model_state = self.model.apply(
            {"params": params, **model_state},
            self._inputs(images),
            train=True,
            mutable=list(model_state),
            # Each chunk of a batch has units of its own dropped.
            rngs={"dropout": jax.random.fold_in(dropout_key, batch["position"][0])},
        )
        return self._loss(logits, batch, shares), dict(new_model_state)

    def _inputs(self, images: jax.Array) -> jax.Array:
        return self.scale(images).astype(self.dtype)

    def _loss(self, logits: jax.Array, batch: Batch, shares: jax.Array | None) -> jax.Array:
        """The cross-entropy, float32 [B]: with the labels, or with targets mixed or smoothed.

        Targets are mixed as the images are, then smoothed as optax does.
        """
        if shares is None and not self.label_smoothing:
            return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        targets = jax.nn.one_hot(batch["label"], logits.shape[-1])
        if shares is not None:
            partners = jax.nn.one_hot(batch["partner"]["label"], logits.shape[-1])
            targets = mix(targets, partners, shares)
        targets = optax.smooth_labels(targets, self.label_smoothing)
        return optax.softmax_cross_entropy(logits, targets)

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
        images = self._inputs(batch["image"])
        logits, _ = self.model.apply(
            {"params": params, **model_state}, images, train=False, mutable=[]
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        correct = jnp.argmax(logits, axis=-1) == batch["label"]
        return losses, correct.astype(jnp.float32)


def _raw(dataset: ArrayDataset) -> Scaling:
    """Pixels as they are, 0 to `max_value`."""
    del dataset
    return lambda images: images.astype(jnp.float32)


def _unit(dataset: ArrayDataset) -> Scaling:
    """Pixels divided by `max_value`: [0, 1]."""
    return lambda images: images.astype(jnp.float32) / dataset.max_value


def _standardized(dataset: ArrayDataset) -> Scaling:
    """Mean 0, standard deviation 1 over all pixels of the training set (two scalars)."""
    return _affine(*_moments(dataset.train["image"], dataset.max_value))


def _channel_standardized(dataset: ArrayDataset) -> Scaling:
    """Mean 0, standard deviation 1 of each channel over the training set."""
    images = dataset.train["image"]
    channels = [_moments(images[..., c], dataset.max_value) for c in range(images.shape[-1])]
    means, stds = np.array(channels).T.reshape(2, 1, 1, 1, -1)
    return _affine(means, stds)


def _affine(mean: np.floating | np.ndarray, std: np.floating | np.ndarray) -> Scaling:
    mean, std = mean.astype(np.float32), std.astype(np.float32)
    return lambda images: (images.astype(jnp.float32) - mean) / std


def _moments(pixels: np.ndarray, max_value: int) -> tuple[np.float64, np.float64]:
    """Mean and standard deviation of unsigned integers up to `max_value`, by their counts."""
    counts = sum(
        np.bincount(part.ravel(), minlength=max_value + 1)
        for part in np.array_split(pixels, 64)  # bounds the memory
    )
    values = np.arange(max_value + 1)
    mean = np.average(values, weights=counts)
    return mean, np.sqrt(np.average((values - mean) ** 2, weights=counts))


_SCALINGS = {
    "raw": _raw,
    "unit": _unit,
    "standardized": _standardized,
    "channel_standardized": _channel_standardized,
}
_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def input_scaling(name: str, dataset: ArrayDataset) -> Scaling:
    """The scaling called `name`, a key of `_SCALINGS`; UserError for any other name."""
    if name not in _SCALINGS:
        raise unknown("input_scaling", name, _SCALINGS)
    return _SCALINGS[name](dataset)


def compute_dtype(name: str) -> jnp.dtype:
    """The dtype called `name` ("float32" or "bfloat16"); UserError for any other name."""
    if name not in _DTYPES:
        raise unknown("dtype", name, _DTYPES)
    return jnp.dtype(_DTYPES[name])
