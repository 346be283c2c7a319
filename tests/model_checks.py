"""Checks that hold for every model: its parameters, rematerialisation, bfloat16 computation."""

import functools
import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

# Compiling is what these tests cost: a third of the time without LLVM's optimisations.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def abstract(model: Any, shape: tuple[int, ...]) -> dict[str, Any]:
    return _abstract(model, shape)


@functools.cache  # a full-size model takes seconds to trace
def _abstract(model: Any, shape: tuple[int, ...]) -> dict[str, Any]:
    init = functools.partial(model.init, train=False)  # traced only: no array is made
    return jax.eval_shape(init, jax.random.key(0), jnp.zeros(shape))


def table(model: nn.Module, shape, collection: str = "params") -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter, by layer."""
    leaves = flatten_dict(abstract(model, shape)[collection], sep="/")
    assert {leaf.dtype for leaf in leaves.values()} == {np.dtype("float32")}
    return {name: leaf.shape for name, leaf in leaves.items()}


def count(model: nn.Module, shape) -> int:
    return sum(int(np.prod(size)) for size in table(model, shape).values())


def random_variables(model: nn.Module, shape, seed: int = 0) -> dict[str, Any]:
    """Variables in which nothing is zero or one, so that each of them tells in the output."""
    rng = np.random.default_rng(seed)

    def draw(path: tuple[str, ...], leaf) -> jax.Array:
        if path[-1] in ("scale", "var"):
            values = rng.uniform(0.5, 1.5, leaf.shape)
        elif path[-1] == "kernel":
            heads = path[-2] in ("query", "key", "value")  # kernels [width, heads, width / heads]
            fan_in = leaf.shape[0] if heads else np.prod(leaf.shape[:-1])
            values = rng.normal(size=leaf.shape) / np.sqrt(fan_in)
        else:
            values = 0.3 * rng.normal(size=leaf.shape)
        return jnp.asarray(values, leaf.dtype)

    leaves = flatten_dict(dict(abstract(model, shape)))
    return unflatten_dict({path: draw(path, leaf) for path, leaf in leaves.items()})


def initial_variables(model: nn.Module, images: jax.Array) -> dict[str, Any]:
    return jit(functools.partial(model.init, train=False))(jax.random.key(3), images)


def random_images(shape, seed: int = 1) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def training_step(model: nn.Module, images: jax.Array):
    """The function of variables that gives logits and new state in training, and a gradient."""

    def run(variables):
        variables = dict(variables)
        params = variables.pop("params")

        def loss(params):
            logits, state = model.apply(
                {"params": params, **variables},
                images,
                train=True,
                mutable=list(variables),
                rngs={"dropout": jax.random.key(5)},
            )
            return jnp.sum(jnp.sin(logits)), (logits, state)

        gradient, aux = jax.grad(loss, has_aux=True)(params)
        return *aux, gradient

    return run


def assert_alike(actual, expected, tolerance: float) -> None:
    """Leaf by leaf, the norm of the difference against the norm of the expected."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for (path, want), got in zip(
        jax.tree.leaves_with_path(expected), jax.tree.leaves(actual), strict=True
    ):
        error = np.linalg.norm(np.asarray(got) - np.asarray(want))
        # A bias whose gradient is zero by symmetry has only rounding in it.
        assert error <= tolerance * max(np.linalg.norm(want), 1.0), jax.tree_util.keystr(path)


def check_remat(plain: nn.Module, remat: nn.Module, shape, blocks: int) -> None:
    """`remat` computes `blocks` blocks again, and nothing else tells it from `plain`."""
    images = random_images(shape)
    variables = random_variables(plain, shape)

    def checkpoints(model: nn.Module) -> int:
        program = functools.partial(
            model.apply, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(0)}
        )
        return len(
            re.findall(
                r"= (?:checkpoint|remat2?)\[", str(jax.make_jaxpr(program)(variables, images))
            )
        )

    assert checkpoints(plain) == 0
    assert checkpoints(remat) == blocks
    expected, actual = (jit(training_step(m, images))(variables) for m in (plain, remat))
    assert_alike(actual, expected, 1e-5)


def check_bfloat16(model: nn.Module, low: nn.Module, shape) -> None:
    """`low` multiplies matrices in bfloat16 alone, and agrees with `model` to its precision."""
    images = random_images(shape)
    variables = random_variables(model, shape)
    assert table(low, shape) == table(model, shape)

    def logits(model):
        return lambda variables: model.apply(variables, images, train=False)

    program = str(jax.make_jaxpr(logits(low))(variables))
    products = re.findall(r":(\w+)\[[\d,]*\] = (?:conv_general_dilated|dot_general)\[", program)
    assert products
    assert set(products) == {"bf16"}
    expected, actual = (jit(logits(m))(variables) for m in (model, low))
    assert actual.dtype == jnp.float32
    error = np.linalg.norm(actual - expected) / np.linalg.norm(expected)
    assert 1e-4 < error < 0.03  # one rounding is up to 2^-9 = 0.002
    results = jax.eval_shape(training_step(low, images), variables)
    assert {leaf.dtype for leaf in jax.tree.leaves(results)} == {np.dtype("float32")}


def check_batch_stats(model: nn.Module, shape) -> None:
    """Running statistics move a tenth of the way in training, and never in evaluation."""
    variables = random_variables(model, shape)

    def state(train: bool):
        apply = functools.partial(model.apply, train=train, mutable=["batch_stats"])
        return jit(apply)(variables, random_images(shape))[1]["batch_stats"]

    before = variables["batch_stats"]
    jax.tree.map(np.testing.assert_array_equal, state(train=False), before)
    after = state(train=True)
    moved = jax.tree.map(lambda a, b: bool(np.all(np.asarray(a) != np.asarray(b))), after, before)
    assert all(jax.tree.leaves(moved))
