"""Equal computation where a step's cost varies: an optimizer that ends within its budget."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rkbench import optimizers


class BudgetState(NamedTuple):
    """The state of `within_budget`."""

    ended: jax.Array  # whether a step would have spent more than there is: bool scalar
    inner: Any  # the state of the optimizer wrapped, after the last step that was taken


def within_budget(
    optimizer: optax.GradientTransformationExtraArgs, max_grad_evals: int
) -> optax.GradientTransformationExtraArgs:
    """`optimizer`, an entry of the registry, until its gradient evaluations are `max_grad_evals`.

    What a step spends, as with a line search, may be known only when it is done. The first step
    after which more than `max_grad_evals` are spent is not taken, nor is any later one: updates are
    zero and the optimizer's state stays as it was, with the count of what led there.
    """

    def init(params) -> BudgetState:
        return BudgetState(jnp.zeros((), bool), optimizer.init(params))

    def update(updates, state: Any, params=None, **extra_args):
        updates, inner = optimizer.update(updates, state.inner, params, **extra_args)
        end = state.ended | (optimizers.grad_evals(inner) > max_grad_evals)
        zero = jax.tree.map(jnp.zeros_like, updates)
        return unless(end, updates, zero), BudgetState(end, unless(end, inner, state.inner))

    return optax.GradientTransformationExtraArgs(init, update)


def unless(ended: jax.Array, new: Any, old: Any) -> Any:
    """`new`, or `old` where `ended`; pytrees alike."""
    return jax.tree.map(lambda a, b: jnp.where(ended, b, a), new, old)


def ended(state: Any) -> jax.Array | None:
    """Whether the budget allowed no further step: bool; None for an optimizer without a budget."""
    found = optimizers.find(state, BudgetState)
    return found[0].ended if found else None
