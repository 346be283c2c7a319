"""What `test_sharded_steps.py` runs in a process with eight devices. Results go back as NumPy."""

import pathlib
import runpy
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from test_conventions import failing, step

from rkbench import optimizers

create: Any = optimizers.create


def explicit_sharding():
    """By name: why parameters, updates and state do not keep explicit shardings, over two axes."""
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Explicit,))
    found = {}
    with warnings.catch_warnings(), jax.set_mesh(mesh):
        warnings.simplefilter("ignore")
        for spec in (P(None, None, "x"), P(None, "x", None)):
            place = NamedSharding(mesh, spec)
            params = {"w": jax.device_put(jnp.ones((2, 8, 16)), place), "b": jnp.ones(3)}

            def kept(name, optimizer, params=params, place=place):
                state = optimizer.init(params)
                traced = jax.jit(step(name, optimizer)).trace(params, state)
                expected = [str(jax.typeof(leaf)) for leaf in jax.tree.leaves((params, state))]
                moments = [x for x in jax.tree.leaves(state) if jnp.shape(x) == (2, 8, 16)]
                placed = all(moment.sharding == place for moment in moments)
                return placed and [str(aval) for aval in traced.jaxpr.out_avals] == expected

            found |= failing(kept)
    return found


def least_squares(params, batch):
    inputs, targets = batch
    return 0.5 * jnp.mean((inputs @ params["w"] - targets) ** 2)


def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(16, 3)), rng.normal(size=16)


def shard_map_step(mean_in_grad_fn, guarded, check_vma=None):
    """(the updates of a step over 8 devices, with the mean inside grad_fn or in the first only)."""
    with jax.enable_x64(True):
        mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
        optimizer = create("rk4_adagrad", 0.3, momentum=0.5)
        if guarded:
            optimizer = optimizers.apply_if_all_finite(optimizers.check_first_stage(optimizer))

        def device_step(params, state, batch):
            def local(params):
                return jax.grad(least_squares)(jax.lax.pcast(params, "x", to="varying"), batch)

            def mean(params):
                return jax.lax.pmean(local(params), "x")

            def one(carry, _):  # a scan over steps, inside shard_map
                params, state = carry
                grad_fn = mean if mean_in_grad_fn else local
                updates, state = optimizer.update(mean(params), state, params, grad_fn=grad_fn)
                return (optax.apply_updates(params, updates), state), None

            return jax.lax.scan(one, (params, state), length=2)[0][0]

        specs = (P(), P(), P("x"))
        whole = jax.jit(
            jax.shard_map(
                device_step,
                mesh=mesh,
                in_specs=specs,
                out_specs=P(),
                check_vma=mean_in_grad_fn if check_vma is None else check_vma,
            )
        )
        params = {"w": jnp.zeros(3)}
        result = whole(params, optimizer.init(params), data())["w"]
        jax.effects_barrier()
        return np.asarray(result)


def one_device_steps():
    """The same two steps on the whole batch."""
    with jax.enable_x64(True):
        params: Any = {"w": jnp.zeros(3)}
        optimizer = create("rk4_adagrad", 0.3, momentum=0.5)
        grad_fn = jax.jit(lambda params: jax.grad(least_squares)(params, data()))
        state = optimizer.init(params)
        for _ in range(2):
            updates, state = optimizer.update(grad_fn(params), state, params, grad_fn=grad_fn)
            params = optax.apply_updates(params, updates)
        return np.asarray(params["w"])


def example(file: pathlib.Path):
    """The losses of an example of the docs, which finds eight devices."""
    return np.array(runpy.run_path(str(file))["train"](steps=4))
