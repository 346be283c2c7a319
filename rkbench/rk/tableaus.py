"""Butcher tableaus of explicit Runge-Kutta methods: data, checked when it is made.

A method with s stages is given by its matrix a (s x s, strictly lower triangular), its weights b
and its order. An embedded pair has other weights for the same stages too: the two results differ by
an estimate of the error. Textbook reference: Hairer, Norsett and Wanner, "Solving Ordinary
Differential Equations I", Sections II.1, II.2 and II.4; equation numbers are the paper's.
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
      b_embedded: the s weights of the embedded method, to whose result that of `b` is compared;
        None where there is none.
      embedded_order: the order claimed for `b_embedded`.

    Raises:
      UserError: `a` is not square or not explicit, a coefficient is not finite, weights do not
        add up to 1, an order condition up to `order`, or up to `embedded_order` for `b_embedded`,
        does not hold to 1e-10, or `b_embedded` is `b`.
    """

    name: str
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    order: int
    b_embedded: tuple[float, ...] | None = None
    embedded_order: int | None = None

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
        self._check_order("order", self.order, b)
        self._check_embedded()

    @classmethod
    def from_mapping(cls, table: Mapping[str, Any]) -> "Tableau":
        """A tableau from the keys `a`, `b`, `order` and, if it has them, the other attributes."""
        fields = {"name": "custom", **table}
        for key in fields:
            if key not in _KEYS:
                raise unknown("tableau key", key, _KEYS)
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
    def error_weights(self) -> tuple[float, ...] | None:
        """b - b_embedded, the weights of the stages in the error; None without `b_embedded`."""
        if self.b_embedded is None:
            return None
        return tuple(x - y for x, y in zip(self.b, self.b_embedded, strict=True))

    @property
    def reduced(self) -> tuple[tuple[tuple[float, ...], ...], tuple[float, ...]]:
        """(a, b) of the stages that a step has to evaluate, the first always among them.

        A stage is left out where neither the step nor a stage that is needed uses it. The last
        stage of a FSAL method is one: it is the first of the next step, but cannot be handed on to
        the next mini-batch's field.
        """
        a, (b,) = self.reduced_to(self.b)
        return a, b

    def reduced_to(
        self, *sums: tuple[float, ...]
    ) -> tuple[tuple[tuple[float, ...], ...], tuple[tuple[float, ...], ...]]:
        """`a` and each of `sums`, weights of the stages, without the stages that none needs."""
        needed = {0} | {i for row in sums for i, w in enumerate(row) if abs(w) > ROUNDING}
        for i in reversed(range(self.stages)):
            if i in needed:
                needed |= {j for j, entry in enumerate(self.a[i]) if entry != 0.0}
        kept = sorted(needed)
        return (
            tuple(tuple(self.a[i][j] for j in kept) for i in kept),
            tuple(tuple(row[i] for i in kept) for row in sums),
        )

    @property
    def evaluated_stages(self) -> int:
        """The number of stages that a step has to evaluate, see `reduced`."""
        return len(self.reduced[1])

    @property
    def is_chain(self) -> bool:
        """Whether each stage depends on the one before only: then the stages form a loop."""
        return is_chain(self.reduced[0])

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

    def _check_order(self, claimed: str, order: Any, weights: tuple[float, ...]) -> None:
        """Checks that the method with these weights has the order that the field claims for it."""
        integer = isinstance(order, Integral) and not isinstance(order, bool)
        if not integer or order < 1:
            raise self._error(f"{claimed} must be an integer >= 1, not {order!r}")
        order = int(order)
        object.__setattr__(self, claimed, order)
        which = "b" if weights is self.b else "b_embedded"
        if abs(math.fsum(weights) - 1) > TOLERANCE:
            raise self._error(f"the weights {which} add up to {math.fsum(weights):.12g}, not to 1")
        if order > self.stages:
            raise self._error(
                f"{claimed} {order} is claimed, but an explicit method with {self.stages} stages "
                f"has at most order {self.stages}"
            )
        for nodes in range(1, order + 1):
            for tree, residual in order_conditions.residuals(self.a, weights, nodes).items():
                if abs(residual) > TOLERANCE:
                    raise self._error(
                        f"{claimed} {order} is claimed, but the condition of order {nodes} for "
                        f"the rooted tree {tree} is off by {residual:.3g}"
                    )

    def _check_embedded(self) -> None:
        if (self.b_embedded is None) != (self.embedded_order is None):
            raise self._error("b_embedded and embedded_order are given together or not at all")
        if self.b_embedded is None:
            return
        try:
            weights = tuple(float(weight) for weight in self.b_embedded)
        except (TypeError, ValueError):
            raise self._error("b_embedded must be a row of numbers") from None
        object.__setattr__(self, "b_embedded", weights)
        if len(weights) != self.stages or not all(map(math.isfinite, weights)):
            raise self._error(f"b_embedded must be {self.stages} finite numbers, one a stage")
        if weights == self.b:
            raise self._error("b_embedded is b: their difference would tell no error")
        self._check_order("embedded_order", self.embedded_order, weights)


_KEYS = ("a", "b", "order", "name", "b_embedded", "embedded_order")


def is_chain(a: Sequence[Sequence[float]]) -> bool:
    """Whether each stage of this matrix depends on the one before only."""
    return all(entry == 0.0 for i, row in enumerate(a) for entry in row[: max(i - 1, 0)])


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
# The second stage of RK4 is the midpoint rule's gradient: an embedded method for nothing.
RK4 = Tableau(
    "rk4",
    ((), (1 / 2,), (0, 1 / 2), (0, 0, 1)),
    (1 / 6, 1 / 3, 1 / 3, 1 / 6),
    order=4,
    b_embedded=(0, 1, 0, 0),
    embedded_order=2,
)
RK4_38 = Tableau(
    "rk4_38", ((), (1 / 3,), (-1 / 3, 1), (1, -1, 1)), (1 / 8, 3 / 8, 3 / 8, 1 / 8), order=4
)

# Embedded pairs: Heun's method with Euler's; Bogacki and Shampine (1989); Dormand and Prince
# (1980). The last stage of the latter two is for the error alone: without, a step leaves it out.
HEUN_EULER = Tableau(
    "heun_euler", ((), (1,)), (1 / 2, 1 / 2), order=2, b_embedded=(1, 0), embedded_order=1
)
BS32 = Tableau(
    "bs32",
    ((), (1 / 2,), (0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
    (2 / 9, 1 / 3, 4 / 9, 0),
    order=3,
    b_embedded=(7 / 24, 1 / 4, 1 / 3, 1 / 8),
    embedded_order=2,
)
DOPRI5 = Tableau(
    "dopri5",
    (
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0),
    order=5,
    b_embedded=(5179 / 57600, 0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40),
    embedded_order=4,
)

TABLEAUS: dict[str, Tableau] = {
    tableau.name: tableau
    for tableau in (
        *(EULER, MIDPOINT, HEUN, RALSTON, KUTTA3, SSPRK3, RK4, RK4_38),
        *(HEUN_EULER, BS32, DOPRI5),
    )
}

# Families of methods: a function of keywords for each.
FAMILIES = {"rk2": rk2}
