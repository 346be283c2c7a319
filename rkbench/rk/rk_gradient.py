"""The Runge-Kutta gradient g*(theta, h), Eq. (1): the stages of one step and nothing else.

What surrounds a gradient has to be decided for the extra stages too, and is decided here: the
stages know only `field`. What is random in it (mini-batch, augmentation, dropout key) is fixed by
the caller for the whole step; statistics that a forward pass updates (batch normalisation) come
from the first stage, which the caller computes; clipping or weight decay inside `field` changes
the flow that is followed, after the step (in `optax.chain`) it changes the step taken.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rkbench.rk.tableaus import Tableau
from rkbench.rk.vector_space import Vector, add_scaled, scale

Field = Callable[[Vector], Vector]


def rk_gradient(
    tableau: Tableau,
    field: Field,
    params: Vector,
    first: Vector,
    step_size: Any,
    unroll: bool = False,
) -> Vector:
    """g* = sum_i b_i k_i with k_i = field(theta - h sum_j a_ij k_j).

    Args:
      tableau: the method; its `evaluated_stages` - 1 evaluations of `field` are made.
      field: k(theta), the gradient or its preconditioned form: parameters to the same pytree.
      params: theta, where the step begins.
      first: k_1 = field(params), known already.
      step_size: h, a scalar.
      unroll: write out the stages of a chain instead of compiling them as a loop. Methods whose
        stages do not form a chain are always written out.

    Returns:
      g*, a pytree like `first` with its dtypes.
    """
    h = jnp.asarray(step_size, dtype=float)
    stages = _chain if tableau.is_chain else _general
    return stages(tableau, field, params, first, h, unroll)


def _chain(
    tableau: Tableau, field: Field, params: Vector, first: Vector, h: jax.Array, unroll: bool
) -> Vector:
    """Each stage needs only the one before: carry the next stage's point and g* so far.

    Carrying these two, not the stages, leaves memory the size of two parameter copies and a
    gradient traced once, however many stages there are.
    """
    stages = tableau.evaluated_stages
    # What each stage contributes to the next stage's point; the last one has no next.
    to_next = [tableau.a[i + 1][i] for i in range(stages - 1)] + [0.0]

    def stage(carry: tuple[Vector, Vector], coefficients: tuple[Any, Any]):
        point, total = carry
        b, a = coefficients
        k = field(point)
        # theta_{i+1} = theta - h a_{i+1,i} k_i;  g* += b_i k_i
        return (add_scaled(params, -h * a, k), add_scaled(total, b, k)), None

    carry = (add_scaled(params, -h * to_next[0], first), scale(tableau.b[0], first))
    rest = (tableau.b[1:stages], to_next[1:])
    if unroll or stages <= 2:  # a loop of one stage is none
        for coefficients in zip(*rest, strict=True):
            carry, _ = stage(carry, coefficients)
    else:
        weights, links = (jnp.asarray(coefficients, dtype=float) for coefficients in rest)
        carry, _ = jax.lax.scan(stage, carry, (weights, links))
    return carry[1]


def _general(
    tableau: Tableau, field: Field, params: Vector, first: Vector, h: jax.Array, unroll: bool
) -> Vector:
    """Stages that need several earlier ones: all are kept, and the stages written out."""
    del unroll
    ks = [first]
    for row in tableau.a[1 : tableau.evaluated_stages]:
        # theta_i = theta - h sum_j a_ij k_j
        ks.append(field(add_scaled(params, -h, _combine(row, ks))))
    return _combine(tableau.b, ks)


def _combine(coefficients: tuple[float, ...], ks: list[Vector]) -> Vector:
    """sum_j coefficients_j k_j over the stages there are, leaving out zeros."""
    terms = [(c, k) for c, k in zip(coefficients, ks, strict=False) if c != 0.0]
    total = scale(terms[0][0], terms[0][1]) if terms else scale(0.0, ks[0])
    for c, k in terms[1:]:
        total = add_scaled(total, c, k)
    return total
