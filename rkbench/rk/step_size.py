"""Step-size rules: how long the step from theta_n is (Section 3.2)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rkbench.errors import UserError, unknown
from rkbench.rk.checks import LARGEST, NON_NEGATIVE, POSITIVE, check_number
from rkbench.rk.error_control import error_control
from rkbench.rk.loss_rules import ngn, polyak
from rkbench.rk.method import Advance, Choice, GradFn, Method, Start, StepSizeRule, stateless
from rkbench.rk.vector_space import (
    Vector,
    add_scaled,
    cast_like,
    normalized,
    root,
    safe_norm,
    squared_norm,
    widen,
)


def check_learning_rate(learning_rate: Any) -> None:
    """Raises `UserError` for a number that is negative or not finite, or for no number at all."""
    if callable(learning_rate):
        return
    if isinstance(learning_rate, (int, float)) and -LARGEST <= learning_rate < 0:
        raise UserError(
            f"learning_rate must be a finite number >= 0, not {learning_rate!r}; to ascend, negate "
            "the loss and its gradients"
        )
    check_number("learning_rate", learning_rate, NON_NEGATIVE)


def fixed(learning_rate: Any) -> StepSizeRule:
    """h = learning_rate: a number, a scalar array (traced too) or an optax schedule of count."""
    check_learning_rate(learning_rate)
    if callable(learning_rate):
        return stateless(lambda start: learning_rate(start.count))
    return stateless(lambda start: learning_rate)


def dalr(
    c: Any = 1.0, p: Any = 0.8, hvp: str = "forward", curvature: str = "exact"
) -> StepSizeRule:
    """h = c / (1 + c/2 (||H g|| / ||g||)^p), Eq. (8): short where the gradient turns fast.

    g and H are the gradient and Hessian of the step's loss at theta_n, the norms run over all
    parameters; with a preconditioner they remain those of the loss itself. Where g = 0, h = c.
    The Hessian-vector product counts as two gradient evaluations.

    Args:
      c: the cap of the step size, > 0. The paper tunes it to 4 on MNIST, 1 on Fashion-MNIST.
      p: the power of the curvature, >= 0. The paper takes 0.8.
      hvp: how H g is computed: "forward", a forward derivative of `grad_fn` along g, or "reverse",
        its reverse derivative, the same because H is symmetric: for a loss that has no forward
        derivative (`jax.custom_vjp`).
      curvature: "exact", by the Hessian-vector product; or "stages", which takes
        ||k_2 - k_1|| / (c_2 h ||k_1||) of the step before and costs no evaluation. It differs from
        the exact ratio by O(h) and is late by a step: of another mini-batch, where these change.
        With a preconditioner it is the curvature of the field followed, A_n g. The first step,
        before which there is none, is of length c / 100.
    """
    check_number("c", c, POSITIVE)
    check_number("p", p, NON_NEGATIVE)
    _check_hvp(hvp)
    if curvature not in ("exact", "stages"):
        raise unknown("curvature", curvature, ("exact", "stages"))

    def of(ratio: jax.Array) -> jax.Array:
        cap, power = jnp.asarray(c, dtype=float), jnp.asarray(p, dtype=float)
        # h = c / (1 + c/2 (||H g|| / ||g||)^p)
        return cap / (1 + cap / 2 * _power(ratio, power))

    def step_size(start: Start) -> jax.Array:
        ratio, critical = _curvature(start, hvp)
        return jnp.where(critical, jnp.asarray(c, dtype=float), of(ratio))

    if curvature == "exact":
        return stateless(step_size, grad_evals=2)
    return _by_stages(lambda ratio: jnp.where(ratio < 0, jnp.asarray(c, float) / 100, of(ratio)))


def dal(p: Any = 1.0, max_step: Any = 5.0, hvp: str = "forward") -> StepSizeRule:
    """h = 2 / (||H g|| / ||g||)^p: the drift-adjusted learning rate, which Eq. (8) rescales.

    Rosca and others (2023), "On a continuous time model of gradient descent dynamics and
    instability in deep learning"; with p = 1 the longest step that is stable with Euler's method
    where g is an eigenvector of H. DALR tends to it for c -> infinity. Norms, and the cost of two
    gradient evaluations, are as in `dalr`.

    Args:
      p: the power of the curvature, >= 0.
      max_step: the cap of the step size, > 0, which a vanishing H g needs.
      hvp: as in `dalr`.
    """
    check_number("p", p, NON_NEGATIVE)
    check_number("max_step", max_step, POSITIVE)
    _check_hvp(hvp)

    def step_size(start: Start) -> jax.Array:
        ratio, critical = _curvature(start, hvp)
        power = _power(ratio, jnp.asarray(p, dtype=float))
        longest = jnp.asarray(max_step, dtype=float)
        flat = critical | (power <= 2 / longest)
        return jnp.where(flat, longest, 2 / jnp.where(flat, 1, power))

    return stateless(step_size, grad_evals=2)


def _check_hvp(hvp: str) -> None:
    if hvp not in HESSIAN_PRODUCTS:
        raise unknown("hvp", hvp, HESSIAN_PRODUCTS)


def _curvature(start: Start, hvp: str) -> tuple[jax.Array, jax.Array]:
    """||H g|| / ||g||, and whether there is none because g = 0."""
    g = cast_like(start.gradient, start.params)
    _, unit = normalized(g)  # keeps H g in range; only the ratio of the norms counts
    product = HESSIAN_PRODUCTS[hvp](start.grad_fn, start.params, cast_like(unit, g))
    length = root(squared_norm(unit))
    critical = length == 0
    return safe_norm(product) / jnp.where(critical, 1, length), critical


def _by_stages(step_size: Callable[[jax.Array], jax.Array]) -> StepSizeRule:
    """h from ||k_2 - k_1|| / (c_2 h ||k_1||) of the step before: its state; -1 before the first."""

    def review(start: Start, h: jax.Array, advance: Advance, state: jax.Array):
        assert start.method is not None
        assert start.method.second_node is not None  # by `check`
        assert advance.stages is not None
        first, second = map(widen, advance.stages[:2])
        turned = safe_norm(add_scaled(second, -1.0, first))
        ratio = turned / (start.method.second_node * h * safe_norm(first))
        return True, jnp.where(jnp.isfinite(ratio), ratio, state)

    def check(method: Method) -> None:
        if method.second_node is None:
            raise UserError(
                f"curvature='stages' needs a method with two stages to read, such as rk4 or heun; "
                f"{method.name!r} has none: take curvature='exact'"
            )

    return StepSizeRule(
        lambda start, state: Choice(step_size(state), state),
        lambda params: jnp.full((), -1.0, float),
        review,
        keeps_stages=True,
        check=check,
    )


def _power(x: jax.Array, p: jax.Array) -> jax.Array:
    """x^p for x >= 0, with derivatives that are finite at x = 0."""
    positive = x > 0
    at_zero = jnp.where(p == 0, 1, 0).astype(x.dtype)
    return jnp.where(positive, jnp.where(positive, x, 1) ** p, at_zero)


def _forward_product(grad_fn: GradFn, params: Vector, v: Vector) -> Vector:
    """H v as the derivative of the gradient along v."""
    return jax.jvp(grad_fn, (params,), (v,))[1]


def _reverse_product(grad_fn: GradFn, params: Vector, v: Vector) -> Vector:
    """H^T v; the conjugates turn JAX's transpose into that of the real inner product."""
    conjugate = lambda x: jax.tree.map(jnp.conj, x)  # noqa: E731
    gradient, pullback = jax.vjp(grad_fn, params)
    return conjugate(pullback(conjugate(cast_like(v, gradient)))[0])


HESSIAN_PRODUCTS = {"forward": _forward_product, "reverse": _reverse_product}

STEP_SIZES: dict[str, Callable[..., StepSizeRule]] = {
    "fixed": fixed,
    "dalr": dalr,
    "dal": dal,
    "error_control": error_control,
    "polyak": polyak,
    "ngn": ngn,
}
