"""Which device holds what: one mesh with the axes `seed`, `data` and `fsdp`.

    seed   independent runs side by side: leading axis of the state of several seeds
    data   each device takes its share of every chunk of a batch; parameters are on each
    fsdp   as `data`, and parameters and optimizer state lie in pieces: gathered for each gradient

The step is written once, for any mesh. Its gradient is the one place where devices meet: each sums
over its own examples, and one all-reduce adds the sums (`Layout.over_examples`). What the optimizer
does with the gradient is the same on every device, or on its own piece of each array.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from rkbench import errors

PyTree = Any

SEED, DATA, FSDP = "seed", "data", "fsdp"
EXAMPLES = (DATA, FSDP)  # the axes over which the examples of a chunk are spread


@dataclasses.dataclass(frozen=True)
class Layout:
    """Places arrays on a mesh. Without a mesh, on one device, nothing is placed or summed.

    Attributes:
      mesh: with the axes `seed`, `data`, `fsdp`, of two devices or more; None for one device.
    """

    mesh: Mesh | None = None

    @property
    def seeds(self) -> int:
        """Devices over which seeds are spread."""
        return 1 if self.mesh is None else self.mesh.shape[SEED]

    @property
    def shards(self) -> int:
        """Devices over which the examples of a batch are spread."""
        return 1 if self.mesh is None else math.prod(self.mesh.shape[axis] for axis in EXAMPLES)

    @property
    def batch_axes(self) -> tuple[str, ...]:
        """The mesh axes over which a model's batch statistics are averaged; () on one device."""
        return EXAMPLES if self.shards > 1 else ()

    def over_examples(self, function: Callable) -> Callable:
        """`function` on every device's own rows, its results added up: one all-reduce.

        Args:
          function: (params, model_state, key, data, rows) -> a pytree of sums over `rows`.

        Returns:
          A function of the same arguments. Leaves of `rows` have the shape [chunks, chunk, ...], of
          which each device is given [chunks, chunk / shards, ...]; the others are whole on each.
          Inside, derivatives are those of the sum over all devices (`psum` transposes to `psum`).
        """
        mesh = self.mesh
        if mesh is None or self.shards == 1:
            return function
        return jax.shard_map(
            lambda *arguments: jax.lax.psum(function(*arguments), EXAMPLES),
            mesh=mesh,
            in_specs=(P(), P(), P(), P(), P(None, EXAMPLES)),
            out_specs=P(),
            check_vma=False,
        )

    def predecessors(self, leaf: jax.Array) -> jax.Array:
        """For each row the row before it in the whole batch; for the first row, the last.

        For use in the function of `over_examples`, on an array [chunks, chunk / shards, ...]. The
        first row of each chunk gets its predecessor from the device before.
        """
        last = leaf[:, -1]
        if self.shards > 1:
            ring = [(i, (i + 1) % self.shards) for i in range(self.shards)]
            last = jax.lax.ppermute(last, EXAMPLES, ring)
            # Before the first device's rows come those of the last device, a chunk earlier.
            starts = jax.lax.axis_index(EXAMPLES) == 0
            last = jnp.where(starts, jnp.roll(last, 1, axis=0), last)
        else:
            last = jnp.roll(last, 1, axis=0)
        return jnp.concatenate([last[:, None], leaf[:, :-1]], axis=1)

    def vmap(self, function: Callable, in_axes: tuple) -> Callable:
        """`jax.vmap` over seeds, which are spread over the mesh."""
        axis = None if self.mesh is None else SEED
        return jax.vmap(function, in_axes=in_axes, spmd_axis_name=axis)

    def state_shardings(self, tree: PyTree, *seed_axis: str) -> PyTree:
        """Where parameters and what has their shapes lie: cut over `fsdp`; None without a mesh.

        An array is cut along its longest axis that the devices divide; one without is not cut.

        Args:
          tree: arrays, or their shapes, of one seed.
          seed_axis: the mesh axis of a leading axis of seeds, which `tree` does not have.
        """
        mesh = self.mesh
        if mesh is None:
            return None
        return jax.tree.map(
            lambda leaf: self.sharding(*seed_axis, *_piece(leaf.shape, mesh.shape[FSDP])), tree
        )

    def constrain(self, gradient: PyTree) -> PyTree:
        """A gradient, while it is traced, placed as its parameters are."""
        if self.mesh is None:
            return gradient
        return jax.lax.with_sharding_constraint(gradient, self.state_shardings(gradient))

    def sharding(self, *spec) -> NamedSharding | None:
        """The sharding P(*spec) on the mesh; None without one."""
        return None if self.mesh is None else NamedSharding(self.mesh, P(*spec))

    def put(self, tree: PyTree, *spec) -> PyTree:
        """Host arrays, the same in every process, on the devices as P(*spec) says.

        Without a mesh they stay as they are: compiled programs take them.
        """
        sharding = self.sharding(*spec)
        if sharding is None:
            return tree
        return jax.tree.map(lambda leaf: _global(np.asarray(leaf), sharding), tree)

    def local_columns(self, chunk: int) -> range:
        """The columns of a batch [chunks, chunk] that this process prepares."""
        sharding = self.sharding(None, EXAMPLES)
        if sharding is None:
            return range(chunk)
        pieces = sharding.addressable_devices_indices_map((1, chunk)).values()
        columns = [piece[1].indices(chunk) for piece in pieces if piece]
        return range(min(begin for begin, _, _ in columns), max(end for _, end, _ in columns))

    def from_local(self, leaf: np.ndarray, chunk: int, axis: int) -> jax.Array:
        """The array whose `axis` has size `chunk`, of which `leaf` holds the local columns."""
        sharding = self.sharding(*(None,) * axis, EXAMPLES)
        if sharding is None:
            return jax.device_put(leaf)
        shape = (*leaf.shape[:axis], chunk, *leaf.shape[axis + 1 :])
        return jax.make_array_from_process_local_data(sharding, leaf, shape)


ONE_DEVICE = Layout()


def _global(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def _piece(shape: tuple[int, ...], devices: int) -> tuple[str | None, ...]:
    axes = [axis for axis, size in enumerate(shape) if size % devices == 0 and size > 0]
    if devices == 1 or not axes:
        return ()
    longest = max(axes, key=lambda axis: shape[axis])
    return tuple(FSDP if axis == longest else None for axis in range(len(shape)))


def layout(config) -> Layout:
    """The layout that a config's `mesh` asks for: {"seed": n, "data": n, "fsdp": n}.

    `data` is 0 for all devices that the others leave over.

    Raises:
      UserError: the sizes do not divide the number of devices, or need more than there are.
    """
    devices, sizes = jax.devices(), dict(config.to_dict())
    fixed = sizes[SEED] * sizes[FSDP]
    if not sizes[DATA]:
        if len(devices) % fixed:
            raise errors.UserError(
                f"mesh.seed={sizes[SEED]} x mesh.fsdp={sizes[FSDP]} does not divide the "
                f"{len(devices)} devices; products that do: {_listed(_divisors(len(devices)))}"
            )
        sizes[DATA] = len(devices) // fixed
    used = fixed * sizes[DATA]
    if used > len(devices):
        raise errors.UserError(f"the mesh {sizes} needs {used} devices; here are {len(devices)}")
    if used < len(devices) and jax.process_count() > 1:
        raise errors.UserError(
            f"the mesh {sizes} takes {used} of {len(devices)} devices; several processes must use "
            "all of theirs"
        )
    if used == 1:
        return ONE_DEVICE
    shape = tuple(sizes[axis] for axis in (SEED, DATA, FSDP))
    grid = np.asarray(devices[:used]).reshape(shape)
    return Layout(Mesh(grid, (SEED, DATA, FSDP), axis_types=(AxisType.Auto,) * 3))


def check_divides(name: str, size: int, layout: Layout) -> None:
    """Raises a UserError with the nearest valid sizes where devices would get unequal shares."""
    shards = layout.shards
    if size % shards:
        below, above = size - size % shards, size + -size % shards
        raise errors.UserError(
            f"{name}={size} does not divide by the {shards} devices over which a batch is spread; "
            f"nearest that do: {_listed([n for n in (below, above) if n])} "
            "(or fewer devices, by mesh.data)"
        )


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def _listed(numbers) -> str:
    return ", ".join(map(str, numbers))
