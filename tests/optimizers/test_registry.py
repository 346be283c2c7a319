"""The registry: what names and keywords mean, and which are refused with which message."""

import math
from typing import Any

import jax
import numpy as np
import optax
import pytest
from test_optimizers import MINIMUM, objective, zeros

from rkbench import optimizers
from rkbench.errors import UserError
from rkbench.rk import HEUN, RK4, TABLEAUS, RungeKuttaState, Tableau, adagrad, dalr, explicit

# optax types updates and states as wide unions; here they are what they are.
create: Any = optimizers.create


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


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda: create("rk4_adagrad", 0.1, eps=0.3),
         lambda: create("rk4", 0.1, preconditioner="adagrad", eps=0.3)),
        (lambda: create("rk4_adam", 0.1, b1=0.8),
         lambda: create("rk4", 0.1, preconditioner="adam", b1=0.8)),
        (lambda: create("rk", 5.0, tableau="sdirk2", tolerance=1e-2),
         lambda: create("sdirk2", 5.0, tolerance=1e-2)),
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
        (lambda: create("rk4", 0.1, unroll_stages=True),
         lambda: create(RK4, 0.1, unroll_stages=True)),
        (lambda: create("rk4", 0.1, preconditioner=adagrad(0.3), step_size="fixed"),
         lambda: create("rk4_adagrad", 0.1, eps=0.3)),
        (lambda: create("rk4", step_size=dalr(4.0)), lambda: create("rk4_dalr", c=4.0)),
        (lambda: create("rk", 0.1, tableau=explicit(HEUN)), lambda: create("heun", 0.1)),
        (lambda: create("momentum", 0.1, momentum=0.5),
         lambda: create("optax:sgd", 0.1, momentum=0.5)),
    ],
)  # fmt: skip
def test_two_ways_to_name_the_same_method(one, other):
    assert_same_step(one(), other())


def test_every_part_composes_with_every_method():
    keywords = {"preconditioner": "adagrad", "eps": 0.1, "momentum": 0.9, "step_size": "dalr"}
    for name in (*TABLEAUS, "rk2"):
        state = create(name, c=4.0, p=0.8, **keywords).init(zeros())
        assert isinstance(state, RungeKuttaState)
        assert hasattr(state.preconditioner, "sum_of_squares")
        assert state.momentum.keys() == MINIMUM.keys()


def test_what_decides_the_evaluations_of_implicit_methods_is_the_loss():
    spending = optimizers.spending
    assert spending("sdirk2") == spending("rk", "sdirk2") == spending("optax:lbfgs")
    assert spending("rk") == spending("rk", "heun") == spending("rk", {"b": (1.0,)})
    assert spending("rk") != spending("sdirk2")


def test_rk2_and_the_natural_field_each_have_an_alpha():
    found = optimizers.hyperparameters("rk2", preconditioner="natural")
    assert (found["alpha"], found["natural_alpha"]) == (0.5, -1.0)
    both = create("rk2", 0.1, preconditioner="natural", alpha=1.0, natural_alpha=-0.5)
    assert_same_step(both, create("midpoint", 0.1, preconditioner="natural", alpha=-0.5))


def test_hyperparameters_are_those_with_an_effect():
    terms = {"momentum": 0.0, "weight_decay": 0.0, "l2": 0.0, "nesterov": False}
    parts = {"preconditioner": "identity", "step_size": "fixed", **terms}
    assert optimizers.hyperparameters("rk4") == parts
    assert optimizers.hyperparameters("rk4", preconditioner="adagrad") == {
        **parts,
        "preconditioner": "adagrad",
        "eps": 0.1,
    }
    assert set(optimizers.hyperparameters("rk4_dalr")) == {
        *("preconditioner", "c", "p", "hvp", "curvature", *terms)
    }
    assert set(optimizers.hyperparameters("nadamw")) == {"b1", "b2", "eps", "weight_decay"}


@pytest.mark.filterwarnings("ignore:Specifying a key will be required")
def test_defaults_can_be_given_as_they_are():
    for name in optimizers.names():
        rate = None if name == "rk4_dalr" else 0.1
        assert create(name, rate, **optimizers.hyperparameters(name)).update
    parts = optimizers.hyperparameters("heun", preconditioner="adagrad", momentum=0.5)
    assert create("heun", 0.1, **parts).update


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


@pytest.mark.standard_promotion
@pytest.mark.parametrize(
    ("name", "keywords"), [("rk4", {"momentum": 0.9}), ("adam", {"b1": 0.5}), ("heun", {})]
)
def test_create_works_under_inject_hyperparams(name, keywords):
    injected: Any = optax.inject_hyperparams(create)(name, learning_rate=0.1, **keywords)
    assert_same_step(injected, create(name, 0.1, **keywords))
    params, grad_fn = zeros(), jax.grad(objective)
    state = injected.init(params)
    state.hyperparams["learning_rate"] = 0.2  # as users change it
    updates, state = jax.jit(
        lambda state: injected.update(grad_fn(params), state, params, grad_fn=grad_fn)
    )(state)
    expected, _ = take_step(create(name, 0.2, **keywords))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), updates, expected)
    assert optimizers.grad_evals(state) == {"rk4": 4, "heun": 2}.get(name, 1)


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
    ("optax:contrib.dpsgd", 0.1, {}, r"cannot be run: it needs the gradient of every example"),
    ("rk4", -0.1, {}, r"learning_rate must be a finite number >= 0, not -0\.1"),
    ("sgd", math.nan, {}, r"learning_rate must be a finite number >= 0, not nan"),
    ("optax:lion", math.inf, {}, r"learning_rate must be a finite number >= 0, not inf"),
    ("rk4", "fast", {}, r"learning_rate must be a finite number >= 0, not 'fast'"),
    ("rk4", dalr, {}, r"learning_rate is the function dalr itself: call it, as dalr\(\)"),
    ("adam", dalr, {}, r"learning_rate is the function dalr itself"),
    (dalr, 0.1, {}, r"the optimizer is the function dalr itself"),
    ("rk4", 0.1, {"hyperparameters": 3}, r"unknown rk4 hyperparameter 'hyperparameters'"),
    (["rk4"], 0.1, {}, r"a name or a Tableau, not \['rk4'\]"),
    ("adam", dalr(), {}, r"'adam' takes no step-size rule"),
    ("rk4_dalr", 0.1, {}, r"learning_rate has no effect.*which takes: c, p"),
    ("rk4_dalr", None, {"hvp": "backward"}, r"unknown hvp 'backward'; nearest: forward, reverse"),
    ("rk4", 0.1, {"step_size": dalr()}, r"learning_rate has no effect.*given as step_size"),
    ("rk4", 0.1, {"preconditioner": adagrad}, r"preconditioner: give a name, or call adagrad\("),
    ("rk4", 0.1, {"weight_decay": -0.1}, r"weight_decay must be a finite number >= 0, not -0\.1"),
    ("rk4", 0.1, {"l2": math.nan}, r"l2 must be a finite number >= 0, not nan"),
    ("rk4", -0.1, {}, r"not -0\.1; to ascend, negate the loss and its gradients"),
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
        create(name, rate, **keywords)
    assert "\n" not in str(refusal.value)


def test_named_method_is_named_when_grad_fn_is_missing():
    optimizer, params = create("rk4_adagrad", 0.1), zeros()
    with pytest.raises(TypeError, match=r"optimizer 'rk4_adagrad': update\(\) needs .*grad_fn"):
        optimizer.update(params, optimizer.init(params), params)
