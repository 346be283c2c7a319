"""Image classification: data x augmentation x input scaling x Flax Linen model x cross-entropy."""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from rkbench.errors import UserError, unknown
from rkbench.workloads.augment import Augmentation, example_keys, mix
from rkbench.workloads.base import Batch, Examples, ModelState, Params
from rkbench.workloads.datasets import ArrayDataset, moments, subset_of

Scaling = Callable[[jax.Array], jax.Array]


class Dataset(Protocol):
    """What a workload needs to know: `ArrayDataset` in memory, or `imagenet.dataset.ImageNet`."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def fingerprint(self) -> str:
        """Tells one preparation of a version from another (a subset from the whole)."""
        ...

    @property
    def sha256(self) -> str | None:
        """Over all pixels and labels of the whole dataset; None: unknown."""
        ...

    @property
    def num_classes(self) -> int: ...

    @property
    def max_value(self) -> int: ...

    @property
    def image_shape(self) -> tuple[int, ...]: ...

    @property
    def train(self) -> Examples: ...

    @property
    def test(self) -> Examples: ...

    @property
    def validation(self) -> dict[str, np.ndarray] | None: ...

    @property
    def sizes(self) -> tuple[int, int]: ...

    @property
    def published(self) -> tuple[int, int] | None:
        """The number of (training, test) examples of the whole dataset; None: `sizes`."""
        ...

    def channel_moments(self) -> tuple[np.ndarray, np.ndarray]: ...


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
      drops: whether the model has dropout.
    """

    name: str
    dataset: Dataset
    model: nn.Module
    scale: Scaling
    l2: float
    label_smoothing: float
    convolves: bool
    augment: Augmentation
    dtype: jnp.dtype
    drops: bool = False

    def __post_init__(self):
        if not 0 <= self.l2 < float("inf"):
            raise UserError(f"l2 is {self.l2}, must be a finite number >= 0")
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f"label_smoothing is {self.label_smoothing}, must be in [0, 1)")

    @property
    def train(self) -> Examples:
        return self.dataset.train

    @property
    def test(self) -> Examples:
        return self.dataset.test

    @property
    def validation(self) -> Examples | None:
        return self.dataset.validation

    @property
    def provenance(self) -> dict[str, Any]:
        dataset = self.dataset
        train, test = dataset.sizes
        held_out = {}
        if dataset.validation is not None:
            held_out["validation_examples"] = len(dataset.validation["label"])
        return {
            "name": dataset.name,
            "version": dataset.version,
            "fingerprint": dataset.fingerprint,
            **({"sha256": dataset.sha256} if dataset.sha256 else {}),
            "train_examples": train,
            "test_examples": test,
            **subset_of(dataset.sizes, dataset.published),
            **held_out,
        }

    @property
    def pairs(self) -> bool:
        return self.augment.pairs

    def init(self, key: jax.Array) -> tuple[Params, ModelState]:
        images = self._inputs(jnp.zeros((1, *self.dataset.image_shape), jnp.uint8))
        variables = dict(self.model.init(key, images, train=False))
        return variables.pop("params"), variables

    def losses(
        self, params: Params, model_state: ModelState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, ModelState]:
        augment_key, dropout_key = jax.random.split(key)
        images, shares = self.augment(batch, augment_key)
        inputs, variables = self._inputs(images), {"params": params, **model_state}
        if self.drops:
            logits = self._apply_with_dropout(variables, inputs, example_keys(dropout_key, batch))
            return self._loss(logits, batch, shares), model_state
        logits, new_model_state = self.model.apply(
            variables, inputs, train=True, mutable=list(model_state)
        )
        return self._loss(logits, batch, shares), dict(new_model_state)

    def _apply_with_dropout(self, variables: Any, inputs: jax.Array, keys: jax.Array) -> jax.Array:
        """The logits, each example with a key and thus a mask of its own, whatever the chunk.

        For models that treat each example by itself, so not with batch norm.
        """

        def one(example: jax.Array, key: jax.Array) -> jax.Array:
            rngs = {"dropout": key}
            return self.model.apply(variables, example[None], train=True, rngs=rngs)[0]

        return jax.vmap(one)(inputs, keys)

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


def _raw(dataset: Dataset) -> Scaling:
    """Pixels as they are, 0 to `max_value`."""
    del dataset
    return lambda images: images.astype(jnp.float32)


def _unit(dataset: Dataset) -> Scaling:
    """Pixels divided by `max_value`: [0, 1]."""
    return lambda images: images.astype(jnp.float32) / dataset.max_value


def _standardized(dataset: Dataset) -> Scaling:
    """Mean 0, standard deviation 1 over all pixels of the training set (two scalars)."""
    if not isinstance(dataset, ArrayDataset):
        raise UserError(
            f"input_scaling='standardized' needs a dataset in memory; {dataset.name} is streamed"
        )
    return _affine(*moments(dataset.train["image"], dataset.max_value))


def _channel_standardized(dataset: Dataset) -> Scaling:
    """Mean 0, standard deviation 1 of each channel (the last axis) over the training set."""
    means, deviations = dataset.channel_moments()
    return _affine(means.reshape(1, 1, 1, -1), deviations.reshape(1, 1, 1, -1))


def _affine(mean: np.floating | np.ndarray, std: np.floating | np.ndarray) -> Scaling:
    mean, std = mean.astype(np.float32), std.astype(np.float32)
    return lambda images: (images.astype(jnp.float32) - mean) / std


_SCALINGS = {
    "raw": _raw,
    "unit": _unit,
    "standardized": _standardized,
    "channel_standardized": _channel_standardized,
}
_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def input_scaling(name: str, dataset: Dataset) -> Scaling:
    """The scaling called `name`, a key of `_SCALINGS`; UserError for any other name."""
    if name not in _SCALINGS:
        raise unknown("input_scaling", name, _SCALINGS)
    return _SCALINGS[name](dataset)


def compute_dtype(name: str) -> jnp.dtype:
    """The dtype called `name` ("float32" or "bfloat16"); UserError for any other name."""
    if name not in _DTYPES:
        raise unknown("dtype", name, _DTYPES)
    return jnp.dtype(_DTYPES[name])
