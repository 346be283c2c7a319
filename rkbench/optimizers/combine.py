"""What the optimizers need to work inside optax's wrappers and in others' training loops.

    bind                  for callers that pass no keywords on (optax.lookahead, line searches)
    masked_grad_fn        for optax.masked and optax.partition
    learning_rate_groups  one step over all parameters, with a learning rate for each group
    apply_if_all_finite   keeps the old state where anything of a step is not finite
    check_first_stage     for debugging: is the gradient given that of grad_fn?

`docs/own_loop.md` has a table of what works with what.
"""

from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rkbench.errors import UserError, unknown
from rkbench.rk import Preconditioner, identity
from rkbench.rk.checks import NON_NEGATIVE, check_number, is_traced
from rkbench.rk.vector_space import norm

GradFn = Callable[[Any], Any]


def bind(
    optimizer: optax.GradientTransformation, **extra_args: Any
) -> optax.GradientTransformationExtraArgs:
    """`optimizer` with keywords of `update` given beforehand, such as `grad_fn`.

        optimizer = optimizers.create("rk4", 0.1)  # its `init` makes the state, once
        optax.lookahead(bind(optimizer, grad_fn=grad_fn), 5, 0.5).update(gradient, state, params)

    What is bound goes before what a caller passes. Binding costs nothing: do it inside the compiled
    step, where `grad_fn` holds this step's batch. The state is that of `optimizer`.
    """
    inner = optax.with_extra_args_support(optimizer)

    def update(updates, state: Any, params=None, **given: Any):
        return inner.update(updates, state, params, **{**given, **extra_args})

    return optax.GradientTransformationExtraArgs(inner.init, update)


def masked_grad_fn(grad_fn: GradFn, params: Any) -> GradFn:
    """`grad_fn` for an optimizer inside `optax.masked` or `optax.partition`.

    These show an optimizer its part of the parameters, with `optax.MaskedNode` for all others. The
    function returned puts `params`, where the step begins, in their place and returns the part's
    gradient: the others stand still during the stages.

    Two optimizers on two parts of the parameters are of order 1 together, whatever their order,
    because neither sees the other move. `learning_rate_groups` keeps the order.

    Args:
      grad_fn: gradient of the loss with respect to all parameters.
      params: all parameters at the beginning of the step, without masks.
    """
    is_masked = lambda node: isinstance(node, optax.MaskedNode)  # noqa: E731

    def part_of_grad_fn(part: Any) -> Any:
        whole = jax.tree.map(
            lambda node, rest: rest if is_masked(node) else node, part, params, is_leaf=is_masked
        )
        return jax.tree.map(
            lambda node, gradient: node if is_masked(node) else gradient,
            part,
            grad_fn(whole),
            is_leaf=is_masked,
        )

    return part_of_grad_fn


def learning_rate_groups(
    labels: Any,
    multipliers: Mapping[Hashable, Any],
    preconditioner: Preconditioner | None = None,
) -> Preconditioner:
    """A learning rate for each group of parameters, in one Runge-Kutta step over all of them.

        groups = learning_rate_groups({"body": "slow", "head": "fast"}, {"slow": 0.1, "fast": 1.0})
        optimizer = runge_kutta(RK4, 0.5, preconditioner=groups)  # 0.05 and 0.5

    The field is D A_n g, with D diagonal: each parameter's multiplier. D is constant, so that the
    method has its order on theta' = -D A_n g. (Two optimizers on two groups are of order 1.)

    Args:
      labels: a tree of groups' names like the parameters, or a prefix of it; or a function from
        parameters to such a tree, as `optax.partition` takes it.
      multipliers: what the learning rate is multiplied with, >= 0, by the group's name: a number
        or a scalar array (traced too).
      preconditioner: A_n; none by default.

    Raises:
      UserError: a multiplier out of range, or a label without a multiplier (labels that a function
        gives are looked up in the first step).
    """
    for group, multiplier in multipliers.items():
        check_number(f"the multiplier of group {group!r}", multiplier, NON_NEGATIVE)
    inner = preconditioner or identity()

    def multiplier_of(label: Hashable) -> Any:
        if label not in multipliers:
            raise unknown("parameter group", str(label), [str(group) for group in multipliers])
        return multipliers[label]

    def multiplied(g: Any) -> Any:
        tree = labels(g) if callable(labels) else labels
        return jax.tree.map(
            lambda label, part: jax.tree.map(
                lambda leaf: jnp.asarray(multiplier_of(label), leaf.dtype) * leaf, part
            ),
            tree,
            g,
        )

    if not callable(labels):
        for label in jax.tree.leaves(labels):
            multiplier_of(label)

    def update(*arguments: Any) -> tuple[Callable[[Any], Any], Any]:
        precondition, state = inner.update(*arguments)
        return lambda g: multiplied(precondition(g)), state

    return Preconditioner(inner.init, update)


class ApplyIfAllFiniteState(NamedTuple):
    """The state of `apply_if_all_finite`."""

    skipped: jax.Array  # steps skipped so far: int32 scalar
    skipped_in_a_row: jax.Array  # and since the last one that was not: int32 scalar
    inner_state: Any  # the optimizer's, of the last step that was not skipped


def apply_if_all_finite(
    optimizer: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """`optimizer`, leaving out each step that is not finite.

    Where any of the new updates is infinite or NaN, or has become so in the new state, updates are
    0 and the state stays as it was. Only the gradient evaluations go on being counted: they have
    been spent. `optax.apply_if_finite` looks at the first gradient alone, so that a NaN at a later
    stage passes it and stays in the momentum for good.

    It never gives up: a loop that shall ends when `state.skipped_in_a_row` says so. Inside
    `jax.shard_map` each device judges by what it holds; parameters cut in pieces belong under
    `jax.jit`, where the judgement is one.
    """
    inner = optax.with_extra_args_support(optimizer)

    def init(params) -> ApplyIfAllFiniteState:
        zero = jnp.zeros((), jnp.int32)
        return ApplyIfAllFiniteState(zero, jnp.zeros_like(zero), inner.init(params))

    def update(updates, state: Any, params=None, **extra_args: Any):
        updates, new = inner.update(updates, state.inner_state, params, **extra_args)
        finite = _all_true(jax.tree.map(_finite, updates))
        finite &= _all_true(jax.tree.map(_stays_finite, new, state.inner_state))
        updates = jax.tree.map(lambda u: jnp.where(finite, u, jnp.zeros_like(u)), updates)

        def kept(path: tuple[Any, ...], after: Any, before: Any) -> Any:
            spent = getattr(path[-1] if path else None, "name", None) == "grad_evals"
            return after if spent else jnp.where(finite, after, before)

        inner_state = jax.tree_util.tree_map_with_path(kept, new, state.inner_state)
        skipped = jnp.where(finite, 0, 1)
        return updates, ApplyIfAllFiniteState(
            skipped=state.skipped + skipped,
            skipped_in_a_row=(state.skipped_in_a_row + 1) * skipped,
            inner_state=inner_state,
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _finite(x: Any) -> jax.Array:
    """Whether `x` is finite, elementwise; integers and keys are."""
    inexact = jnp.issubdtype(jnp.result_type(x), jnp.inexact)
    return jnp.isfinite(x) if inexact else jnp.asarray(True)


def _stays_finite(after: Any, before: Any) -> jax.Array:
    """Whether what was finite still is: some states begin infinite, as a best loss so far."""
    return _finite(after) | ~_finite(before)


def _all_true(tree: Any) -> jax.Array:
    return jnp.stack([jnp.all(leaf) for leaf in jax.tree.leaves(tree)] or [jnp.asarray(True)]).all()


def check_first_stage(
    optimizer: optax.GradientTransformation, rtol: float | None = None
) -> optax.GradientTransformationExtraArgs:
    """`optimizer`, for debugging: raises where the gradient given is not `grad_fn(params)`.

    The two differ with another batch, augmentation or dropout key, without the mean over devices
    in one of them, and after a transformation before the step (clipping, `optax.MultiSteps`).
    Costs a gradient evaluation a step, which is not counted, and a call from the device.

    Args:
      optimizer: a Runge-Kutta method. Around it itself, not around what wraps it.
      rtol: the largest difference, as a part of the larger of the two norms; by default the square
        root of the coarsest dtype's epsilon, 3e-4 for float32.

    Returns:
      The optimizer; `update` raises `UserError`. Compiled, JAX raises `jax.errors.JaxRuntimeError`
      with that message when the step's result is waited for.
    """
    inner = optax.with_extra_args_support(optimizer)

    def update(updates, state: Any, params=None, **extra_args: Any):
        result = inner.update(updates, state, params, **extra_args)  # which checks structures
        if extra_args.get("grad_fn") is not None:
            given = _inexact_leaves(updates)
            recomputed = _inexact_leaves(extra_args["grad_fn"](params))
            tolerance = rtol
            if tolerance is None:
                tolerance = float(max(jnp.finfo(leaf.dtype).eps for leaf in given)) ** 0.5
            norms = (norm(_difference(given, recomputed)), norm(given), norm(recomputed))
            _report_mismatch(tolerance, *norms)
        return result

    return optax.GradientTransformationExtraArgs(inner.init, update)


def _inexact_leaves(tree: Any) -> list[jax.Array]:
    leaves = map(jnp.asarray, jax.tree.leaves(tree))
    return [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.inexact)]


def _difference(xs: list[jax.Array], ys: list[jax.Array]) -> list[jax.Array]:
    """x - y, and 0 where both are NaN or the same infinity: a loss that diverged is no mistake."""

    def leaf_difference(x: jax.Array, y: jax.Array) -> jax.Array:
        same = (x == y) | (jnp.isnan(x) & jnp.isnan(y))
        return jnp.where(same, jnp.zeros_like(x), x - y.astype(x.dtype))

    return [leaf_difference(x, y) for x, y in zip(xs, ys, strict=True)]


def _report_mismatch(tolerance: float, *norms: jax.Array) -> None:
    def check(difference: Any, given: Any, recomputed: Any) -> None:
        within = difference <= tolerance * np.maximum(given, recomputed)  # false for NaN
        if not (difference == 0 or within):
            raise UserError(
                f"the gradient given to update() is not grad_fn(params): their norms are "
                f"{float(given):.4g} and {float(recomputed):.4g}, that of the difference "
                f"{float(difference):.4g}. Both must be gradients of one loss on one batch, with "
                "the same augmentation and dropout key and the same mean over devices, and no "
                "transformation may come before the Runge-Kutta step."
            )

    if any(map(is_traced, norms)):
        jax.debug.callback(check, *norms)
    else:
        check(*norms)
