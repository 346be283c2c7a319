"""optax's own generic tests, on every registered name, mostly by tracing alone.

They are the ideas of optax's alias_test, float64_test, sharding_test and state_utils_test. That
every name trains and is checkpointed is in `test_optimizers.py`, shardings in
`test_sharded_steps.py`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_optimizers import row

from rkbench import optimizers

create: Any = optimizers.create
NAMES = optimizers.names()
OURS = tuple(name for name in NAMES if not name.startswith("optax:"))
pytestmark = [
    pytest.mark.standard_promotion,  # optax's code needs it; test_optimizers.py is strict with ours
    pytest.mark.filterwarnings("ignore:Specifying a key will be required"),
]


def made(name: str) -> Any:
    return create(name, row(name).learning_rate, **row(name).keywords)


def value_fn(params):
    return sum(jnp.sum(jnp.abs(leaf) ** 2).astype(float) for leaf in jax.tree.leaves(params))


def step(name, optimizer):
    """(params, state) -> (updates, state) with everything that any optimizer asks for."""

    def grad_fn(params):
        return jax.tree.map(jnp.conj, jax.grad(value_fn)(params))

    def update(params, state):
        gradient = grad_fn(params)
        value = value_fn(params)
        return optimizer.update(
            gradient, state, params, grad_fn=grad_fn, value=value, grad=gradient, value_fn=value_fn
        )

    return update


def tree(*dtypes):
    return {f"leaf{i}": jnp.ones((4, 2), dtype) for i, dtype in enumerate(dtypes)}


def types(tree):
    """What a compiled step is compiled for."""
    describe = lambda x: (jnp.shape(x), jnp.result_type(x), getattr(x, "weak_type", False))  # noqa: E731
    return jax.tree.map(describe, tree)


def failing(check, names=NAMES):
    """The names for which `check(name, optimizer)` is false or raises, with the reason."""
    found = {}
    for name in names:
        try:
            if not check(name, made(name)):
                found[name] = "differs"
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"[:200]
    return found


def assert_all_but(known, found):
    """All of ours pass; of optax's own, in the version here, those in `known` need not."""
    unexpected = {name: why for name, why in found.items() if name not in optax_names(known)}
    assert unexpected == {}


def optax_names(words):
    return {f"optax:{word}" for word in words.split()}


NO_COMPLEX = "rprop sm3 contrib.adopt contrib.madgrad contrib.sophia"
ONE_DTYPE = (
    "lbfgs polyak_sgd contrib.dadapt_adamw contrib.momo contrib.momo_adam contrib.prodigy "
    "contrib.sophia"
)


@pytest.mark.parametrize(
    ("dtypes", "known"),
    [
        (("float32",), ""),
        (("bfloat16",), ""),
        (("float16",), ""),
        (("bfloat16", "float32"), ONE_DTYPE),
        (("complex64",), NO_COMPLEX),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_updates_have_the_dtypes_of_parameters_and_the_state_keeps_its_own(dtypes, known):
    params = tree(*dtypes)

    def stable(name, optimizer):
        state = optimizer.init(params)
        updates, after = jax.eval_shape(step(name, optimizer), params, state)
        dtype_of = lambda x: (jnp.shape(x), jnp.result_type(x))  # noqa: E731
        same = jax.tree.map(dtype_of, updates) == jax.tree.map(dtype_of, params)
        return same and types(after) == types(state)

    assert_all_but(known, failing(stable))


def test_float32_and_float64_leaves_stay_apart(x64):
    params = tree("float32", "float64")

    def stable(name, optimizer):
        state = optimizer.init(params)
        updates, after = jax.eval_shape(step(name, optimizer), params, state)
        dtypes = lambda tree: jax.tree.map(jnp.result_type, tree)  # noqa: E731
        return dtypes((updates, after)) == dtypes((params, state))

    assert_all_but(ONE_DTYPE, failing(stable))


def test_a_state_is_made_of_shapes_alone():
    shapes = jax.eval_shape(lambda: tree("float32"))
    estimates = "cocob dadapt_adamw galore madgrad momo momo_adam prodigy "
    estimates += "schedule_free_adamw schedule_free_sgd"
    known = " ".join(f"contrib.{name}" for name in estimates.split())
    assert_all_but(known, failing(lambda name, optimizer: optimizer.init(shapes) is not None))


def test_no_two_leaves_of_a_state_share_a_buffer_so_that_it_can_be_donated():
    params = tree("float32", "float32")

    def apart(name, optimizer):
        leaves = jax.tree.leaves((params, optimizer.init(params)))
        arrays = [leaf for leaf in leaves if isinstance(leaf, jax.Array)]
        return len({array.unsafe_buffer_pointer() for array in arrays}) == len(arrays)

    assert_all_but("", failing(apart))


def test_map_params_finds_what_is_laid_out_like_the_parameters():
    params = tree("float32", "float32")

    def found_all(name, optimizer):
        state, found = optimizer.init(params), []
        mapped = optax.tree.map_params(optimizer, lambda x: (found.append(x), -x)[1], state)
        like_params = [leaf for leaf in jax.tree.leaves(state) if jnp.shape(leaf) == (4, 2)]
        return len(found) == len(like_params) and types(mapped) == types(state)

    factored = "adafactor lbfgs novograd sm3 contrib.galore"  # states of other shapes a parameter
    assert_all_but(factored, failing(found_all))


def abs_sq(z):
    return z.real**2 + z.imag**2


def parabola(params):
    return jnp.sum(abs_sq(params - PARABOLA[1]))


# The first of optax's complex test problems (alias_test.py), from nearer: (start, minimum).
PARABOLA = np.array([-1.0, 2.0, 1.0]), np.array([1.0, -1.0, 1.0]) * (1 + 1j)
RATES = {"rk4_adagrad": 0.5, "rk4_modified_adagrad": 0.5}


def test_complex_parameters_reach_the_minimum_of_optaxs_parabola():
    start, minimum = (jnp.asarray(point, jnp.complex64) for point in PARABOLA)
    grad_fn = lambda params: jax.grad(parabola)(params).conj()  # noqa: E731

    def train(name):
        rate = None if row(name).learning_rate is None else RATES.get(name, 0.1)
        optimizer = create(name, rate, **row(name).keywords)

        def one(_, carry):
            params, state = carry
            g = grad_fn(params)
            updates, state = optimizer.update(g, state, params, grad_fn=grad_fn)
            return optax.apply_updates(params, updates), state

        return jax.lax.fori_loop(0, 400, one, (start, optimizer.init(start)))[0]

    found = jax.jit(lambda: {name: train(name) for name in OURS})()
    errors = {name: float(jnp.max(jnp.abs(end - minimum))) for name, end in found.items()}
    assert {name: error for name, error in errors.items() if not error < 3e-2} == {}
