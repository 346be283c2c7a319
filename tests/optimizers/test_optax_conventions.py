"""The optimizers as optax's users combine them: structure of states, arguments, numerical edges."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_runge_kutta import loss, numpy_gradient, numpy_rk4

from rkbench import optimizers, rk
from rkbench.errors import UserError
from rkbench.rk import EULER, RK4, Tableau, adagrad, dalr, modified_adagrad, natural, rk2
from rkbench.rk.vector_space import clip, norm, safe_norm

# optax types updates and states as wide unions; here they are what they are.
runge_kutta: Any = rk.runge_kutta
create: Any = optimizers.create
tree: Any = optax.tree

START = np.array([1.2, -0.7])
BIG = {"w": jnp.array([[3.0, 0.0], [4.0, 12.0]]), "b": jnp.array([84.0])}  # of length 85


def step(optimizer: Any, x: Any, grad_fn: Any = None, state: Any = None) -> Any:
    """(updates, state) of one compiled step."""
    grad_fn = grad_fn or jax.grad(loss)
    update = lambda g, s, p: optimizer.update(g, s, p, grad_fn=grad_fn)  # noqa: E731
    return jax.jit(update)(grad_fn(x), optimizer.init(x) if state is None else state, x)


def run(optimizer: Any, steps: int, x: Any = START, grad_fn: Any = None) -> Any:
    """The parameters after `steps` compiled steps."""
    x = jnp.asarray(x)
    state = optimizer.init(x)
    for _ in range(steps):
        updates, state = step(optimizer, x, grad_fn, state)
        x = optax.apply_updates(x, updates)
    return x


# --- Structure of the state -----------------------------------------------------------------------


@pytest.mark.standard_promotion  # optax's own injection
def test_inject_hyperparams_takes_every_number():
    injected = optax.inject_hyperparams(runge_kutta)
    optimizer = injected(RK4, learning_rate=0.1)
    x = jnp.asarray(START, jnp.float32)
    updates, state = step(optimizer, x)
    plain, _ = step(runge_kutta(RK4, 0.1), x)
    np.testing.assert_allclose(updates, plain, rtol=1e-6)
    state.hyperparams["momentum"] = jnp.asarray(0.9)  # set from outside, as one does
    after, state = step(optimizer, x, state=state)
    np.testing.assert_allclose(after, 1.9 * plain, rtol=1e-6)
    scheduled = injected(RK4, learning_rate=optax.linear_schedule(0.1, 0.2, 1), clip_norm=0.5)
    assert step(scheduled, x)[1].hyperparams["learning_rate"] == np.float32(0.1)


@pytest.mark.parametrize(
    ("momentum", "keeps"),
    [(0, False), (0.0, False), (None, False), (np.float32(0), True), (jnp.zeros(()), True)],
)
def test_python_zero_or_none_alone_keeps_no_momentum(momentum, keeps):
    state = runge_kutta(RK4, 0.1, momentum=momentum).init(jnp.ones(3))
    assert jax.tree.leaves(state.momentum) == [] if not keeps else state.momentum.shape == (3,)


def test_momentum_may_be_a_schedule_from_zero(x64):
    beta = lambda n: 0.3 * n.astype(float)  # noqa: E731
    found = run(runge_kutta(RK4, 0.2, momentum=beta), 3)
    x, m = START, np.zeros(2)
    for n in range(3):
        m = 0.3 * n * m + numpy_rk4(numpy_gradient, x, 0.2)
        x = x - 0.2 * m
    np.testing.assert_allclose(found, x, rtol=1e-12)


# --- Weight decay and clipping --------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_euler_with_weight_decay_is_sgdw_bit_for_bit(momentum):
    parts: list[Any] = [optax.add_decayed_weights(0.03), optax.scale_by_learning_rate(0.1)]
    sgdw = optax.with_extra_args_support(
        optax.chain(*([optax.trace(momentum)] if momentum else []), *parts)
    )
    x = jnp.asarray(START, jnp.float32)
    ours = runge_kutta(EULER, 0.1, weight_decay=0.03, momentum=momentum)
    np.testing.assert_array_equal(run(ours, 5, x), run(sgdw, 5, x))
    named = create("euler", 0.1, weight_decay=0.03, momentum=momentum)
    np.testing.assert_array_equal(run(named, 5, x), run(sgdw, 5, x))


def test_weight_decay_acts_once_and_l2_at_every_stage(x64):
    decay, h = 0.2, 0.3
    g = numpy_rk4(numpy_gradient, START, h)
    decoupled = START - h * (0.05 * g / np.linalg.norm(g) + decay * START)
    found = run(runge_kutta(RK4, h, weight_decay=decay, clip_norm=0.05), 1)
    np.testing.assert_allclose(found, decoupled, rtol=1e-12)
    penalized = START - h * numpy_rk4(lambda x: numpy_gradient(x) + decay * x, START, h)
    np.testing.assert_allclose(run(runge_kutta(RK4, h, l2=decay), 1), penalized, rtol=1e-12)
    np.testing.assert_allclose(run(create("rk4", h, l2=decay), 1), penalized, rtol=1e-12)


def test_weight_decay_without_gradient_makes_weights_shrink():
    still = lambda x: jnp.zeros_like(x)  # noqa: E731
    x = run(runge_kutta(RK4, 0.1, weight_decay=0.1), 100, jnp.ones(1), still)
    np.testing.assert_allclose(x, 0.99**100, rtol=1e-4)


# --- Eager loops ----------------------------------------------------------------------------------


def test_a_loop_without_jit_compiles_only_once():
    compiled = []

    def count(event: str, duration_secs: float, **_: Any):
        del duration_secs
        compiled.extend([event] * (event == "/jax/core/compile/backend_compile_duration"))

    x, optimizer = jnp.ones(2), runge_kutta(RK4, dalr(), momentum=0.9, clip_norm=1.0)
    state = optimizer.init(x)
    jax.monitoring.register_event_duration_secs_listener(count)
    after = []
    try:
        for _ in range(4):
            grad_fn = lambda x: 2 * x  # a new one each step, as in most loops  # noqa: E731
            updates, state = optimizer.update(grad_fn(x), state, x, grad_fn=grad_fn)
            x = x + updates
            after.append(len(compiled))
    finally:
        jax.monitoring.unregister_event_duration_listener(count)
    assert after[-1] == after[1]


# --- What the caller passes -----------------------------------------------------------------------


@pytest.mark.parametrize("params", [jnp.ones(3), {"w": jnp.ones((2, 2))}], ids=["array", "dict"])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda f: lambda p: f(p), r"not float32\[\]; if that is the loss, pass jax.grad\(loss\)"),
        (jax.value_and_grad, r"pass lambda params: f\(params\)\[1\]"),
        (lambda f: jax.grad(lambda p: (f(p), f(p)), has_aux=True), r"f\(params\)\[0\]"),
        (lambda f: lambda p: None, "must be the gradient alone"),
    ],
    ids=["loss", "value-and-grad", "aux", "none"],
)
def test_a_grad_fn_that_returns_something_else_is_refused(params, wrong, message):
    objective = lambda p: sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(p))  # noqa: E731
    optimizer = runge_kutta(RK4, 0.1)
    with pytest.raises(TypeError, match=message):
        optimizer.update(params, optimizer.init(params), params, grad_fn=wrong(objective))
    if (given := wrong(objective)(params)) is not None:
        with pytest.raises(TypeError, match="the gradient must be the gradient alone"):
            optimizer.update(given, optimizer.init(params), params, grad_fn=jax.grad(objective))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: runge_kutta("rk4", 0.1), "method must be .*'rk4'; rkbench.optimizers.create"),
        (lambda: runge_kutta(rk2, 0.1), r"method.*call it: rk2\("),
        (lambda: runge_kutta(RK4, "dalr"), "learning_rate must be a number, .*'dalr'"),
        (lambda: runge_kutta(RK4, dalr), r"learning_rate: call the factory: dalr\("),
        (lambda: runge_kutta(RK4, 0.1, preconditioner="adagrad"), "preconditioner must be .*names"),
        (lambda: runge_kutta(RK4, 0.1, preconditioner=adagrad), r"call it: adagrad\("),
    ],
)
def test_names_and_factories_in_place_of_parts_are_refused(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def test_python_floats_and_numpy_arrays_are_parameters_too():
    params = {"a": 1.5, "b": np.array([0.5, -2.0], np.float32)}
    grad_fn = lambda p: jax.tree.map(lambda x: 2 * x, p)  # noqa: E731
    optimizer = runge_kutta(RK4, dalr(), preconditioner=adagrad(), momentum=0.9)
    updates, _ = optimizer.update(grad_fn(params), optimizer.init(params), params, grad_fn=grad_fn)
    arrays = jax.tree.map(jnp.float32, params)
    expected, _ = step(optimizer, arrays, grad_fn)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), updates, expected)


def test_integer_leaves_are_refused_by_name():
    params = {"w": jnp.ones(2), "steps": jnp.int32(3)}
    with pytest.raises(TypeError, match=r"the parameters: \['steps'\] is int32"):
        runge_kutta(RK4, 0.1).init(params)
    grads = {"w": jnp.ones(2), "steps": np.zeros((), jax.dtypes.float0)}
    x = {"w": jnp.ones(2), "steps": jnp.float32(3)}
    with pytest.raises(TypeError, match=r"the gradient: \['steps'\] is .*float0"):
        runge_kutta(EULER, 0.1).update(grads, runge_kutta(EULER, 0.1).init(x), x)


def test_negative_learning_rates_are_refused_with_the_remedy():
    with pytest.raises(UserError, match=r"not -0\.1; to ascend, negate the loss"):
        runge_kutta(RK4, -0.1)


def test_orders_may_be_numpy_integers_and_unused_stages_are_not_evaluated(x64):
    table: Any = Tableau("mine", ((), (0.5,), (0.3, 0.7), (1.0, 0, 0)), (0.5, 0, 0, 0.5), 2)
    assert Tableau("heun", ((), (1,)), (0.5, 0.5), np.int64(2)) == rk.HEUN  # pyright: ignore
    assert table.evaluated_stages == 2
    assert table.is_chain
    updates, state = step(runge_kutta(table, 0.3), jnp.asarray(START))
    assert state.grad_evals == 2
    heun, _ = step(runge_kutta(rk.HEUN, 0.3), jnp.asarray(START))
    np.testing.assert_allclose(updates, heun, rtol=1e-13)


def test_first_same_as_last_is_recognised_within_rounding():
    off = 1 + 2e-16
    rows = ((), (1 / 2,), (0, 3 / 4), (2 / 9 * off, 1 / 3, 4 / 9 * off))
    for last in (0.0, 1e-17):
        table = Tableau("bs32", rows, (2 / 9, 1 / 3, 4 / 9, last), order=3)
        assert table.fsal
        assert table.evaluated_stages == 3


# --- Numerical edges ------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1e-22, 1e-20, 1.0, 1e19, 1e36])
def test_norm_and_clip_hold_for_every_length_in_float32(factor):
    x = jax.tree.map(lambda leaf: leaf * jnp.float32(factor), BIG)
    assert float(jax.jit(safe_norm)(x)) == pytest.approx(85 * factor, rel=1e-6)
    short, same = (jax.jit(clip)(x, jnp.float32(part * factor)) for part in (17, 86))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b / 5 * np.float32(factor), rtol=1e-6),
        short,
        BIG,
    )
    jax.tree.map(np.testing.assert_array_equal, same, x)


@pytest.mark.parametrize("factor", [1e-20, 1e19, 1e25])
@pytest.mark.parametrize("hvp", ["forward", "reverse"])
def test_dalr_holds_for_every_length_of_the_gradient(factor, hvp):
    x = jnp.array([3.0, 4.0]) * jnp.float32(factor)
    _, state = step(runge_kutta(EULER, dalr(c=2.0, p=1.0, hvp=hvp)), x, lambda x: 3.0 * x)
    assert float(state.step_size) == pytest.approx(2 / (1 + 3), rel=1e-5)


def test_dalr_in_float16_where_the_product_would_overflow():
    x = jnp.array([30.0, 40.0], jnp.float16)
    _, state = step(runge_kutta(EULER, dalr(c=1.0, p=0.5)), x, lambda x: jnp.float16(400.0) * x)
    assert float(state.step_size) == pytest.approx(1 / (1 + 0.5 * 20), rel=1e-3)


@pytest.mark.parametrize("alpha", [-1.0, -0.5])
def test_natural_field_where_the_square_overflows(alpha):
    g = jnp.array([3.0, 4.0]) * jnp.float32(1e24)
    precondition, _ = natural(alpha).update(g, ())
    expected = np.array([0.6, 0.8]) * 5e24 ** (1 + 2 * alpha)
    np.testing.assert_allclose(jax.jit(precondition)(g), expected, rtol=1e-5)


def test_meta_gradients_through_dalr_are_finite_at_a_critical_point():
    @jax.jit
    @jax.grad
    def meta(x, c, p):
        optimizer = runge_kutta(RK4, dalr(c, p), preconditioner=natural(), clip_norm=1.0)
        grad_fn = lambda x: 3.0 * x  # noqa: E731
        updates, _ = optimizer.update(grad_fn(x), optimizer.init(x), x, grad_fn=grad_fn)
        return jnp.sum((x + updates - 1) ** 2)

    assert np.all(np.isfinite(meta(jnp.zeros(2), 1.0, 0.8)))


def test_clipping_a_zero_gradient_divides_nothing_by_zero():
    with jax.debug_nans(True):
        updates, _ = step(runge_kutta(RK4, dalr(), clip_norm=1.0), jnp.zeros(2), lambda x: 3.0 * x)
    np.testing.assert_array_equal(updates, 0)


def test_zero_size_leaves_take_part():
    x = {"w": jnp.ones((2, 2)), "none": jnp.ones((3, 0)), "never": jnp.ones((0,))}
    grad_fn = lambda p: jax.tree.map(lambda leaf: 2 * leaf, p)  # noqa: E731
    for preconditioner in (natural(), adagrad()):
        optimizer = runge_kutta(
            RK4, dalr(), preconditioner=preconditioner, clip_norm=0.1, momentum=0.9
        )
        updates, _ = step(optimizer, x, grad_fn)
        assert updates["none"].shape == (3, 0)
        assert np.all(np.isfinite(updates["w"]))
        assert norm(updates) > 0


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("unroll", [False, True])
def test_weights_are_not_rounded_before_stages_are_summed(dtype, unroll):
    """Stages of a constant field sum to the field itself, if the weights add up to 1."""
    constant = jnp.full((4,), 1.0, dtype)
    for tableau in (*rk.TABLEAUS.values(), rk2(0.3)):
        optimizer = runge_kutta(tableau, 1.0, unroll_stages=unroll)
        updates, _ = step(optimizer, jnp.zeros(4, dtype), lambda x: constant)
        np.testing.assert_array_equal(updates.astype(float), -1.0, err_msg=tableau.name)


def test_dalr_with_a_loss_that_has_no_forward_derivative():
    @jax.custom_vjp
    def square(x):
        return 1.5 * jnp.sum(x**2)

    square.defvjp(lambda x: (square(x), x), lambda x, t: (3 * x * t,))
    grad_fn = jax.grad(lambda x: square(x) ** 2)  # = 45 x at this x, where H x = 135 x
    x = jnp.array([1.0, -2.0])
    _, state = step(runge_kutta(RK4, dalr(p=1.0, hvp="reverse")), x, grad_fn)
    assert float(state.step_size) == pytest.approx(1 / (1 + 135 / 2), rel=1e-6)
    assert state.grad_evals == 6
    with pytest.raises(TypeError, match="custom_vjp"):
        step(runge_kutta(RK4, dalr(p=1.0)), x, grad_fn)


# --- Complex parameters ---------------------------------------------------------------------------


def as_real(z):
    return jnp.stack([z.real, z.imag])


def as_complex(x):
    return jax.lax.complex(x[0], x[1])


def complex_loss(z):
    """optax's Rosenbrock function of a complex variable, made flatter."""
    a = 1 + 1j
    return jnp.abs(a - z[0]) ** 2 + jnp.abs(z[1] - z[0] ** 2) ** 2


@pytest.mark.parametrize(
    ("rate", "parts"),
    [
        (0.05, {}),
        (dalr(c=0.1), {"clip_norm": 0.5, "momentum": 0.5}),
        (dalr(c=0.1, hvp="reverse"), {}),
        (0.05, {"preconditioner": natural()}),
    ],
    ids=["plain", "dalr", "dalr-reverse", "natural"],
)
def test_complex_parameters_are_pairs_of_real_ones(rate, parts, x64):
    z = jnp.array([0.3 + 0.2j, -0.1 + 0.5j])
    optimizer = runge_kutta(RK4, rate, **parts)
    found = run(optimizer, 4, z, lambda z: jnp.conj(jax.grad(complex_loss)(z)))
    expected = run(optimizer, 4, as_real(z), jax.grad(lambda x: complex_loss(as_complex(x))))
    np.testing.assert_allclose(as_real(found), expected, rtol=1e-12)


def test_adagrad_of_complex_parameters_takes_the_modulus(x64):
    z, g = jnp.array([1.0 + 1j]), jnp.array([3.0 + 4j])
    for preconditioner, eps in ((adagrad(0.5), 0.5), (modified_adagrad(), 1.0)):
        precondition, state = preconditioner.update(g, preconditioner.init(z))
        np.testing.assert_allclose(state.sum_of_squares, [25.0])
        np.testing.assert_allclose(precondition(g), np.asarray(g) / np.sqrt(25 + eps), rtol=1e-14)


@pytest.mark.parametrize("name", ["rk4", "rk4_adagrad", "rk4_natural", "rk4_dalr", "rk4_momentum"])
def test_optax_complex_parabola_is_minimised(name):
    final = jnp.array([1.0, -1.0, 1.0]).astype(jnp.complex64) * jnp.complex64(1 + 1j)
    x = jnp.array([-1.0, 10.0, 1.0], jnp.complex64)
    grad_fn = lambda x: 2 * (x - final)  # noqa: E731
    rates = {"rk4_dalr": None, "rk4_adagrad": 0.5, "rk4_natural": 0.2}
    optimizer = create(name, rates.get(name, 0.05))

    @jax.jit
    def train(x):
        def body(carry, _):
            x, state = carry
            updates, state = optimizer.update(grad_fn(x), state, x, grad_fn=grad_fn)
            return (optax.apply_updates(x, updates), state), None

        return jax.lax.scan(body, (x, optimizer.init(x)), length=1500)[0][0]

    found = train(x)
    assert found.dtype == jnp.complex64
    np.testing.assert_allclose(found, final, rtol=3e-2)


# --- Several devices ------------------------------------------------------------------------------


def two_steps(x: Any, grad_fn: Any, optimizer: Any) -> Any:
    """(parameters, state) after two steps in a compiled loop."""

    def body(carry, _):
        x, state = carry
        updates, state = optimizer.update(grad_fn(x), state, x, grad_fn=grad_fn)
        return (optax.apply_updates(x, updates), state), None

    return jax.lax.scan(body, (x, optimizer.init(x)), length=2)[0]


@pytest.mark.parametrize(
    ("rate", "parts"),
    [
        (dalr(), {"preconditioner": adagrad(), "momentum": 0.9, "clip_norm": 1.0, "l2": 0.1}),
        (0.1, {"preconditioner": natural(), "weight_decay": 0.1}),
    ],
    ids=["dalr-adagrad", "natural"],
)
def test_explicit_sharding_is_kept_and_steps_run_inside_shard_map(rate, parts):
    """On a mesh of one device the types of arrays are checked as on many."""
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    rows, everywhere = jax.sharding.PartitionSpec("data"), jax.sharding.PartitionSpec()
    optimizer = runge_kutta(RK4, rate, **parts)
    with jax.set_mesh(mesh):
        put = lambda leaf: jax.device_put(leaf, jax.NamedSharding(mesh, rows))  # noqa: E731
        x = jax.tree.map(put, {"w": jnp.ones((4, 6, 2)), "b": jnp.ones(4)})
        double = lambda x: jax.tree.map(lambda leaf: 2 * leaf, x)  # noqa: E731
        after, state = jax.jit(lambda x: two_steps(x, double, optimizer))(x)
        assert jax.tree.map(jax.typeof, after) == jax.tree.map(jax.typeof, x)
        for array in jax.tree.leaves((state.momentum, state.preconditioner)):
            assert array.sharding.spec[0] == "data"

        def local(x):
            return two_steps(x, lambda x: jax.lax.pmean(2 * x, "data"), optimizer)[0]

        mapped = jax.jit(jax.shard_map(local, in_specs=everywhere, out_specs=everywhere))
        assert np.all(np.isfinite(mapped(jnp.ones((2, 3)))))
