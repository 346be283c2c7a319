"""The registry: one row a name buys every generic test; names and keywords that are refused."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rkbench import optimizers
from rkbench.baselines import optax_optimizers
from rkbench.errors import UserError
from rkbench.rk import HEUN, RK4, TABLEAUS, RungeKuttaState, Tableau, dalr

MINIMUM = {"w": np.array([[0.5, -0.3], [0.8, 0.4]], np.float32), "b": np.float32([0.7, -0.6])}


def objective(params):
    """Convex and not quadratic, with its minimum of 0 at `MINIMUM`."""
    away = jax.tree.map(lambda p, m: p - m, params, MINIMUM)
    return jnp.sum(0.5 * away["w"] ** 2) + jnp.sum(jnp.cosh(2 * away["b"]) - 1) / 4


class Row(NamedTuple):
    """How a name is run by the generic tests; the step size falls linearly to 0 in `steps`."""

    learning_rate: float | None = 0.1
    keywords: dict[str, Any] = {}
    steps: int = 150
    distance: float = 0.02  # from the minimum at the end; it is 1.4 at the start


ROWS: dict[str, Row] = {
    "rk4_dalr": Row(None, {"c": 1.0, "p": 0.8}),
    "rk4_momentum": Row(0.1, {"momentum": 0.8}),
    "adamw": Row(0.1, {"weight_decay": 0.0}),
    "nadamw": Row(0.1, {"weight_decay": 0.0}),
}

# optax's optimizers, as this project finds them, that need more than a learning rate of 0.1.
OPTAX_ROWS: dict[str, Row] = {
    "optax:adadelta": Row(10.0),  # its own unit is a root mean square of updates, from 1e-3 on
    "optax:adafactor": Row(0.1, {"multiply_by_parameter_scale": False}),
    "optax:fromage": Row(0.1, {"min_norm": 0.1}),  # updates relative to |p|, which is 0 at first
    "optax:lbfgs": Row(None),  # a line search finds its own
    "optax:polyak_sgd": Row(1.0),
    "optax:contrib.cocob": Row(1.0),
    "optax:contrib.dadapt_adamw": Row(1.0, steps=600),  # finds its own, from 1e-6 on
    "optax:contrib.prodigy": Row(1.0, steps=600),  # the same
    "optax:contrib.dpsgd": Row(0.1, {"l2_norm_clip": 9.0, "noise_multiplier": 0.0, "seed": 0}),
    "optax:contrib.momo": Row(1.0),
}


def row(name: str) -> Row:
    rows = {**ROWS, **OPTAX_ROWS}
    chosen = rows.get(name, Row())
    if "weight_decay" in optimizers.hyperparameters(name) and "weight_decay" not in chosen.keywords:
        return chosen._replace(keywords={**chosen.keywords, "weight_decay": 0.0})
    return chosen


def names(prefix: bool):
    """The names with or without `optax:`; those of optax promote dtypes in their own code."""
    marks = [pytest.mark.standard_promotion] if prefix else []
    return [
        pytest.param(name, marks=marks)
        for name in optimizers.names()
        if name.startswith("optax:") == prefix
    ]


def zeros():
    return jax.tree.map(jnp.zeros_like, jax.tree.map(jnp.asarray, MINIMUM))


def trainer(name, *, chain=()):
    """A compiled (params, state, learning rate) -> (params, state) as the trainer has it."""

    def make(learning_rate):
        rate = None if row(name).learning_rate is None else learning_rate
        optimizer = optimizers.create(name, rate, **row(name).keywords)
        return optax.chain(optimizer, *chain) if chain else optimizer

    @jax.jit
    def step(params, state, learning_rate):
        loss, gradient = jax.value_and_grad(objective)(params)
        given = gradient
        if name == "optax:contrib.dpsgd":  # takes a gradient for each example
            given = jax.tree.map(lambda g: g[None], gradient)
        updates, state = make(learning_rate).update(
            given,
            state,
            params,
            grad_fn=jax.grad(objective),
            value=loss,
            grad=gradient,
            value_fn=objective,
            an_argument_nobody_knows=1,
        )
        return optax.apply_updates(params, updates), state

    return make, step


def check_training(name, **options):
    """Converges, with a learning rate traced and falling; compiled once; dtypes kept."""
    make, step = trainer(name, **options)
    rate, steps = row(name).learning_rate or 0.0, row(name).steps
    params = zeros()
    state = make(rate).init(params)
    params, state = step(params, state, rate)
    dtypes = jax.tree.map(lambda x: x.dtype, (params, state))
    # optax's line searches hold Python numbers in their first state: let them settle.
    compiled = step._cache_size() if name != "optax:lbfgs" else 2
    for i in range(1, steps):
        params, state = step(params, state, rate * (1 - i / steps))
    assert float(optax.tree.norm(jax.tree.map(jnp.subtract, params, MINIMUM))) < row(name).distance
    assert step._cache_size() == compiled
    assert jax.tree.map(lambda x: x.dtype, (params, state)) == dtypes
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    assert optimizers.grad_evals(state).dtype == jnp.int32
    return state


EVALUATIONS = {
    "midpoint": 2,
    "heun": 2,
    "ralston": 2,
    "rk2": 2,
    "kutta3": 3,
    "ssprk3": 3,
    "rk4": 4,
    "rk4_38": 4,
    "rk": 4,
    "rk4_adagrad": 4,
    "rk4_modified_adagrad": 4,
    "rk4_natural": 4,
    "rk4_dalr": 6,
    "rk4_momentum": 4,
}


@pytest.mark.parametrize("name", names(prefix=False))
def test_optimizer_trains_and_counts_its_evaluations(name):
    state = check_training(name)
    assert optimizers.grad_evals(state) == EVALUATIONS.get(name, 1) * row(name).steps


@pytest.mark.parametrize("name", names(prefix=False))
def test_optimizer_works_in_a_chain_with_clipping(name):
    state = check_training(name, chain=(optax.clip_by_global_norm(0.5),))
    assert optimizers.grad_evals(state) == EVALUATIONS.get(name, 1) * row(name).steps


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
    contrib = "acprop ademamix adopt cocob dadapt_adamw dpsgd galore madgrad momo momo_adam muon"
    contrib += " prodigy schedule_free_adamw schedule_free_sgd simplified_ademamix sophia"
    assert {f"optax:{name}" for name in known.split()} <= found
    assert {f"optax:contrib.{name}" for name in contrib.split()} <= found
    wrappers = "chain masked trace scale_by_adam lookahead contrib.sam contrib.mechanize"
    wrappers += " contrib.schedule_free contrib.scale_by_madgrad GradientTransformation Schedule"
    assert not {f"optax:{name}" for name in wrappers.split()} & found


def test_names_are_unique_and_hold_what_the_paper_needs():
    names = optimizers.names()
    assert len(set(names)) == len(names)
    ready_made = (
        "rk2 rk4_adagrad rk4_modified_adagrad rk4_natural rk4_dalr rk4_momentum sgd momentum"
    )
    assert {*TABLEAUS, *ready_made.split(), "adam", "adamw", "nadamw"} <= set(names)


def take_step(optimizer, params=None):
    params = zeros() if params is None else params
    grad_fn = jax.grad(objective)
    return optimizer.update(grad_fn(params), optimizer.init(params), params, grad_fn=grad_fn)


def assert_same_step(one, other):
    jax.tree.map(np.testing.assert_array_equal, take_step(one)[0], take_step(other)[0])


create = optimizers.create


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda: create("rk4_adagrad", 0.1, eps=0.3),
         lambda: create("rk4", 0.1, preconditioner="adagrad", eps=0.3)),
        (lambda: create("rk4_modified_adagrad", 0.1),
         lambda: create("rk4_adagrad", 0.1, eps=1.0)),
        (lambda: create("rk4_dalr", c=4.0, p=0.8),
         lambda: create("rk4", step_size="dalr", c=4.0, p=0.8)),
        (lambda: create("rk4_dalr", c=4.0, p=0.8), lambda: create("rk4", dalr(4.0, 0.8))),
        (lambda: create("rk4_natural", 0.1, alpha=-0.5),
         lambda: create("rk", 0.1, preconditioner="natural", alpha=-0.5)),
        (lambda: create("rk2", 0.1), lambda: create("heun", 0.1)),
        (lambda: create("rk2", 0.1, alpha=1.0), lambda: create("midpoint", 0.1)),
        (lambda: create("rk", 0.1, tableau="rk2", alpha=0.75), lambda: create("ralston", 0.1)),
        (lambda: create("rk", 0.1, tableau=HEUN), lambda: create("heun", 0.1)),
        (lambda: create(Tableau("mine", ((), (1,)), (0.5, 0.5), 2), 0.1),
         lambda: create("rk", 0.1, tableau={"a": ((), (1,)), "b": (0.5, 0.5), "order": 2})),
        (lambda: create("rk4", 0.1, unroll_stages=True), lambda: create(RK4, 0.1, unroll_stages=True)),
        (lambda: create("momentum", 0.1, momentum=0.5),
         lambda: create("optax:sgd", 0.1, momentum=0.5)),
    ],
)  # fmt: skip
def test_two_ways_to_name_the_same_method(one, other):
    assert_same_step(one(), other())


def test_every_part_composes_with_every_method():
    keywords = {"preconditioner": "adagrad", "eps": 0.1, "momentum": 0.9, "step_size": "dalr"}
    for name in (*TABLEAUS, "rk2"):
        state = optimizers.create(name, c=4.0, p=0.8, **keywords).init(zeros())
        assert isinstance(state, RungeKuttaState)
        assert hasattr(state.preconditioner, "sum_of_squares")
        assert hasattr(state.momentum, "trace")


def test_rk2_and_the_natural_field_each_have_an_alpha():
    found = optimizers.hyperparameters("rk2", preconditioner="natural")
    assert (found["alpha"], found["natural_alpha"]) == (0.5, -1.0)
    both = optimizers.create("rk2", 0.1, preconditioner="natural", alpha=1.0, natural_alpha=-0.5)
    assert_same_step(both, create("midpoint", 0.1, preconditioner="natural", alpha=-0.5))


def test_hyperparameters_are_those_with_an_effect():
    parts = {"preconditioner": "identity", "step_size": "fixed", "momentum": 0.0}
    assert optimizers.hyperparameters("rk4") == parts
    assert optimizers.hyperparameters("rk4", preconditioner="adagrad") == {
        **parts,
        "preconditioner": "adagrad",
        "eps": 0.1,
    }
    assert set(optimizers.hyperparameters("rk4_dalr")) == {"preconditioner", "momentum", "c", "p"}
    assert set(optimizers.hyperparameters("nadamw")) == {"b1", "b2", "eps", "weight_decay"}


@pytest.mark.parametrize("name", [n for n in optimizers.names() if n != "optax:contrib.dpsgd"])
def test_defaults_given_back_are_accepted(name):
    rate = None if "step_size" not in optimizers.hyperparameters(name) and "dalr" in name else 0.1
    with pytest.warns(UserWarning) if name == "optax:noisy_sgd" else pytest.MonkeyPatch.context():
        assert optimizers.create(name, rate, **optimizers.hyperparameters(name)).update


def test_float_hyperparameters_may_be_traced():
    @jax.jit
    def step(rate, eps, beta, c, p):
        params = zeros()
        fixed = create("rk4_adagrad", rate, eps=eps, momentum=beta)
        adaptive = create("rk4_dalr", c=c, p=p)
        return take_step(fixed, params)[0], take_step(adaptive, params)[0]

    traced = step(0.1, 0.3, 0.9, 4.0, 0.8)
    concrete = (
        take_step(create("rk4_adagrad", 0.1, eps=0.3, momentum=0.9))[0],
        take_step(create("rk4_dalr", c=4.0, p=0.8))[0],
    )
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), traced, concrete)


def test_step_size_is_read_from_states_that_have_one():
    _, state = take_step(optax.chain(create("rk4_dalr", c=4.0), optax.clip(1.0)))
    assert 0 < float(optimizers.step_size(state, default=-1.0)) < 4.0
    assert optimizers.step_size(create("sgd", 0.1).init(zeros()), default=0.1) == 0.1


REFUSED = [
    ("rk5", 0.1, {}, r"unknown optimizer 'rk5'; nearest: rk"),
    ("adm", 0.1, {}, r"unknown optimizer 'adm'; nearest: adam"),
    ("optax:adm", 0.1, {}, r"unknown optimizer 'optax:adm'; nearest: optax:adam"),
    ("optax:chain", 0.1, {}, r"unknown optimizer 'optax:chain'"),
    ("rk4", None, {}, r"'rk4' needs a learning_rate"),
    ("adam", None, {}, r"'adam' needs a learning_rate"),
    ("optax:contrib.dpsgd", 0.1, {}, r"needs a l2_norm_clip"),
    ("rk4", -0.1, {}, r"learning_rate must be a finite number >= 0, not -0\.1"),
    ("sgd", math.nan, {}, r"learning_rate must be a finite number >= 0, not nan"),
    ("optax:lion", math.inf, {}, r"learning_rate must be a finite number >= 0, not inf"),
    ("rk4", "fast", {}, r"learning_rate must be a finite number >= 0, not 'fast'"),
    ("adam", dalr(), {}, r"'adam' takes no step-size rule"),
    ("rk4_dalr", 0.1, {}, r"learning_rate has no effect.*which takes: c, p"),
    ("rk4", 0.1, {"eps": 0.1}, r"eps has no effect without preconditioner='adagrad'"),
    ("rk4", 0.1, {"c": 4.0}, r"c has no effect without step_size='dalr'"),
    ("heun", 0.1, {"alpha": 0.5}, r"alpha has no effect without preconditioner='natural'"),
    ("rk4", 0.1, {"momentun": 0.9}, r"unknown rk4 hyperparameter 'momentun'; nearest: momentum"),
    ("rk4", 0.1, {"tableau": "heun"}, r"unknown rk4 hyperparameter 'tableau'"),
    ("adam", 0.1, {"b3": 0.9}, r"unknown adam hyperparameter 'b3'; nearest: b"),
    ("adam", 0.1, {"b1": 1.0}, r"b1 must be a number in \[0, 1\), not 1\.0"),
    ("nadamw", 0.1, {"eps": -1.0}, r"eps must be a finite number >= 0"),
    ("momentum", 0.1, {"momentum": 1.5}, r"momentum must be a number in \[0, 1\), not 1\.5"),
    ("rk4_momentum", 0.1, {"momentum": -0.1}, r"momentum must be a number in \[0, 1\)"),
    ("rk4", 0.1, {"momentum": 1.0}, r"momentum must be a number in \[0, 1\)"),
    ("rk4", 0.1, {"preconditioner": "adagard"}, r"unknown preconditioner.*nearest: adagrad"),
    ("rk4", 0.1, {"step_size": "dalrr"}, r"unknown step-size 'dalrr'; nearest: dalr"),
    ("rk", 0.1, {"tableau": "rk44"}, r"unknown tableau 'rk44'; nearest: rk4"),
    ("rk", 0.1, {"tableau": {"a": [[], [1]], "b": [0.5, 0.5], "order": 3}}, r"order 3 is claimed"),
    ("rk2", 0.1, {"alpha": 1.5}, r"alpha of rk2 must be a number in \(0, 1\], not 1\.5"),
    ("rk4_dalr", None, {"c": -1.0}, r"c must be a finite number > 0"),
    ("rk4_adagrad", 0.1, {"eps": -1e-8}, r"eps must be a finite number >= 0"),
]


@pytest.mark.parametrize(("name", "rate", "keywords", "message"), REFUSED)
def test_mistakes_are_refused_in_one_line(name, rate, keywords, message):
    with pytest.raises(UserError, match=message) as refusal:
        optimizers.create(name, rate, **keywords)
    assert "\n" not in str(refusal.value)


def test_named_method_is_named_when_grad_fn_is_missing():
    optimizer, params = create("rk4_adagrad", 0.1), zeros()
    with pytest.raises(TypeError, match=r"optimizer 'rk4_adagrad': update\(\) needs .*grad_fn"):
        optimizer.update(params, optimizer.init(params), params)
