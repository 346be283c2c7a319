"""Stabilised explicit methods: Runge-Kutta-Chebyshev and Runge-Kutta-Legendre.

An explicit method of s stages can spend them on order or on stability. These spend them on
stability: the real interval in which a step does not grow is longer by a factor of about s^2, so
that a step of s gradients may be longer than s steps of gradient descent together.

The stability polynomial of every method here is

    R(z) = a_s + b_s P_s(w0 + w1 z),        a_j = 1 - b_j P_j(w0)

where P_j is the Chebyshev polynomial T_j or the Legendre polynomial of degree j. Both have a
recurrence of three terms, P_j(x) = alpha_j x P_{j-1}(x) - beta_j P_{j-2}(x), and so have the
stages.
With D_j = (theta_n - theta_j) / h, the way from theta_n to stage j in units of h,

    D_0 = 0,    D_1 = b_1 w1 k_0,
    D_j = mu_j D_{j-1} + nu_j D_{j-2} + mu~_j k_{j-1} + gamma~_j k_0,     g* = D_s
    mu_j = alpha_j w0 b_j / b_{j-1},   nu_j = -beta_j b_j / b_{j-2},
    mu~_j = alpha_j w1 b_j / b_{j-1},  gamma~_j = -a_{j-1} mu~_j

with k_j the field at theta_n - h D_j. D is carried instead of theta_j, which would lose the small
differences between stages to rounding. However many stages there are, D_{j-1}, D_{j-2} and k_0 are
kept beside the parameters, and the gradient is traced once.

Sources: P. J. van der Houwen and B. P. Sommeijer, "On the internal stability of explicit, m-stage
Runge-Kutta methods for large m-values", ZAMM 60 (1980); J. G. Verwer, B. P. Sommeijer and
W. Hundsdorfer, "RKC time-stepping for advection-diffusion-reaction problems", J. Comput. Phys. 201
(2004), Section 2; C. D. Meyer, D. S. Balsara and T. D. Aslam, "A stabilized Runge-Kutta-Legendre
method for explicit super-time-stepping of parabolic and mixed equations", J. Comput. Phys. 257
(2014), Section 2.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.polynomial import Chebyshev

from rkbench.errors import UserError
from rkbench.rk.checks import NON_NEGATIVE, check_number, is_any_traced
from rkbench.rk.method import Advance, Method, Start
from rkbench.rk.vector_space import Vector, add_scaled, cast_like, scale, widen

MOST_STAGES = 1_000  # T_s'' of more is not computed to rounding any more


@dataclass(frozen=True)
class Recurrence:
    """The coefficients of the recurrence above: float64 [stages] each, of stage j at j - 1.

    Of the first stage only `to_new` counts: D_1 = to_new[0] k_0.

    Attributes:
      name: the method's.
      order: its order of convergence.
      to_last: mu_j, what D_{j-1} adds to D_j.
      to_before: nu_j, what D_{j-2} adds.
      to_new: mu~_j, what the field at stage j - 1 adds.
      to_first: gamma~_j, what k_0 adds.
    """

    name: str
    order: int
    to_last: np.ndarray
    to_before: np.ndarray
    to_new: np.ndarray
    to_first: np.ndarray

    @property
    def stages(self) -> int:
        """Evaluations of the field in a step, the first included."""
        return len(self.to_new)

    def amplification(self, z: Any) -> np.ndarray:
        """R(z), by the recurrence itself: an array like z. On y' = lambda y, y <- R(h lambda) y."""
        z = np.asarray(z)
        before, last = np.zeros_like(z), self.to_new[0] * np.ones_like(z)
        for j in range(1, self.stages):
            k = 1 + z * last  # the field at stage j over the one at the start
            new = self.to_last[j] * last + self.to_before[j] * before + self.to_new[j] * k
            last, before = new + self.to_first[j], last
        return 1 + z * last


def rkc1(stages: int = 4, damping: Any = 0.05, monotone: bool = False) -> Recurrence:
    """Runge-Kutta-Chebyshev of first order: R(z) = T_s(w0 + w1 z) / T_s(w0), w0 = 1 + damping/s^2.

    Stable for -beta < z < 0 with beta about (2 - 4/3 damping) s^2: 31 with 4 stages, 124 with 8.

    Args:
      stages: s, at least 2.
      damping: by it abs(R) stays below 1 within the interval, by about 1 - damping; 0 for none.
      monotone: takes R(z) = (1 + T_s(w0 + w1 z)) / (1 + T_s(w0)), which is never negative: no
        component of the parameters changes its sign in a step on a quadratic, however stiff it is.
        The interval is about half as long.

    Raises UserError for less than two stages or a negative damping.
    """
    _check(stages, damping)
    w0, chebyshev = 1 + damping / stages**2, _chebyshev
    values = np.array([chebyshev(j)(w0) for j in range(stages + 1)])
    if monotone:
        b = 1 / (1 + values)
        w1 = (1 + values[-1]) / chebyshev(stages).deriv()(w0)
    else:
        b = 1 / values
        w1 = values[-1] / chebyshev(stages).deriv()(w0)
    return recurrence("rkc1", 1, b, values, w0, w1, CHEBYSHEV)


def rkc2(stages: int = 4, damping: Any = 2 / 13) -> Recurrence:
    """Runge-Kutta-Chebyshev of second order: R(z) = 1 - b_s T_s(w0) + b_s T_s(w0 + w1 z).

    With w0 = 1 + damping/s^2, w1 = T_s'(w0) / T_s''(w0) and b_j = T_j''(w0) / T_j'(w0)^2,
    b_0 = b_2, b_1 = 1/w0. Stable for -beta < z < 0 with beta about
    2/3 (s^2 - 1) (1 - 2/15 damping).

    Args:
      stages: s, at least 2.
      damping: R stays below 1 within the interval, by about damping / 3.

    Raises UserError for less than two stages or a negative damping.
    """
    _check(stages, damping)
    w0 = 1 + damping / stages**2
    polynomials = [_chebyshev(j) for j in range(stages + 1)]
    values, first, second = (
        np.array([p.deriv(order)(w0) if order else p(w0) for p in polynomials])
        for order in range(3)
    )
    b = np.empty(stages + 1)
    b[2:] = second[2:] / first[2:] ** 2
    b[:2] = b[2], 1 / w0  # so that the second stage begins with a step of Euler's method
    return recurrence("rkc2", 2, b, values, w0, first[-1] / second[-1], CHEBYSHEV)


def rkl2(stages: int = 4) -> Recurrence:
    """Runge-Kutta-Legendre of second order: R(z) = a_s + b_s P_s(1 + w1 z), w1 = 4/(s^2 + s - 2).

    With b_j = (j^2 + j - 2) / (2 j (j + 1)), b_0 = b_1 = b_2 = 1/3. Stable for -beta < z < 0 with
    beta = (s^2 + s - 2) / 2. Legendre polynomials are damped by themselves, the more the stiffer a
    component is. Odd numbers of stages damp what lies at the end of the interval, even ones do not.

    Raises UserError for less than two stages.
    """
    _check(stages, 0.0)
    j = np.arange(2.0, stages + 1)
    b = np.concatenate([[1 / 3, 1 / 3], (j**2 + j - 2) / (2 * j * (j + 1))])
    w1 = 4 / (stages**2 + stages - 2)
    return recurrence("rkl2", 2, b, np.ones(stages + 1), 1.0, w1, LEGENDRE)


# (alpha_j, beta_j) of P_j(x) = alpha_j x P_{j-1}(x) - beta_j P_{j-2}(x), j >= 2.
ThreeTerms = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def CHEBYSHEV(j: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """T_j(x) = 2 x T_{j-1}(x) - T_{j-2}(x)."""
    return np.full_like(j, 2.0), np.ones_like(j)


def LEGENDRE(j: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """P_j(x) = (2j - 1)/j x P_{j-1}(x) - (j - 1)/j P_{j-2}(x)."""
    return (2 * j - 1) / j, (j - 1) / j


def recurrence(
    name: str,
    order: int,
    b: np.ndarray,
    values: np.ndarray,
    w0: float,
    w1: float,
    three_terms: ThreeTerms,
) -> Recurrence:
    """The recurrence of R(z) = a_s + b_s P_s(w0 + w1 z), a_j = 1 - b_j P_j(w0).

    Args:
      name: the method's.
      order: its order of convergence.
      b: b_0, ..., b_s, float64.
      values: P_0(w0), ..., P_s(w0), float64.
      w0: where z = 0 lies.
      w1: the length of the argument that z = 1 has.
      three_terms: the recurrence of the P_j.
    """
    a = 1 - b * values
    alpha, beta = three_terms(np.arange(2.0, len(b)))
    to_new = alpha * w1 * b[2:] / b[1:-1]
    return Recurrence(
        name,
        order,
        np.concatenate([[0.0], alpha * w0 * b[2:] / b[1:-1]]),
        np.concatenate([[0.0], -beta * b[2:] / b[:-2]]),
        np.concatenate([[b[1] * w1], to_new]),
        np.concatenate([[0.0], -a[1:-1] * to_new]),
    )


def stabilized(recurrence: Recurrence, unroll: bool = False) -> Method:
    """The method of a recurrence; `unroll` writes the stages out instead of a compiled loop."""
    columns = (recurrence.to_last, recurrence.to_before, recurrence.to_new, recurrence.to_first)

    def advance(start: Start, h: jax.Array, state: Any) -> Advance:
        first = widen(start.first)

        def stage(carry: tuple[Vector, Vector], terms: tuple[Any, Any, Any, Any]):
            last, before = carry
            to_last, to_before, to_new, to_first = terms
            k = start.field(add_scaled(start.params, -h, last))
            new = scale(to_last, last)
            for weight, direction in ((to_before, before), (to_new, k), (to_first, first)):
                new = add_scaled(new, weight, direction)
            return (new, last), None

        carry = scale(recurrence.to_new[0], first), scale(0.0, first)
        if unroll or not is_any_traced((start.params, start.first, h)):
            for terms in zip(*(column[1:] for column in columns), strict=True):
                carry, _ = stage(carry, terms)
        else:
            rest: Any = tuple(jnp.asarray(column[1:], dtype=float) for column in columns)
            carry, _ = jax.lax.scan(stage, carry, rest)
        return Advance(cast_like(carry[0], start.first), recurrence.stages - 1, state)

    return Method(recurrence.name, recurrence.order, advance)


def _chebyshev(degree: int) -> Chebyshev:
    return Chebyshev.basis(degree)


def _check(stages: Any, damping: Any) -> None:
    if isinstance(stages, bool) or int(stages) != stages or not 2 <= stages <= MOST_STAGES:
        raise UserError(f"stages={stages!r} must be a whole number from 2 to {MOST_STAGES}")
    check_number("damping", damping, NON_NEGATIVE)


STABILIZED: dict[str, Callable[..., Recurrence]] = {"rkc1": rkc1, "rkc2": rkc2, "rkl2": rkl2}
"""Stabilised methods by name: factories."""
