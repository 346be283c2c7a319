"""The Runge-Kutta gradient g*(theta, h), Eq. (1): the stages of one step and nothing else.

What surrounds a gradient has to be decided for the extra stages too, and is decided here: the
stages know only `field`. What is random in it (mini-batch, augmentation, dropout key) is fixed by
the caller for the whole step; statistics that a forward pass updates (batch normalisation) come
from the first stage, which the caller computes; clipping or an L2 penalty inside `field` changes
the flow that is followed, applied to g* it changes the step taken.

Sums of stages are taken in float32 at least: weights such as 1/6, rounded to bfloat16, would no
longer add up to 1.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rkbench.rk.checks import is_any_traced
from rkbench.rk.method import Advance, Method, Start
from rkbench.rk.tableaus import Tableau
from rkbench.rk.vector_space import Vector, add_scaled, cast_like, scale, widen

Field = Callable[[Vector], Vector]
Stages = tuple[Vector, ...]


def explicit(tableau: Tableau, unroll: bool = False, keep_stages: bool = False) -> Method:
    """The method of an explicit tableau.

    Args:
      tableau: its coefficients.
      unroll: see `rk_gradient`.
      keep_stages: whether to return all stages, which takes as many copies of the parameters.
    """

    def advance(start: Start, h: jax.Array, state: Any) -> Advance:
        gradient, stages = _gradient_and_stages(
            tableau, start.field, start.params, start.first, h, unroll, keep_stages
        )
        return Advance(gradient, tableau.evaluated_stages - 1, state, stages=stages)

    return Method(tableau.name, tableau.order, advance)


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
        stages do not form a chain are always written out, and so are all outside `jit`.

    Returns:
      g*, a pytree like `first` with its dtypes.
    """
    h = jnp.asarray(step_size, dtype=float)
    return _gradient_and_stages(tableau, field, params, first, h, unroll, False)[0]


def _gradient_and_stages(
    tableau: Tableau,
    field: Field,
    params: Vector,
    first: Vector,
    h: jax.Array,
    unroll: bool,
    keep: bool,
) -> tuple[Vector, Stages | None]:
    """g* and, where they are to be kept, k_1, k_2, ..."""
    if not tableau.is_chain:
        return _general(tableau, field, params, first, h, keep)
    return _chain(tableau, field, params, first, h, unroll, keep)


def _chain(
    tableau: Tableau,
    field: Field,
    params: Vector,
    first: Vector,
    h: jax.Array,
    unroll: bool,
    keep: bool,
) -> tuple[Vector, Stages | None]:
    """Each stage needs only the one before: carry the next stage's point and g* so far.

    Carrying these two, not the stages, leaves memory the size of two parameter copies and a
    gradient traced once, however many stages there are.
    """
    a, b = tableau.reduced
    # What each stage contributes to the next stage's point; the last one has no next.
    to_next = [a[i + 1][i] for i in range(len(b) - 1)] + [0.0]

    def stage(carry: tuple[Vector, Vector], coefficients: tuple[Any, Any]):
        point, total = carry
        weight, link = coefficients
        k = field(point)
        # theta_{i+1} = theta - h a_{i+1,i} k_i;  g* += b_i k_i
        carry = add_scaled(params, -h * link, k), add_scaled(total, weight, k)
        return carry, (k if keep else None)

    carry = (add_scaled(params, -h * to_next[0], first), scale(b[0], widen(first)))
    rest = (b[1:], to_next[1:])
    ks: list[Vector] = [first]
    # A loop of one stage is none; outside a compiled function, a loop would compile at every step.
    if unroll or len(b) <= 2 or not is_any_traced((params, first, h)):
        for coefficients in zip(*rest, strict=True):
            carry, k = stage(carry, coefficients)
            ks.append(k)
    else:
        weights, links = (jnp.asarray(coefficients, dtype=float) for coefficients in rest)
        carry, stacked = jax.lax.scan(stage, carry, (weights, links))
        ks += [jax.tree.map(lambda k, i=i: k[i], stacked) for i in range(len(b) - 1)]
    return cast_like(carry[1], first), tuple(ks) if keep else None


def _general(
    tableau: Tableau, field: Field, params: Vector, first: Vector, h: jax.Array, keep: bool
) -> tuple[Vector, Stages | None]:
    """Stages that need several earlier ones: all are kept, and the stages written out."""
    a, b = tableau.reduced
    ks = [first]
    for row in a[1:]:
        # theta_i = theta - h sum_j a_ij k_j
        ks.append(field(add_scaled(params, -h, _combine(row, ks))))
    return cast_like(_combine(b, ks), first), tuple(ks) if keep else None


def _combine(coefficients: tuple[float, ...], ks: list[Vector]) -> Vector:
    """sum_j coefficients_j k_j over the stages there are, leaving out zeros; not cast back."""
    terms = [(c, k) for c, k in zip(coefficients, ks, strict=False) if c != 0.0]
    c, k = terms[0] if terms else (0.0, ks[0])
    total = scale(c, widen(k))
    for c, k in terms[1:]:
        total = add_scaled(total, c, k)
    return total
