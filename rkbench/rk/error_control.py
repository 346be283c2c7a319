"""Step sizes by the error of an embedded method: I, PI and PID controllers.

Hairer, Norsett and Wanner, "Solving Ordinary Differential Equations I", Section II.4; Gustafsson
(1991) for PI, Soderlind (2003) for PID control.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rkbench.errors import UserError, unknown
from rkbench.rk.checks import FINITE, HALF_OPEN_UNIT, NON_NEGATIVE, POSITIVE, Range, check_number
from rkbench.rk.method import Advance, Choice, Method, Start, StepSizeRule
from rkbench.rk.vector_space import Vector, add_scaled, safe_norm, squared_norm, widen

AT_LEAST_ONE: Range = ("a finite number >= 1", lambda x: x >= 1)


class ErrorControlState(NamedTuple):
    """What the controller remembers."""

    step_size: jax.Array  # h of the next step: float scalar
    error: jax.Array  # of the last accepted step, in units of the tolerance: float scalar
    error_before: jax.Array  # of the accepted step before that one
    rejected: jax.Array  # whether the last step was rejected: bool scalar
    rejections: jax.Array  # how many were: int32 scalar


class _Controller(NamedTuple):
    """The next step size over this one, as a function of errors in units of the tolerance."""

    pcoeff: Any
    icoeff: Any
    dcoeff: Any
    safety: Any
    factormin: Any
    factormax: Any

    def factor(self, error: jax.Array, state: ErrorControlState, order: int) -> jax.Array:
        """safety e_n^(-(p+i+d)/k) e_{n-1}^((p+2d)/k) e_{n-2}^(-d/k), in [factormin, factormax]."""
        *coefficients, safety, least, most = (jnp.asarray(x, dtype=float) for x in self)
        p, i, d = (coefficient / order for coefficient in coefficients)
        sound = _is_sound(error)
        now = jnp.where(sound, error, 1) ** -(p + i + d)
        ratio = safety * now * state.error ** (p + 2 * d) * state.error_before**-d
        return jnp.where(sound, jnp.clip(ratio, least, most), jnp.where(error == 0, most, least))


def error_control(
    rtol: Any = 1e-3,
    atol: Any = 1e-6,
    first_step: Any = 0.01,
    max_step: Any = 1e3,
    pcoeff: Any = 0.0,
    icoeff: Any = 1.0,
    dcoeff: Any = 0.0,
    safety: Any = 0.9,
    factormin: Any = 0.2,
    factormax: Any = 10.0,
    rejection: bool = True,
    norm: str = "vector",
) -> StepSizeRule:
    """h such that the local error, h ||g* - g_embedded||, meets a tolerance.

    With e_n the error in units of the tolerance and k one more than the order of the embedded
    method,

        h_{n+1} = h_n clip(safety e_n^(-(p+i+d)/k) e_{n-1}^((p+2d)/k) e_{n-2}^(-d/k)),

    e_{n-1} and e_{n-2} of the accepted steps before, 1 at first. A step of e_n >= 1 is rejected: it
    moves nothing, its gradients count, and the first step accepted after it is not followed by a
    longer one (Hairer, Norsett and Wanner, Section II.4). With `norm="element"` these are the
    steps of scipy's `RK23` and `RK45`.

    The error is that of the flow of the mini-batch's loss at hand, preconditioned where there is a
    preconditioner: it bounds how far the step is from that batch's flow and knows nothing of how
    far that is from the whole loss's. After a rejection the next batch is tried, not the same one.

    Args:
      rtol: the tolerance relative to the size of the parameters, >= 0.
      atol: the absolute tolerance, > 0.
      first_step: the first h, > 0. One too long is rejected, one too short grows `factormax`-fold.
      max_step: the largest h, > 0.
      pcoeff: p, proportional control. PI control is p = 0.4, i = 0.3.
      icoeff: i, integral control; alone it is the classical controller.
      dcoeff: d, derivative control.
      safety: in (0, 1].
      factormin: the least h_{n+1} / h_n, in (0, 1].
      factormax: the largest, >= 1.
      rejection: whether steps are rejected; else all are taken, and the error decides about the
        next step only.
      norm: "vector", e = ||error|| / (atol sqrt(N) + rtol max(||theta_n||, ||theta_n - h g*||)),
        with one scale for all N parameters, of which many may be 0 at first; or "element", the root
        mean square of error_i / (atol + rtol max(abs(theta_i), abs(theta_i - h g*_i))), as ODE
        solvers have it.

    Raises:
      UserError: a number out of range; in `runge_kutta`, a method that has no embedded method.
    """
    unit = HALF_OPEN_UNIT
    for name, number, valid in (
        *(("rtol", rtol, NON_NEGATIVE), ("atol", atol, POSITIVE)),
        *(("first_step", first_step, POSITIVE), ("max_step", max_step, POSITIVE)),
        *(("pcoeff", pcoeff, FINITE), ("icoeff", icoeff, FINITE), ("dcoeff", dcoeff, FINITE)),
        *(("safety", safety, unit), ("factormin", factormin, unit)),
        ("factormax", factormax, AT_LEAST_ONE),
    ):
        check_number(name, number, valid)
    if norm not in ERROR_NORMS:
        raise unknown("norm", norm, ERROR_NORMS)
    if not isinstance(rejection, bool):
        raise UserError(f"rejection must be True or False, not {rejection!r}")
    controller = _Controller(pcoeff, icoeff, dcoeff, safety, factormin, factormax)

    def init(params: Vector) -> ErrorControlState:
        del params
        one, no, none = jnp.ones((), float), jnp.zeros((), bool), jnp.zeros((), jnp.int32)
        return ErrorControlState(one, one, one, no, none)

    def choose(start: Start, state: ErrorControlState) -> Choice:
        first, longest = (jnp.asarray(x, dtype=float) for x in (first_step, max_step))
        h = jnp.where(start.count == 0, first, state.step_size)
        return Choice(jnp.minimum(h, longest), state)

    def review(start: Start, h: jax.Array, advance: Advance, state: ErrorControlState):
        assert start.method is not None
        assert start.method.embedded_order is not None  # by `check`
        relative, absolute, longest = (jnp.asarray(x, dtype=float) for x in (rtol, atol, max_step))
        error = ERROR_NORMS[norm](start.params, h, advance, relative, absolute)
        factor = controller.factor(error, state, start.method.embedded_order + 1)
        accepted = error < 1 if rejection else jnp.ones((), bool)
        factor = jnp.where(accepted & state.rejected, jnp.minimum(factor, 1), factor)
        # An h of 0 could not grow again.
        following = jnp.clip(h * factor, jnp.finfo(h.dtype).tiny, longest)
        new = ErrorControlState(
            following,
            jnp.where(accepted, jnp.where(_is_sound(error), error, 1), state.error),
            jnp.where(accepted, state.error, state.error_before),
            ~accepted,
            state.rejections + (~accepted).astype(jnp.int32),
        )
        return (accepted if rejection else True), new

    return StepSizeRule(choose, init, review, needs_error=True, check=_check_method)


def _check_method(method: Method) -> None:
    if method.embedded_order is None:
        raise UserError(
            f"step-size rule 'error_control' needs an estimate of the error, which {method.name!r} "
            "does not have; take heun_euler, bs32, dopri5, rk4 or a tableau with b_embedded"
        )


def _is_sound(error: jax.Array) -> jax.Array:
    """Whether the controller can take a power of it."""
    return jnp.isfinite(error) & (error > 0)


def _vector_error(params: Vector, h: jax.Array, advance: Advance, rtol: Any, atol: Any):
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    new = add_scaled(widen(params), -h, advance.gradient)
    size = jnp.maximum(safe_norm(params), safe_norm(new))
    return h * safe_norm(advance.error) / (atol * math.sqrt(count) + rtol * size)


def _element_error(params: Vector, h: jax.Array, advance: Advance, rtol: Any, atol: Any):
    new = add_scaled(widen(params), -h, advance.gradient)

    def scaled(error: jax.Array, p: jax.Array, q: jax.Array) -> jax.Array:
        size = jnp.maximum(jnp.abs(p).astype(h.dtype), jnp.abs(q).astype(h.dtype))
        return error * (h / (atol + rtol * size)).astype(error.dtype)

    ratios = jax.tree.map(scaled, advance.error, params, new)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    return jnp.sqrt(squared_norm(ratios) / count)


ERROR_NORMS = {"vector": _vector_error, "element": _element_error}
