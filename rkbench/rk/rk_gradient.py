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
from rkbench.rk.tableaus import Tableau, is_chain
from rkbench.rk.vector_space import Vector, add_scaled, cast_like, scale, widen

Field = Callable[[Vector], Vector]
Stages = tuple[Vector, ...]
Rows = tuple[tuple[float, ...], ...]


def explicit(
    tableau: Tableau,
    unroll: bool = False,
    keep_stages: bool = False,
    estimate_error: bool = False,
) -> Method:
    """The method of an explicit tableau.

    Args:
      tableau: its coefficients.
      unroll: see `rk_gradient`.
      keep_stages: whether to return all stages, which takes as many copies of the parameters.
      estimate_error: whether to return the error, where the tableau has `b_embedded`; stages that
        only `b_embedded` needs are evaluated then.
    """
    sums = (tableau.b,)
    if estimate_error and tableau.error_weights is not None:
        sums += (tableau.error_weights,)
    a, weights = tableau.reduced_to(*sums)
    follow = _chain if is_chain(a) else _general

    def advance(start: Start, h: jax.Array, state: Any) -> Advance:
        arguments = start.field, start.params, start.first, h
        totals, stages = follow(a, weights, *arguments, unroll, keep_stages)
        return Advance(
            cast_like(totals[0], start.first),
            len(a) - 1,
            state,
            error=totals[1] if len(totals) > 1 else None,
            stages=stages,
        )

    return Method(
        tableau.name,
        tableau.order,
        advance,
        embedded_order=tableau.embedded_order if estimate_error else None,
        second_node=(a[1][0] or None) if keep_stages and len(a) > 1 else None,
    )


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
    a, weights = tableau.reduced_to(tableau.b)
    follow = _chain if is_chain(a) else _general
    (total,), _ = follow(a, weights, field, params, first, h, unroll, False)
    return cast_like(total, first)


def _chain(
    a: Rows,
    weights: Rows,
    field: Field,
    params: Vector,
    first: Vector,
    h: jax.Array,
    unroll: bool,
    keep: bool,
) -> tuple[Stages, Stages | None]:
    """The sums of stages with each row of `weights`; and, where they are to be kept, k_1, k_2, ...

    Each stage needs only the one before: carry the next stage's point and the sums so far. Carrying
    these, not the stages, leaves memory the size of two parameter copies (three with an error) and
    a gradient traced once, however many stages there are. The sums are in float32 at least.
    """
    # What each stage contributes to the next stage's point; the last one has no next.
    to_next = [a[i + 1][i] for i in range(len(a) - 1)] + [0.0]

    def stage(carry: tuple[Vector, Stages], coefficients: tuple[tuple[Any, ...], Any]):
        point, totals = carry
        column, link = coefficients
        k = field(point)
        # theta_{i+1} = theta - h a_{i+1,i} k_i;  g* += b_i k_i
        point = add_scaled(params, -h * link, k)
        totals = tuple(add_scaled(t, w, k) for t, w in zip(totals, column, strict=True))
        return (point, totals), (k if keep else None)

    begin = tuple(scale(row[0], widen(first)) for row in weights)
    carry = (add_scaled(params, -h * to_next[0], first), begin)
    columns = list(zip(*weights, strict=True))[1:]
    ks: list[Vector] = [first]
    # A loop of one stage is none; outside a compiled function, a loop would compile at every step.
    if unroll or len(a) <= 2 or not is_any_traced((params, first, h)):
        for coefficients in zip(columns, to_next[1:], strict=True):
            carry, k = stage(carry, coefficients)
            ks.append(k)
    else:
        rows = tuple(jnp.asarray(row[1:], dtype=float) for row in weights)
        links = jnp.asarray(to_next[1:], dtype=float)
        carry, stacked = jax.lax.scan(stage, carry, (rows, links))
        ks += [jax.tree.map(lambda k, i=i: k[i], stacked) for i in range(len(a) - 1)]
    return carry[1], tuple(ks) if keep else None


def _general(
    a: Rows,
    weights: Rows,
    field: Field,
    params: Vector,
    first: Vector,
    h: jax.Array,
    unroll: bool,
    keep: bool,
) -> tuple[Stages, Stages | None]:
    """Like `_chain`, of stages that need several earlier ones: all are kept and written out."""
    del unroll
    ks = [first]
    for row in a[1:]:
        # theta_i = theta - h sum_j a_ij k_j
        ks.append(field(add_scaled(params, -h, _combine(row, ks))))
    return tuple(_combine(row, ks) for row in weights), tuple(ks) if keep else None


def _combine(coefficients: tuple[float, ...], ks: list[Vector]) -> Vector:
    """sum_j coefficients_j k_j over the stages there are, leaving out zeros; not cast back."""
    terms = [(c, k) for c, k in zip(coefficients, ks, strict=False) if c != 0.0]
    c, k = terms[0] if terms else (0.0, ks[0])
    total = scale(c, widen(k))
    for c, k in terms[1:]:
        total = add_scaled(total, c, k)
    return total
