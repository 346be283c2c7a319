"""Every registered optimizer: one row a name buys it all the generic tests."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rkbench import optimizers
from rkbench.configs.optimizers import COMPOSED
from rkbench.optimizers.baselines import optax_optimizers
from rkbench.optimizers.optimizer_states import find
from rkbench.optimizers.optimizer_states import kept as kept_state
from rkbench.optimizers.optimizer_states import restored as restored_state
from rkbench.optimizers.rk_methods import RK_METHODS
from rkbench.rk import IMPLICIT, STEP_SIZES, TABLEAUS, RungeKuttaState
from rkbench.trainer.checkpoint import Checkpoints

# optax types updates and states as wide unions; here they are what they are.
create: Any = optimizers.create

MINIMUM = {
    "w": np.array([[0.5, -0.3], [0.8, 0.4]], np.float32),
    "b": np.array([0.7, -0.6], np.float32),
}


def objective(params):
    """Convex and not quadratic, with its minimum of 0 at `MINIMUM`."""
    away = jax.tree.map(lambda p, m: p - m, params, MINIMUM)
    return jnp.sum(0.5 * away["w"] ** 2) + jnp.sum(jnp.cosh(2 * away["b"]) - 1) / 4


@dataclasses.dataclass(frozen=True)
class Row:
    """How a name is run by the generic tests; the step size falls linearly to 0 in `steps`."""

    learning_rate: float | None = 0.1
    keywords: dict[str, Any] = dataclasses.field(default_factory=dict)
    steps: int = 150
    distance: float = 0.02  # from the minimum at the end; it is 1.4 at the start


ROWS: dict[str, Row] = {
    "rk4_dalr": Row(None, {"c": 1.0, "p": 0.8}),
    "rk4_momentum": Row(0.1, {"momentum": 0.8}),
    "rk4_adagrad": Row(0.5),  # its steps shrink as gradients accumulate
    "rk4_modified_adagrad": Row(0.5),
    "sgd_g2": Row(0.1),
}

# optax's optimizers, as this project finds them, that need more than a learning rate of 0.1.
OPTAX_ROWS: dict[str, Row] = {
    "optax:adadelta": Row(10.0),  # its own unit is a root mean square of updates, from 1e-3 on
    "optax:adagrad": Row(0.5),
    "optax:adan": Row(steps=600),  # its moments remember 50 steps and more
    "optax:lars": Row(steps=600),  # steps of 0.1 % of the parameters' length
    "optax:sm3": Row(0.5),
    "optax:contrib.schedule_free_sgd": Row(1.0),
    "optax:contrib.simplified_ademamix": Row(0.01, {"b1": 0.9}),  # its momentum has no (1 - b1)
    "optax:contrib.sophia": Row(0.03, steps=400),  # a random estimate of the curvature
    "optax:adafactor": Row(0.1, {"multiply_by_parameter_scale": False}),
    "optax:fromage": Row(0.1, {"min_norm": 0.1}),  # updates relative to |p|, which is 0 at first
    "optax:lbfgs": Row(None),  # a line search finds its own
    "optax:polyak_sgd": Row(1.0),
    "optax:contrib.cocob": Row(1.0),
    "optax:contrib.dadapt_adamw": Row(1.0, steps=600),  # finds its own, from 1e-6 on
    "optax:contrib.prodigy": Row(1.0, steps=600),  # the same
    "optax:contrib.momo": Row(1.0),
}


def row(name: str) -> Row:
    rows = {**ROWS, **OPTAX_ROWS}
    chosen = rows.get(name, Row())
    if "weight_decay" in optimizers.hyperparameters(name) and "weight_decay" not in chosen.keywords:
        return dataclasses.replace(chosen, keywords={**chosen.keywords, "weight_decay": 0.0})
    return chosen


def names(prefix: bool):
    """The names with or without `optax:`; code of optax's own promotes dtypes."""
    promotes = lambda name: prefix or name in ("adam", "adamw")  # noqa: E731
    return [
        pytest.param(name, marks=[pytest.mark.standard_promotion] if promotes(name) else [])
        for name in optimizers.names()
        if name.startswith("optax:") == prefix
    ]


def zeros():
    return jax.tree.map(jnp.zeros_like, jax.tree.map(jnp.asarray, MINIMUM))


def trainer(name, *, chain=()) -> Any:
    """A compiled (params, state, learning rate) -> (params, state) as the trainer has it."""

    def make(learning_rate):
        rate = None if row(name).learning_rate is None else learning_rate
        optimizer = create(name, rate, **row(name).keywords)
        return optax.chain(optimizer, *chain) if chain else optimizer

    def step(params, state, learning_rate):
        loss, gradient = jax.value_and_grad(objective)(params)
        updates, state = make(learning_rate).update(
            gradient,
            state,
            params,
            grad_fn=jax.grad(objective),
            value=loss,
            grad=gradient,
            value_fn=objective,
            an_argument_nobody_knows=1,
        )
        return optax.apply_updates(params, updates), state

    return make, jax.jit(step)


def check_training(name, **options):
    """Converges, with a learning rate traced and falling; compiled once; dtypes kept."""
    make, step = trainer(name, **options)
    rate, steps = row(name).learning_rate or 0.0, row(name).steps
    params = zeros()
    state = make(rate).init(params)
    params, state = step(params, state, rate)
    dtypes = jax.tree.map(lambda x: x.dtype, (params, state))
    compiled = step._cache_size()
    for i in range(1, steps):
        params, state = step(params, state, rate * (1 - i / steps))
    assert float(optax.tree.norm(jax.tree.map(jnp.subtract, params, MINIMUM))) < row(name).distance
    assert step._cache_size() == compiled
    assert jax.tree.map(lambda x: x.dtype, (params, state)) == dtypes
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    assert optimizers.grad_evals(state).dtype == jnp.int32
    return state


def first_state(name):
    return trainer(name)[0](row(name).learning_rate or 0.0).init(zeros())


@pytest.mark.standard_promotion
@pytest.mark.filterwarnings("ignore:Specifying a key will be required")
def test_every_optimizers_state_is_saved_and_restored_bit_for_bit(tmp_path):
    """All in one checkpoint, which costs as much as one."""
    states = jax.device_put({name: first_state(name) for name in optimizers.names()})
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, states, {})
    checkpoints.wait()
    found = checkpoints.restore(jax.tree.map(jnp.zeros_like, states))
    checkpoints.close()
    assert found is not None
    jax.tree.map(np.testing.assert_array_equal, found.state, states)


@pytest.mark.standard_promotion
@pytest.mark.filterwarnings("ignore:Specifying a key will be required")
def test_first_states_share_no_buffer_and_can_be_donated():
    for name in optimizers.names():
        if name not in RK_METHODS:
            leaves = jax.tree.leaves(first_state(name))
            places = [leaf.unsafe_buffer_pointer() for leaf in leaves]
            assert len(set(places)) == len(places), name


def test_keys_and_empty_arrays_of_a_state_come_back():
    keys = {"a": jax.random.key(3), "b": jax.random.key(4, impl="rbg"), "c": jnp.zeros((0, 2), int)}
    kept = kept_state({**keys, "d": 1.5})
    assert [leaf.dtype for leaf in jax.tree.leaves(kept)] == [jnp.uint32, jnp.uint32, jnp.float32]
    found = restored_state(kept)
    assert {name: found[name].dtype for name in keys} == {n: k.dtype for n, k in keys.items()}
    assert found["c"].shape == (0, 2)
    assert jax.random.normal(found["b"]) == jax.random.normal(keys["b"])


# Of a step, typed in as an oracle; those of a method that is newer follow from its parts.
EVALUATIONS = {
    "midpoint": 2,
    "heun": 2,
    "ralston": 2,
    "rk2": 2,
    "kutta3": 3,
    "ssprk3": 3,
    "rk4": 4,
    "rk4_38": 4,
    "heun_euler": 2,
    "bs32": 3,  # the last stages of these two are for an error alone
    "dopri5": 6,
    "rk": 4,
    "rkc1": 4,
    "rkc2": 4,
    "rkl2": 4,
    "rk4_adagrad": 4,
    "rk4_modified_adagrad": 4,
    "rk4_natural": 4,
    "rk4_dalr": 6,
    "rk4_momentum": 4,
    "rk4_adam": 4,
    "sgd_g2": 2,
}


def evaluations(name: str) -> int:
    """The gradient evaluations of a step, by the parts that the name stands for."""
    if name in EVALUATIONS:
        return EVALUATIONS[name]
    if name in TABLEAUS:
        return TABLEAUS[name].evaluated_stages
    return evaluations(COMPOSED[name].parts["tableau"]) if name in COMPOSED else 1


def check_evaluations(name, state):
    """Exact where they are the same in every step, else what the method's counts amount to."""
    spent, steps = int(optimizers.grad_evals(state)), row(name).steps
    if name not in IMPLICIT:
        assert spent == evaluations(name) * steps
        return
    (found,) = find(state, RungeKuttaState)
    newton, krylov, _, _ = map(int, found.method)
    stages = {"sdirk2": 1}.get(name, 0)  # beyond the first, where Newton's method begins
    assert spent == (1 + stages) * steps + newton + 2 * krylov
    assert krylov > 0


@pytest.mark.parametrize("name", names(prefix=False))
def test_optimizer_trains_and_counts_its_evaluations(name):
    state = check_training(name)
    check_evaluations(name, state)


@pytest.mark.parametrize("rule", sorted(STEP_SIZES.keys() - {"fixed"}))
def test_every_step_size_rule_trains_and_counts_its_evaluations(rule, monkeypatch):
    """With a rule the steps do not fall to 0: error control stays at its tolerance."""
    monkeypatch.setitem(ROWS, "rk4", Row(None, {"step_size": rule}, steps=60, distance=0.1))
    state = check_training("rk4")
    assert optimizers.grad_evals(state) == (6 if rule in ("dal", "dalr") else 4) * 60


@pytest.mark.parametrize("name", names(prefix=False))
def test_optimizer_works_in_a_chain_with_clipping(name):
    state = check_training(name, chain=(optax.clip_by_global_norm(0.5),))
    check_evaluations(name, state)


@pytest.mark.parametrize("name", names(prefix=True))
@pytest.mark.filterwarnings("ignore:Specifying a key will be required")
def test_optimizer_of_optax_trains(name):
    state = check_training(name)
    spent, steps = int(optimizers.grad_evals(state)), row(name).steps
    if name == "optax:lbfgs":
        assert spent >= 2 * steps
    elif name == "optax:contrib.sophia":  # a Hessian-vector product every 10 steps
        assert spent == steps + 2 * math.ceil(steps / 10)
    else:
        assert spent == steps


def test_optax_optimizers_are_those_that_optax_documents_and_no_wrappers_or_blocks():
    found = set(optax_optimizers())
    known = (
        "adabelief adadelta adafactor adagrad adam adamax adamaxw adamw adan amsgrad fromage lamb"
    )
    known += " lars lbfgs lion nadam nadamw noisy_sgd novograd optimistic_adam_v2 polyak_sgd radam"
    known += " optimistic_gradient_descent rmsprop rprop sgd sign_sgd signum sm3 yogi"
    contrib = "acprop ademamix adopt cocob dadapt_adamw galore madgrad momo momo_adam muon"
    contrib += " prodigy schedule_free_adamw schedule_free_sgd simplified_ademamix sophia"
    assert {f"optax:{name}" for name in known.split()} <= found
    assert {f"optax:contrib.{name}" for name in contrib.split()} <= found
    wrappers = "chain masked trace scale_by_adam lookahead contrib.sam contrib.mechanize"
    wrappers += " contrib.schedule_free contrib.scale_by_madgrad GradientTransformation Schedule"
    wrappers += " contrib.dpsgd"  # wants the gradient of every example
    assert not {f"optax:{name}" for name in wrappers.split()} & found
