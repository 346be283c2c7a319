"""Runge-Kutta optimizers inside optax's wrappers, against plain loops in NumPy.

What cannot work is refused, with a message that names the remedy.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.integrate import solve_ivp
from test_preconditioners import START, gradient
from test_runge_kutta import numpy_gradient, numpy_rk4

from rkbench import optimizers, rk
from rkbench.errors import UserError
from rkbench.rk import RK4

# optax types updates and states as wide unions; here they are what they are.
create: Any = optimizers.create
bind: Any = optimizers.bind
runge_kutta: Any = rk.runge_kutta
chain: Any = optax.chain
masked: Any = optax.masked
partition: Any = optax.partition

H, STEPS = 0.3, 4
pytestmark = pytest.mark.usefixtures("x64")


def start():
    return {"u": jnp.asarray(START[0]), "v": jnp.asarray(START[1])}


def value_fn(x):
    return 0.25 * x["u"] ** 4 + 0.5 * (x["v"] - jnp.sin(x["u"])) ** 2 + 0.5 * x["u"] ** 2


def vector(x):
    return np.array([float(x["u"]), float(x["v"])])


def run(optimizer, steps=STEPS, part=False, **given):
    """(the parameters after each step [steps, 2], the last state), in a compiled loop."""
    params = start()

    @jax.jit
    def step(params, state):
        grad_fn = optimizers.masked_grad_fn(gradient, params) if part else gradient
        keywords = {"grad_fn": grad_fn, **given}
        updates, state = optimizer.update(gradient(params), state, params, **keywords)
        return optax.apply_updates(params, updates), state

    state, points = optimizer.init(params), []
    for _ in range(steps):
        params, state = step(params, state)
        points.append(vector(params))
    return np.array(points), state


def plain_loop(step, steps=STEPS):
    """The points of x <- step(x, how many steps before), in NumPy."""
    x, points = START, []
    for n in range(steps):
        x = step(x, n)
        points.append(x)
    return np.array(points)


def direction(x, h=H):
    return numpy_rk4(numpy_gradient, x, h)


def assert_close(found, expected, rtol=1e-12):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-14)


def test_a_bound_grad_fn_needs_no_keyword():
    optimizer = bind(create("rk4", H), grad_fn=gradient)
    expected = plain_loop(lambda x, n: x - H * direction(x))
    assert_close(run(optimizer, grad_fn=None)[0], expected)


def test_after_a_chain_what_follows_acts_on_the_whole_step():
    found, _ = run(chain(create("rk4", H), optax.scale(0.5)))
    assert_close(found, plain_loop(lambda x, n: x - 0.5 * H * direction(x)))


def test_before_a_chain_what_precedes_acts_on_the_first_stage_alone_and_is_noticed():
    halved = chain(optax.scale(0.5), optimizers.check_first_stage(create("rk4", H)))
    with pytest.raises(Exception, match="no transformation may come before the Runge-Kutta step"):
        run(halved, steps=1)
    # Inside grad_fn and gradient it acts on the field.
    half = lambda x: jax.tree.map(lambda g: 0.5 * g, gradient(x))  # noqa: E731
    optimizer, x = create("rk4", H), start()
    updates, _ = optimizer.update(half(x), optimizer.init(x), x, grad_fn=half)
    expected = -H * numpy_rk4(lambda y: 0.5 * numpy_gradient(y), START, H)
    assert_close(vector(updates), expected)


def test_decay_after_a_step_makes_weights_grow():
    optimizer = chain(create("rk4", H), optax.add_decayed_weights(0.01))
    still = lambda x: jax.tree.map(jnp.zeros_like, x)  # noqa: E731
    updates, _ = optimizer.update(still(start()), optimizer.init(start()), start(), grad_fn=still)
    assert_close(vector(updates), 0.01 * START)


def test_ema_averages_the_steps():
    average = np.zeros(2)

    def step(x, n):
        nonlocal average
        average = 0.9 * average - 0.1 * H * direction(x)
        return x + average

    found, _ = run(chain(create("rk4", H), optax.ema(0.9, debias=False)))
    assert_close(found, plain_loop(step))


@pytest.mark.standard_promotion
def test_lookahead_drops_keywords_and_works_with_a_bound_grad_fn():
    def lookahead(fast) -> Any:
        return optax.lookahead(fast, sync_period=2, slow_step_size=0.5)

    params = optax.LookaheadParams.init_synced(start())
    optimizer = create("rk4", H)
    with pytest.raises(TypeError, match=r"rkbench\.optimizers\.bind"):
        lookahead(optimizer).update(gradient(start()), lookahead(optimizer).init(params), params)
    state, fast, slow = lookahead(optimizer).init(params), START, START
    for n in range(STEPS):
        bound = lookahead(bind(optimizer, grad_fn=gradient))
        updates, state = bound.update(gradient(params.fast), state, params)
        params = optax.apply_updates(params, updates)
        fast = fast - H * direction(fast)
        if n % 2 == 1:
            fast = slow = slow + 0.5 * (fast - slow)
        assert_close(vector(params.fast), fast)
        assert_close(vector(params.slow), slow)


@pytest.mark.standard_promotion
def test_schedule_free_starts_its_stages_at_y():
    x, z, total, expected = START, START, 0.0, []
    for _ in range(STEPS):  # Defazio et al. (2024), weights h^2 as in optax
        y = 0.1 * z + 0.9 * x
        z = z - H * direction(y)
        total += H**2
        x = x + H**2 / total * (z - x)
        expected.append(0.1 * z + 0.9 * x)
    found, _ = run(optax.contrib.schedule_free(create("rk4", H), H, b1=0.9))
    assert_close(found, expected)


@pytest.mark.standard_promotion
def test_reduce_on_plateau_scales_the_update_and_not_h():
    plateau = optax.contrib.reduce_on_plateau(0.5, patience=1, rtol=0.0, atol=1e-9)
    found, _ = run(chain(create("rk4", H), plateau), value=1.0)
    scales = [1.0, 0.5, 0.25, 0.125]
    assert_close(found, plain_loop(lambda x, n: x - scales[n] * H * direction(x)))
    # An unstable step stays unstable: |1 + s (R(-h lambda) - 1)| > 1 for every s > 0.
    stiff, params = lambda x: 10.0 * x, jnp.asarray(1.0)
    for scale in (0.1, 0.01):
        optimizer = chain(create("rk4", 1.0), optax.scale(scale))
        updates, _ = optimizer.update(stiff(params), optimizer.init(params), params, grad_fn=stiff)
        assert abs(float(params + updates)) > 1
    optimizer = create("rk4", 0.1)  # scaling h stabilises
    updates, _ = optimizer.update(stiff(params), optimizer.init(params), params, grad_fn=stiff)
    assert abs(float(params + updates)) < 0.5


@pytest.mark.standard_promotion
def test_a_plateau_rule_acts_on_h():
    plateau = optax.contrib.reduce_on_plateau(0.5, patience=1, rtol=0.0, atol=1e-9)

    def choose(start, state):
        _, state = plateau.update({}, state, value=start.value)
        return rk.Choice(H * state.scale, state)

    rule = rk.StepSizeRule(choose, init=plateau.init)
    found, _ = run(runge_kutta(RK4, rule), value=jnp.asarray(1.0))
    lengths = [H, H / 2, H / 4, H / 8]
    assert_close(found, plain_loop(lambda x, n: x - lengths[n] * direction(x, lengths[n])))


@pytest.mark.standard_promotion
def test_inject_hyperparams_changes_rate_and_momentum_between_steps():
    schedule = optax.piecewise_constant_schedule(H, {2: 0.5})
    optimizer = optax.inject_hyperparams(runge_kutta)(RK4, learning_rate=schedule, momentum=0.0)
    m = np.zeros(2)

    def step(x, n):
        nonlocal m
        h = H if n < 2 else H / 2
        m = (0.5 if n == 3 else 0.0) * m + direction(x, h)
        return x - h * m

    state, params, points = optimizer.init(start()), start(), []
    for n in range(STEPS):
        if n == 3:  # from outside, as a schedule of one's own would
            state.hyperparams["momentum"] = jnp.asarray(0.5)
        updates, state = optimizer.update(gradient(params), state, params, grad_fn=gradient)
        params = optax.apply_updates(params, updates)
        points.append(vector(params))
    assert_close(points, plain_loop(step))


@pytest.mark.standard_promotion
def test_line_searches_refuse_grad_fn_and_work_with_a_bound_one():
    search = optax.scale_by_backtracking_linesearch(20, slope_rtol=0.95)
    long = 0.8
    optimizer = create("rk4", long)
    given = {"value": value_fn(start()), "grad": gradient(start()), "value_fn": value_fn}
    with pytest.raises(Exception, match="grad_fn"):
        run(chain(optimizer, search), steps=1, **given)
    # Backtracking by 0.8 until L(x + s u) <= L(x) + 0.95 s <g, u>, as optax documents it.
    update = -long * direction(START, long)
    expected, scale = value_fn_numpy(START), 1.0
    while not value_fn_numpy(START + scale * update) <= expected + 0.95 * scale * (
        numpy_gradient(START) @ update
    ):
        scale *= 0.8
    x = start()
    bound = chain(bind(optimizer, grad_fn=gradient), search)
    updates, _ = bound.update(gradient(x), bound.init(x), x, **given)
    assert scale < 1
    assert_close(vector(updates), scale * update)


def value_fn_numpy(x):
    return 0.25 * x[0] ** 4 + 0.5 * (x[1] - np.sin(x[0])) ** 2 + 0.5 * x[0] ** 2


BATCHES = (0.5, 1.5)  # two micro-batches, whose gradients are these multiples of the whole one


@pytest.mark.standard_promotion
def test_multi_steps_needs_a_grad_fn_over_all_micro_batches():
    def last_step(grad_fn, wrap=lambda optimizer: optimizer):
        inner = wrap(create("rk4", H))
        optimizer: Any = optax.MultiSteps(inner, len(BATCHES), accumulator_dtype=jnp.float64)
        x = start()
        state, updates = optimizer.init(x), x
        for factor in BATCHES:
            part = jax.tree.map(lambda g, factor=factor: factor * g, gradient(x))
            updates, state = optimizer.update(part, state, x, grad_fn=grad_fn(factor))
            jax.effects_barrier()
        return vector(updates)

    mean = last_step(lambda factor: gradient)
    assert_close(mean, -H * direction(START))
    # A micro-batch's grad_fn at the later stages is another vector field; the check says so.
    micro = lambda factor: lambda x: jax.tree.map(lambda g: factor * g, gradient(x))  # noqa: E731
    assert np.linalg.norm(last_step(micro) - mean) > 0.1 * np.linalg.norm(mean)
    with pytest.raises(Exception, match="one loss on one batch"):
        last_step(micro, optimizers.check_first_stage)
    # Accumulated inside grad_fn, one plain step is the same.
    accumulated = lambda x: jax.tree.map(  # noqa: E731
        lambda *g: sum(g) / len(g), *(micro(factor)(x) for factor in BATCHES)
    )
    optimizer, x = create("rk4", H), start()
    updates, _ = optimizer.update(accumulated(x), optimizer.init(x), x, grad_fn=accumulated)
    assert_close(vector(updates), mean)


def test_masked_moves_its_part_and_holds_the_rest():
    rest = masked(optax.set_to_zero(), {"u": False, "v": True})
    part = masked(create("rk4", H, momentum=0.5), {"u": True, "v": False})
    with pytest.raises(TypeError, match=r"masked_grad_fn"):
        run(chain(part, rest), steps=1)
    m = 0.0

    def step(x, n):
        nonlocal m
        m = 0.5 * m + numpy_rk4(lambda u: numpy_gradient([u, x[1]])[0], x[0], H)
        return np.array([x[0] - H * m, x[1]])

    found, state = run(chain(part, rest), part=True)
    assert_close(found, plain_loop(step))
    momentum = state[0].inner_state.momentum
    assert [leaf.shape for leaf in jax.tree.leaves(momentum)] == [()]  # only of the part


def two_optimizers(h, factor):
    parts = {"slow": create("rk4", h), "fast": create("rk4", factor * h)}
    return partition(parts, {"u": "slow", "v": "fast"})


def test_partition_steps_each_part_from_where_all_began():
    def step(x, n):
        u = numpy_rk4(lambda u: numpy_gradient([u, x[1]])[0], x[0], H)
        v = numpy_rk4(lambda v: numpy_gradient([x[0], v])[1], x[1], 2 * H)
        return x - np.array([H * u, 2 * H * v])

    assert_close(run(two_optimizers(H, 2.0), part=True)[0], plain_loop(step))


def one_optimizer(h, factor):
    groups = optimizers.learning_rate_groups(
        {"u": "slow", "v": "fast"}, {"slow": 1, "fast": factor}
    )
    return runge_kutta(RK4, h, preconditioner=groups)


@pytest.mark.parametrize(("method", "order"), [(two_optimizers, 1), (one_optimizer, 4)])
def test_learning_rate_groups_keep_the_order_that_two_optimizers_lose(method, order):
    factor = 2.0
    exact = solve_ivp(
        lambda t, x: -np.array([1.0, factor]) * numpy_gradient(x),
        (0, 1), START, "DOP853", rtol=1e-12, atol=1e-14,
    ).y[:, -1]  # fmt: skip
    errors = [
        np.linalg.norm(run(method(1 / n, factor), n, part=order == 1)[0][-1] - exact)
        for n in (32, 64)
    ]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.2)


def test_learning_rate_groups_compose_with_a_preconditioner_and_momentum():
    factors, eps = np.array([1.0, 0.5]), 0.1
    labels = lambda tree: {"u": 0, "v": 1}  # noqa: E731  as optax.partition takes it
    groups = optimizers.learning_rate_groups(labels, dict(enumerate(factors)), rk.adagrad(eps))
    total, m = np.zeros(2), np.zeros(2)

    def step(x, n):
        nonlocal total, m
        total = total + numpy_gradient(x) ** 2
        field = lambda y: factors / np.sqrt(eps + total) * numpy_gradient(y)  # noqa: E731
        m = 0.9 * m + numpy_rk4(field, x, H)
        return x - H * m

    found, _ = run(runge_kutta(RK4, H, preconditioner=groups, momentum=0.9))
    assert_close(found, plain_loop(step))


def test_learning_rate_groups_refuse_what_has_no_multiplier():
    labels, unknown = {"u": "slow", "v": "fats"}, r"unknown parameter group 'fats'; nearest: fast"
    with pytest.raises(UserError, match=unknown):
        optimizers.learning_rate_groups(labels, {"slow": 1, "fast": 2})
    by_function = optimizers.learning_rate_groups(lambda tree: labels, {"slow": 1, "fast": 2})
    with pytest.raises(UserError, match=unknown):
        run(runge_kutta(RK4, H, preconditioner=by_function), steps=1)
    with pytest.raises(UserError, match=r"multiplier of group 'slow' must be .* >= 0, not -1"):
        optimizers.learning_rate_groups({"u": "slow", "v": "slow"}, {"slow": -1})


def test_map_params_reaches_through_the_helpers():
    groups = optimizers.learning_rate_groups({"u": 0, "v": 1}, {0: 1, 1: 2}, rk.adagrad())
    inner = runge_kutta(RK4, H, preconditioner=groups, momentum=0.5)
    wrapped = optimizers.apply_if_all_finite(
        optimizers.check_first_stage(bind(inner, grad_fn=gradient))
    )
    found = []
    state = wrapped.init(start())
    optax.tree.map_params(wrapped, lambda leaf: (found.append(leaf), leaf)[1], state)
    assert len(found) == 4  # two leaves of momentum, two of AdaGrad's sum


def failing_at(stage):
    """grad_fn that is NaN at one of RK4's later stages, 2 to 4."""
    x = START
    for length in [None, 0.5, 0.5, 1.0][1:stage]:
        k = numpy_gradient(x)
        x = START - length * H * k

    def grad_fn(params):
        near = jnp.abs(params["u"] - x[0]) + jnp.abs(params["v"] - x[1]) < 1e-9
        return jax.tree.map(lambda g: jnp.where(near, jnp.nan, g), gradient(params))

    return grad_fn


@pytest.mark.parametrize("stage", [2, 3, 4])
def test_a_stage_that_is_not_finite_is_skipped_and_counted(stage):
    optimizer: Any = optimizers.apply_if_all_finite(create("rk4", H, momentum=0.5))
    x, state = start(), optimizer.init(start())
    updates, after = optimizer.update(gradient(x), state, x, grad_fn=failing_at(stage))
    assert_close(vector(updates), [0, 0])
    assert (after.skipped, after.skipped_in_a_row) == (1, 1)
    assert optimizers.grad_evals(after) == 4  # they have been spent
    unspent = after.inner_state._replace(grad_evals=state.inner_state.grad_evals)
    jax.tree.map(np.testing.assert_array_equal, unspent, state.inner_state)
    _, after = optimizer.update(gradient(x), after, x, grad_fn=gradient)
    assert (after.skipped, after.skipped_in_a_row) == (1, 0)
    # optax's own guard looks at the first stage only, and the NaN stays in the momentum.
    theirs: Any = optax.apply_if_finite(create("rk4", H, momentum=0.5), 5)
    updates, state = theirs.update(gradient(x), theirs.init(x), x, grad_fn=failing_at(stage))
    updates, state = theirs.update(gradient(x), state, x, grad_fn=gradient)
    assert np.isnan(vector(updates)).all()


def test_the_guard_changes_no_number_and_skips_a_first_stage_too():
    expected = plain_loop(lambda x, n: x - H * direction(x))
    guarded: Any = optimizers.apply_if_all_finite(create("rk4", H))
    found, state = run(guarded)
    assert_close(found, expected)
    assert state.skipped == 0
    assert_close(run(optax.apply_if_finite(create("rk4", H), 5))[0], expected)
    not_finite = jax.tree.map(lambda leaf: leaf * jnp.inf, gradient(start()))
    updates, state = guarded.update(not_finite, state, start(), grad_fn=gradient)
    assert_close(vector(updates), [0, 0])
    assert state.skipped == 1


@pytest.mark.standard_promotion
def test_the_guard_lets_states_begin_infinite_and_keeps_keys():
    plateau = optax.contrib.reduce_on_plateau(0.5, patience=1, accumulation_size=3)
    noise = optax.add_noise(eta=0.0, gamma=0.0, key=jax.random.key(0))
    guarded: Any = optimizers.apply_if_all_finite(chain(create("rk4", H), plateau, noise))
    found, state = run(guarded, value=jnp.asarray(1.0))
    assert state.skipped == 0
    assert_close(found, plain_loop(lambda x, n: x - H * direction(x)))


def test_the_check_passes_what_is_right_and_names_what_differs():
    checked: Any = optimizers.check_first_stage(create("rk4", H))
    expected = plain_loop(lambda x, n: x - H * direction(x))
    assert_close(run(checked)[0], expected)
    x = start()
    another_batch = lambda y: jax.tree.map(lambda g: 1.1 * g, gradient(y))  # noqa: E731
    with pytest.raises(UserError, match=r"norms are .*one loss on one batch.*dropout key.*devices"):
        checked.update(gradient(x), checked.init(x), x, grad_fn=another_batch)
    loose: Any = optimizers.check_first_stage(create("rk4", H), rtol=0.2)
    assert loose.update(gradient(x), loose.init(x), x, grad_fn=another_batch)
    diverged = lambda y: jax.tree.map(lambda g: g * jnp.nan, gradient(y))  # noqa: E731
    assert checked.update(diverged(x), checked.init(x), x, grad_fn=diverged)


def noisy(x, key):
    """The gradient of a loss with dropout: each parameter's contribution is kept or not."""
    keep = jax.random.bernoulli(key, 0.5, (2,)).astype(float)
    g = gradient({"u": keep[0] * x["u"], "v": keep[1] * x["v"]})
    return {"u": keep[0] * g["u"], "v": keep[1] * g["v"]}


def test_every_stage_sees_the_dropout_of_the_key_in_grad_fn():
    optimizer, x = create("rk4", H), start()
    for seed in range(4):
        key = jax.random.key(seed)
        keep = np.asarray(jax.random.bernoulli(key, 0.5, (2,)), float)
        grad_fn = lambda y, key=key: noisy(y, key)  # noqa: E731
        updates, _ = optimizer.update(grad_fn(x), optimizer.init(x), x, grad_fn=grad_fn)
        expected = -H * numpy_rk4(lambda y, d=keep: d * numpy_gradient(d * y), START, H)
        assert_close(vector(updates), expected)


def test_scan_over_steps_and_vmap_over_hyperparameters():
    def train(params, rate, momentum):
        optimizer = create("rk4", rate, momentum=momentum)

        def step(carry, _):
            params, state = carry
            updates, state = optimizer.update(gradient(params), state, params, grad_fn=gradient)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), length=STEPS)[0][0]

    rates, momenta = np.array([0.1, 0.3]), np.array([0.0, 0.5])
    both = jax.jit(jax.vmap(train, (None, 0, 0)))
    found = both(start(), jnp.asarray(rates), jnp.asarray(momenta))
    for i, (h, beta) in enumerate(zip(rates, momenta, strict=True)):
        m = np.zeros(2)

        def step(x, n, h=h, beta=beta):
            nonlocal m
            m = beta * m + direction(x, h)
            return x - h * m

        assert_close(vector(jax.tree.map(lambda leaf, i=i: leaf[i], found)), plain_loop(step)[-1])


def test_parameters_and_state_may_be_donated():
    optimizer = optimizers.apply_if_all_finite(create("rk4", H, momentum=0.5))

    def step(params, state):
        updates, state = optimizer.update(gradient(params), state, params, grad_fn=gradient)
        return optax.apply_updates(params, updates), state

    donating: Any = jax.jit(step, donate_argnums=(0, 1))
    before = start(), optimizer.init(start())
    after = donating(*donating(*before))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before))
    first = direction(START)
    x = START - H * first
    assert_close(vector(after[0]), x - H * (0.5 * first + direction(x)))


def test_meta_gradients_are_those_of_finite_differences():
    def final(rate, momentum):
        optimizer, params = create("rk4_adagrad", rate, eps=0.5, momentum=momentum), start()
        state = optimizer.init(params)
        for _ in range(2):
            updates, state = optimizer.update(gradient(params), state, params, grad_fn=gradient)
            params = optax.apply_updates(params, updates)
        return value_fn(params)

    final = jax.jit(final)
    found = jax.jit(jax.grad(final, (0, 1)))(0.3, 0.4)
    d = 1e-6
    expected = [
        (final(0.3 + d, 0.4) - final(0.3 - d, 0.4)) / (2 * d),
        (final(0.3, 0.4 + d) - final(0.3, 0.4 - d)) / (2 * d),
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-7)
