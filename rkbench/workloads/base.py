"""What the trainer knows of a workload: data, initial variables, loss per example, evaluation."""

from collections.abc import Generator
from typing import Any, Protocol, TypeAlias

import jax
import numpy as np

from rkbench.configs.default import FIELDS

Arrays: TypeAlias = dict[str, np.ndarray]


class Stream(Protocol):
    """A split that is read batch by batch, as `workloads.imagenet.source.HostStream`."""

    replaced: int  # damaged examples that others stand for in the batches given out so far

    @property
    def spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shape and dtype of each array of one example."""
        ...

    def __len__(self) -> int: ...

    def batches(
        self, seed: int, first_step: int, batch_size: int, places: np.ndarray
    ) -> Generator[Arrays]:
        """The examples at `places` (int [n]) of the batches from `first_step` on, without end."""
        ...

    def evaluation_batches(self, batch_size: int, places: np.ndarray) -> Generator[Arrays]:
        """The same of the whole split once, in order.

        The last batch may be short: places beyond its end are left out.
        """
        ...


ON_CORRUPT = FIELDS["on_corrupt"].choices or ()
"""What `config.on_corrupt` can be: a damaged example is an error, or another takes its place."""

Params: TypeAlias = Any
"""A pytree of float32 arrays: what the optimizer moves."""
ModelState: TypeAlias = dict[str, Any]
"""Everything else a model keeps, by Flax collection: {"batch_stats": ...}, or {}."""
Examples: TypeAlias = Arrays | Stream
"""{"image": uint8 [N, ...], "label": int32 [N]} in a fixed order, or a stream of such batches."""
Batch: TypeAlias = dict[str, Any]
"""{"image": [B, ...] as stored (uint8), "label": int32 [B]}.

In training also "position": int32 [B], the place of each example in the step's whole batch, and for
a workload with `pairs` "partner": such a batch of the examples they are mixed with, each the one
before in the step's whole batch (before the first comes the last).
"""


class Workload(Protocol):
    """Dataset, model and loss. Every method but the attributes may be traced by `jax.jit`."""

    @property
    def name(self) -> str: ...

    @property
    def train(self) -> Examples: ...

    @property
    def test(self) -> Examples: ...

    @property
    def validation(self) -> Examples | None:
        """Examples held out of the training set; None where there are none."""
        ...

    @property
    def provenance(self) -> dict[str, Any]:
        """Which data it is, for the run's record: plain JSON with name, version and sizes.

        "sha256" is over the content of the whole dataset, where it is known.

        Where it is part of the published dataset, it also has "subset": true and the sizes of the
        whole, "full_train_examples" and "full_test_examples"; and where examples are held out for
        validation their number, "validation_examples".
        """
        ...

    @property
    def convolves(self) -> bool:
        """Whether the model runs XLA's own convolution: on a CPU slow in compiled loops."""
        ...

    @property
    def pairs(self) -> bool:
        """Whether training mixes each example with a partner (mixup)."""
        ...

    def init(self, key: jax.Array) -> tuple[Params, ModelState]:
        """Parameters and model state at step 0."""
        ...

    def losses(
        self, params: Params, model_state: ModelState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, ModelState]:
        """The loss of each example in training mode, [B] float32, and the model state after it.

        Everything random depends on `key`, the step's, alone: with one key for all stages of a
        Runge-Kutta step they see one vector field. What is random about an example depends on the
        key and its position: a chunk of the batch sees what the whole would see.
        """
        ...

    def penalty(self, params: Params) -> jax.Array:
        """What is added to the mean loss: a float32 scalar, 0 where there is no penalty."""
        ...

    def evaluate(
        self, params: Params, model_state: ModelState, batch: Batch
    ) -> tuple[jax.Array, jax.Array]:
        """Of each example in evaluation mode: its loss, and 1 if classified right; [B] float32.

        The loss has neither penalty nor label smoothing.
        """
        ...
