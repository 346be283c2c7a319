"""Tableaus by Butcher's theory: order conditions over rooted trees, and what is refused."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from generated import generated
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import RK23, RK45

from rkbench.errors import UserError
from rkbench.rk import (
    BS32,
    EULER,
    HEUN,
    KUTTA3,
    MIDPOINT,
    RALSTON,
    RK4,
    SSPRK3,
    TABLEAUS,
    Tableau,
    order_conditions,
    rk2,
)

BOGACKI_SHAMPINE = Tableau(
    "bogacki_shampine",  # without its embedded method
    ((), (1 / 2,), (0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
    (2 / 9, 1 / 3, 4 / 9, 0),
    order=3,
)
PAIRS = {name: table for name, table in TABLEAUS.items() if table.b_embedded is not None}


def butcher_conditions(a: np.ndarray, b: np.ndarray) -> dict[int, list[float]]:
    """The eight conditions up to order 4, written out (Hairer, Norsett and Wanner, II.2)."""
    c = a.sum(axis=1)
    return {
        1: [b.sum() - 1],
        2: [b @ c - 1 / 2],
        3: [b @ c**2 - 1 / 3, b @ a @ c - 1 / 6],
        4: [
            b @ c**3 - 1 / 4,
            (b * c) @ a @ c - 1 / 8,
            b @ a @ c**2 - 1 / 12,
            b @ a @ a @ c - 1 / 24,
        ],
    }


def test_rooted_trees_are_counted_as_in_oeis_a000081():
    trees = [order_conditions.rooted_trees(nodes) for nodes in range(1, 9)]
    assert [len(set(t)) for t in trees] == [len(t) for t in trees] == [1, 1, 2, 4, 9, 20, 48, 115]
    assert all(order_conditions.size(tree) == 8 for tree in trees[-1])


def test_densities_of_the_trees_up_to_order_four():
    densities = [
        sorted(map(order_conditions.density, order_conditions.rooted_trees(nodes)))
        for nodes in (1, 2, 3, 4)
    ]
    assert densities == [[1], [2], [3, 6], [4, 8, 12, 24]]


@pytest.mark.parametrize("seed", range(3))
def test_residuals_equal_the_conditions_written_out(seed):
    rng = np.random.default_rng(seed)
    a, b = np.tril(rng.normal(size=(5, 5)), -1), rng.normal(size=5)
    for nodes, expected in butcher_conditions(a, b).items():
        found = order_conditions.residuals(a.tolist(), b.tolist(), nodes).values()
        np.testing.assert_allclose(sorted(found), sorted(expected), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("tableau", TABLEAUS.values(), ids=TABLEAUS)
def test_each_tableau_has_exactly_the_order_it_claims(tableau):
    conditions = butcher_conditions(np.array(tableau.a), np.array(tableau.b))
    for order in range(1, min(tableau.order, 4) + 1):
        assert np.abs(conditions[order]).max() < 1e-14
    beyond = order_conditions.residuals(tableau.a, tableau.b, tableau.order + 1)
    assert max(map(abs, beyond.values())) > 1e-4


@pytest.mark.parametrize("tableau", PAIRS.values(), ids=PAIRS)
def test_each_embedded_method_has_exactly_the_order_it_claims(tableau):
    assert tableau.embedded_order < tableau.order
    conditions = butcher_conditions(np.array(tableau.a), np.array(tableau.b_embedded))
    for order in range(1, tableau.embedded_order + 1):
        assert np.abs(conditions[order]).max() < 1e-14
    beyond = order_conditions.residuals(tableau.a, tableau.b_embedded, tableau.embedded_order + 1)
    assert max(map(abs, beyond.values())) > 1e-4


@pytest.mark.parametrize(("name", "solver"), [("bs32", RK23), ("dopri5", RK45)])
def test_embedded_pairs_are_scipys(name, solver):
    tableau: Any = TABLEAUS[name]
    a, stages = np.array(tableau.a), solver.n_stages
    np.testing.assert_allclose(a[:stages, : solver.A.shape[1]], solver.A, rtol=1e-15)
    np.testing.assert_allclose(tableau.b[:stages], solver.B, rtol=1e-15)
    np.testing.assert_allclose(tableau.c[:stages], solver.C, rtol=1e-15)
    sign = np.sign(tableau.error_weights[0]) * np.sign(solver.E[0])
    np.testing.assert_allclose(np.array(tableau.error_weights) * sign, solver.E, atol=1e-16)


def test_embedded_methods_of_the_registered_tableaus():
    found = {name: (table.order, table.embedded_order) for name, table in PAIRS.items()}
    assert found == {"rk4": (4, 2), "heun_euler": (2, 1), "bs32": (3, 2), "dopri5": (5, 4)}
    assert HEUN.error_weights is None
    # g* - k_2: the midpoint rule.
    assert RK4.error_weights == (1 / 6, 1 / 3 - 1, 1 / 3, 1 / 6)


@pytest.mark.parametrize(
    ("tableau", "order", "stages"),
    [
        ("euler", 1, 1),
        ("midpoint", 2, 2),
        ("heun", 2, 2),
        ("ralston", 2, 2),
        ("kutta3", 3, 3),
        ("ssprk3", 3, 3),
        ("rk4", 4, 4),
        ("rk4_38", 4, 4),
        ("heun_euler", 2, 2),
        ("bs32", 3, 4),
        ("dopri5", 5, 7),
    ],
)
def test_orders_and_stages_of_the_registered_methods(tableau, order, stages):
    assert (TABLEAUS[tableau].order, TABLEAUS[tableau].stages) == (order, stages)


def test_classical_rk4_is_the_papers():
    # Equations (36)-(40).
    assert RK4.a == ((0, 0, 0, 0), (0.5, 0, 0, 0), (0, 0.5, 0, 0), (0, 0, 1, 0))
    assert RK4.b == (1 / 6, 1 / 3, 1 / 3, 1 / 6)
    assert RK4.c == (0, 0.5, 0.5, 1)


@pytest.mark.parametrize("tableau", [*TABLEAUS.values(), BOGACKI_SHAMPINE], ids=lambda t: t.name)
def test_stability_polynomial_is_the_exponential_up_to_the_order(tableau):
    coefficients = tableau.stability_polynomial
    taylor = [1 / math.factorial(k) for k in range(tableau.order + 1)]
    np.testing.assert_allclose(coefficients[: tableau.order + 1], taylor, rtol=1e-15)
    if tableau.name != "dopri5":  # six stages for order five: 1/600 z^6, and no more
        np.testing.assert_allclose(coefficients[tableau.order + 1 :], 0, atol=1e-16)
    else:
        np.testing.assert_allclose(coefficients[6:], (1 / 600, 0), atol=1e-16)
    assert len(coefficients) == tableau.stages + 1


def test_chains_are_the_methods_whose_stages_need_only_the_one_before():
    chains = {name for name, tableau in TABLEAUS.items() if tableau.is_chain}
    assert chains == {"euler", "midpoint", "heun", "ralston", "rk4", "heun_euler", "bs32"}


def test_first_same_as_last_leaves_out_the_stage_that_has_no_weight():
    assert BOGACKI_SHAMPINE.fsal
    assert BOGACKI_SHAMPINE.evaluated_stages == 3
    assert BOGACKI_SHAMPINE.is_chain  # without that stage
    assert {name for name, table in TABLEAUS.items() if table.fsal} == {"bs32", "dopri5"}
    assert TABLEAUS["dopri5"].evaluated_stages == 6
    assert BS32.reduced == BOGACKI_SHAMPINE.reduced
    assert BS32.error_weights is not None
    a, _ = BS32.reduced_to(BS32.b, BS32.error_weights)
    assert a == BS32.a  # the error needs it


def test_family_of_second_order_methods_contains_the_named_ones():
    for alpha, tableau in ((1, MIDPOINT), (1 / 2, HEUN), (3 / 4, RALSTON)):
        assert (rk2(alpha).a, rk2(alpha).b) == (tableau.a, tableau.b)


@generated(100)
@given(st.floats(min_value=1e-3, max_value=1))
def test_every_member_of_the_family_has_order_two(alpha):
    tableau = rk2(alpha)
    conditions = butcher_conditions(np.array(tableau.a), np.array(tableau.b))
    assert abs(conditions[1][0]) < 1e-14
    assert abs(conditions[2][0]) < 1e-14


@pytest.mark.parametrize("alpha", [0, -0.5, 1.5, math.nan, math.inf, "half", None])
def test_alpha_outside_its_range_is_refused(alpha):
    with pytest.raises(UserError, match=r"alpha of rk2 must be a number in \(0, 1\]"):
        rk2(alpha)


def test_ragged_rows_and_full_rows_are_the_same_tableau():
    full = Tableau("heun", ((0.0, 0.0), (1.0, 0.0)), (0.5, 0.5), 2)
    assert full == HEUN
    assert hash(full) == hash(HEUN)


@pytest.mark.parametrize(("row", "column"), [(i, j) for i in range(4) for j in range(i)])
def test_rk4_with_one_coefficient_off_is_refused(row, column):
    a = [list(entries) for entries in RK4.a]
    a[row][column] += 1e-6
    with pytest.raises(UserError, match=r"tableau 'rk4': order 4 is claimed, but the condition"):
        dataclasses.replace(RK4, a=a)


@pytest.mark.parametrize("tableau", [EULER, HEUN, KUTTA3, SSPRK3], ids=lambda t: t.name)
def test_one_order_too_many_is_refused(tableau):
    stages = tableau.stages
    with pytest.raises(UserError, match=f"{stages} stages has at most order {stages}"):
        dataclasses.replace(tableau, order=tableau.order + 1)


def test_order_claimed_within_the_stages_but_not_reached_is_refused():
    with pytest.raises(UserError, match="the condition of order 4"):
        dataclasses.replace(BOGACKI_SHAMPINE, order=4)


def test_lower_order_than_the_true_one_is_accepted():
    assert dataclasses.replace(RK4, order=2).order == 2


@pytest.mark.parametrize(
    ("a", "b", "order", "message"),
    [
        (((), (1,)), (0.5, 0.6), 1, r"add up to 1\.1, not to 1"),
        (((0.5,),), (1,), 1, "row 1 of a has an entry on or right of the diagonal"),
        (((0, 0.5), (1, 0)), (0.5, 0.5), 1, "implicit"),
        (((), (math.nan,)), (0.5, 0.5), 1, "every coefficient must be finite"),
        (((), (1,)), (math.inf, 0.5), 1, "every coefficient must be finite"),
        (((),), (0.5, 0.5), 1, "must be square"),
        (((), (1, 0, 0)), (0.5, 0.5), 1, "must be square"),
        ((), (), 1, "b is empty"),
        (((),), (1,), 0, "order must be an integer >= 1"),
        (((),), (1,), 1.0, "order must be an integer >= 1"),
        (((),), (1,), True, "order must be an integer >= 1"),
        (((), ("x",)), (0.5, 0.5), 1, "rows of numbers"),
        (0.5, (0.5, 0.5), 1, "rows of numbers"),
    ],
)
def test_malformed_tableaus_are_refused_with_the_reason(a, b, order, message):
    with pytest.raises(UserError, match=message):
        Tableau("mine", a, b, order)


@pytest.mark.parametrize(
    ("embedded", "message"),
    [
        ({"b_embedded": (1, 0)}, "are given together or not at all"),
        ({"embedded_order": 1}, "are given together or not at all"),
        ({"b_embedded": (1, 0), "embedded_order": 2}, "embedded_order 2 is claimed, but the cond"),
        ({"b_embedded": (1, 0), "embedded_order": 0}, "embedded_order must be an integer >= 1"),
        ({"b_embedded": (1, 0.5), "embedded_order": 1}, r"b_embedded add up to 1\.5, not to 1"),
        ({"b_embedded": (1,), "embedded_order": 1}, "must be 2 finite numbers"),
        ({"b_embedded": (1, math.nan), "embedded_order": 1}, "must be 2 finite numbers"),
        ({"b_embedded": "b", "embedded_order": 1}, "b_embedded must be a row of numbers"),
        ({"b_embedded": (0.5, 0.5), "embedded_order": 1}, "b_embedded is b"),
    ],
)
def test_malformed_embedded_methods_are_refused_with_the_reason(embedded, message):
    with pytest.raises(UserError, match=message):
        Tableau.from_mapping({"a": ((), (1,)), "b": (0.5, 0.5), "order": 2, **embedded})


def test_tableau_from_a_mapping():
    table = {"a": [[], [1.0]], "b": [0.5, 0.5], "order": 2}
    assert Tableau.from_mapping({**table, "name": "heun"}) == HEUN
    with pytest.raises(UserError, match="missing: order"):
        Tableau.from_mapping({"a": [[]], "b": [1]})
    with pytest.raises(UserError, match="unknown tableau key 'ordre'; nearest: order"):
        Tableau.from_mapping({**table, "ordre": 2})
