"""Butcher tableaus of explicit Runge-Kutta methods: data, checked when it is made.

A method with s stages is given by its matrix a (s x s, strictly lower triangular), its weights b
and its order. Textbook reference for all of them: Hairer, Norsett and Wanner, "Solving Ordinary
Differential Equations I", Sections II.1 and II.2; equation numbers are the paper's.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from rkbench.errors import UserError, unknown
from rkbench.rk import order_conditions
from rkbench.rk.checks import HALF_OPEN_UNIT, check_number, is_traced

ROUNDING = 1e-15  # of a coefficient of the size of 1
TOLERANCE = 1e-10  # of an order condition: coefficients may be typed in with 12 decimals


@dataclass(frozen=True)
class Tableau:
    """An explicit Runge-Kutta method; hashable, equal by value.

    Attributes:
      name: what messages call the method.
      a: s rows. Entries on and right of the diagonal may be left out; they are stored as zeros,
        so `a` is always s x s.
      b: the s weights of the stages in the step.
      order: the order of convergence claimed; a lower one than the true one is accepted.

    Raises:
      UserError: `a` is not square or not explicit, a coefficient is not finite, the weights do not
        add up to 1, or an order condition up to `order` does not hold to 1e-10.
    """

    name: str
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    order: int

    def __post_init__(self) -> None:
        try:
            b = tuple(float(weight) for weight in self.b)
            rows = [tuple(float(entry) for entry in row) for row in self.a]
        except (TypeError, ValueError):
            raise self._error("a must be rows of numbers and b a row of numbers") from None
        a = tuple(row + (0.0,) * (len(b) - len(row)) for row in rows)
        object.__setattr__(self, "a", a)
        object.__setattr__(self, "b", b)
        self._check_shape()
        self._check_order()

    @classmethod
    def from_mapping(cls, table: Mapping[str, Any]) -> "Tableau":
        """A tableau from the keys `a`, `b`, `order` and, if it has one, `name`."""
        fields = {"name": "custom", **table}
        for key in fields:
            if key not in ("name", "a", "b", "order"):
                raise unknown("tableau key", key, ("a", "b", "order", "name"))
        missing = [key for key in ("a", "b", "order") if key not in fields]
        if missing:
            raise UserError(f"a tableau needs a, b and order; missing: {', '.join(missing)}")
        return cls(**fields)

    @property
    def stages(self) -> int:
        """s, the number of stages."""
        return len(self.b)

    @property
    def c(self) -> tuple[float, ...]:
        """The s nodes c_i = sum_j a_ij: where in the step each stage stands, in units of h."""
        return tuple(math.fsum(row) for row in self.a)

    @property
    def fsal(self) -> bool:
        """Whether the last stage stands at the end of the step ("first same as last").

        Up to rounding: 1/3 may have been typed in one row and computed in another.
        """
        return self.stages > 1 and all(
            math.isclose(x, y, rel_tol=ROUNDING, abs_tol=ROUNDING)
            for x, y in zip(self.a[-1], self.b, strict=True)
        )

    @property
    def reduced(self) -> tuple[tuple[tuple[float, ...], ...], tuple[float, ...]]:
        """(a, b) of the stages that a step has to evaluate, the first always among them.

        A stage is left out where neither the step nor a stage that is needed uses it. The last
        stage of a FSAL method is one: it is the first of the next step, but cannot be handed on to
        the next mini-batch's field.
        """
        needed = {0} | {i for i, weight in enumerate(self.b) if abs(weight) > ROUNDING}
        for i in reversed(range(self.stages)):
            if i in needed:
                needed |= {j for j, entry in enumerate(self.a[i]) if entry != 0.0}
        kept = sorted(needed)
        return tuple(tuple(self.a[i][j] for j in kept) for i in kept), tuple(
            self.b[i] for i in kept
        )

    @property
    def evaluated_stages(self) -> int:
        """The number of stages that a step has to evaluate, see `reduced`."""
        return len(self.reduced[1])

    @property
    def is_chain(self) -> bool:
        """Whether each stage depends on the one before only: then the stages form a loop."""
        rows, _ = self.reduced
        return all(entry == 0.0 for i, row in enumerate(rows) for entry in row[: max(i - 1, 0)])

    @property
    def stability_polynomial(self) -> tuple[float, ...]:
        """The s + 1 coefficients of R(z), ascending: a step on y' = lambda y is y -> R(h lambda) y.

        R(z) = 1 + sum_k z^k b^T a^(k-1) 1.
        """
        coefficients, powers = [1.0], [1.0] * self.stages
        for _ in range(self.stages):
            coefficients.append(_dot(self.b, powers))
            powers = [_dot(row, powers) for row in self.a]
        return tuple(coefficients)

    def _error(self, problem: str) -> UserError:
        return UserError(f"tableau {self.name!r}: {problem}")

    def _check_shape(self) -> None:
        if not self.b:
            raise self._error("b is empty: a method has at least one stage")
        if len(self.a) != self.stages or any(len(row) != self.stages for row in self.a):
            lengths = [len(row) for row in self.a]
            raise self._error(
                f"a must be square with as many rows as b has weights ({self.stages}); "
                f"its rows have lengths {lengths}"
            )
        if not all(math.isfinite(entry) for row in (*self.a, self.b) for entry in row):
            raise self._error("every coefficient must be finite")
        for i, row in enumerate(self.a):
            if any(row[i:]):
                raise self._error(
                    f"row {i + 1} of a has an entry on or right of the diagonal: the method is "
                    "implicit, only explicit ones are supported"
                )

    def _check_order(self) -> None:
        integer = isinstance(self.order, Integral) and not isinstance(self.order, bool)
        if not integer or self.order < 1:
            raise self._error(f"order must be an integer >= 1, not {self.order!r}")
        object.__setattr__(self, "order", int(self.order))
        if abs(math.fsum(self.b) - 1) > TOLERANCE:
            raise self._error(f"the weights b add up to {math.fsum(self.b):.12g}, not to 1")
        if self.order > self.stages:
            raise self._error(
                f"order {self.order} is claimed, but an explicit method with {self.stages} stages "
                f"has at most order {self.stages}"
            )
        for nodes in range(1, self.order + 1):
            for tree, residual in order_conditions.residuals(self.a, self.b, nodes).items():
                if abs(residual) > TOLERANCE:
                    raise self._error(
                        f"order {self.order} is claimed, but the condition of order {nodes} for "
                        f"the rooted tree {tree} is off by {residual:.3g}"
                    )


def _dot(x: Sequence[float], y: Sequence[float]) -> float:
    return math.fsum(p * q for p, q in zip(x, y, strict=True))


def rk2(alpha: float = 0.5) -> Tableau:
    """The second-order methods with two stages, Eq. (28): 1 - alpha and alpha weigh the stages.

    alpha = 1 is the midpoint rule, 3/4 Ralston's method, 1/2 Heun's.

    Raises:
      UserError: `alpha` is not in (0, 1], or is traced (a tableau is made of numbers).
    """
    if is_traced(alpha):
        raise UserError("alpha is part of the tableau and must be a number, not a traced value")
    check_number("alpha of rk2", alpha, HALF_OPEN_UNIT)
    # theta' = theta + h ((1 - alpha) f(theta) + alpha f(theta + h / (2 alpha) f(theta)))
    alpha = float(alpha)
    return Tableau(f"rk2(alpha={alpha:g})", ((), (1 / (2 * alpha),)), (1 - alpha, alpha), order=2)


# One stage, order 1: gradient descent.
EULER = Tableau("euler", ((),), (1,), order=1)

# Two stages, order 2. Runge (1895); Heun (1900), Eqs. (29)-(31), also called improved Euler or the
# explicit trapezoidal rule; Ralston (1962), the least truncation error of the three.
MIDPOINT = Tableau("midpoint", ((), (1 / 2,)), (0, 1), order=2)
HEUN = Tableau("heun", ((), (1,)), (1 / 2, 1 / 2), order=2)
RALSTON = Tableau("ralston", ((), (2 / 3,)), (1 / 4, 3 / 4), order=2)

# Three stages, order 3. Kutta (1901), Eqs. (32)-(35); Shu and Osher (1988), strong stability
# preserving.
KUTTA3 = Tableau("kutta3", ((), (1 / 2,), (-1, 2)), (1 / 6, 2 / 3, 1 / 6), order=3)
SSPRK3 = Tableau("ssprk3", ((), (1,), (1 / 4, 1 / 4)), (1 / 6, 1 / 6, 2 / 3), order=3)

# Four stages, order 4. Kutta (1901): the classical method, Eqs. (36)-(40), and the 3/8 rule.
RK4 = Tableau("rk4", ((), (1 / 2,), (0, 1 / 2), (0, 0, 1)), (1 / 6, 1 / 3, 1 / 3, 1 / 6), order=4)
RK4_38 = Tableau(
    "rk4_38", ((), (1 / 3,), (-1 / 3, 1), (1, -1, 1)), (1 / 8, 3 / 8, 3 / 8, 1 / 8), order=4
)

TABLEAUS: dict[str, Tableau] = {
    tableau.name: tableau
    for tableau in (EULER, MIDPOINT, HEUN, RALSTON, KUTTA3, SSPRK3, RK4, RK4_38)
}

# Families of methods: a function of keywords for each.
FAMILIES = {"rk2": rk2}
