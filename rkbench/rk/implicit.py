"""Implicit and linearly implicit methods, by Newton's method and Krylov solvers.

The stages of a diagonally implicit Runge-Kutta method,

    K_i = k(theta_n - h sum_{j<i} a_ij K_j - h a_ii K_i),        g* = sum_i b_i K_i,

need a solution each. With the field k = A_n g of a preconditioner, K = A_n q and c = h a_ii,

    G(q) = q - g(y) = 0,    y = p - c A_n q,    G'(q) = 1 + c H(y) A_n

at p = theta_n - h sum_{j<i} a_ij K_j. Newton's method starts at q = 0, or at y = theta_n where an
explicit stage came before. Each of its corrections is solved for by Hessian-vector products, two
gradient evaluations each, and one evaluation gives the new residual. No matrix is formed.

Where A_n is a symmetric positive semi-definite map, as without a preconditioner, with `adagrad`
and the like, H A_n is self-adjoint in the inner product u^T A_n v, and conjugate gradients in it
solve the system; they stop at negative curvature of 1 + c H A_n. Otherwise (`natural`, gradients
clipped at every stage), A_n is replaced by its derivative at q, and GMRES solves the system.

It is enough that ||G(q)|| <= tolerance ||q||, which bounds the relative error of the stage where H
is positive semi-definite. Norms are the solver's: (r^T A_n r)^(1/2), with GMRES the Euclidean one.

Sources: E. Hairer and G. Wanner, "Solving Ordinary Differential Equations II", Sections IV.3, IV.6
and IV.7; R. Alexander, "Diagonally implicit Runge-Kutta methods for stiff O.D.E.'s", SIAM J.
Numer. Anal. 14 (1977), for `sdirk2`; D. A. Knoll and D. E. Keyes, "Jacobian-free Newton-Krylov
methods", J. Comput. Phys. 193 (2004).
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rkbench.errors import UserError, unknown
from rkbench.rk.checks import POSITIVE, check_number
from rkbench.rk.krylov import Enough, Solution, conjugate_gradients, gmres, repeat
from rkbench.rk.method import Advance, Method, Start
from rkbench.rk.step_size import HESSIAN_PRODUCTS
from rkbench.rk.vector_space import (
    Vector,
    add_scaled,
    cast_like,
    inner,
    root,
    scale,
    squared_norm,
    widen,
)

MOST_ITERATIONS = 1_000


class ImplicitTableau(NamedTuple):
    """The table of a diagonally implicit method.

    Attributes:
      name: the method's.
      order: its order of convergence.
      a: lower triangular with the diagonal: row i has i + 1 numbers. A first stage with 0 on the
        diagonal is explicit, and then a second one is the last.
      b: the weights.
    """

    name: str
    order: int
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]

    def amplification(self, z: Any) -> Any:
        """R(z): on y' = lambda y, y <- R(h lambda) y."""
        ks: list[Any] = []
        for row in self.a:
            known = 1 + sum((z * a * k for a, k in zip(row, ks, strict=False)), 0 * z)
            ks.append(known / (1 - row[-1] * z))  # the stage over lambda
        return 1 + sum(z * b * k for b, k in zip(self.b, ks, strict=True))


_GAMMA = 1 - 1 / math.sqrt(2)

IMPLICIT_EULER = ImplicitTableau("implicit_euler", 1, ((1.0,),), (1.0,))
IMPLICIT_MIDPOINT = ImplicitTableau("implicit_midpoint", 2, ((0.5,),), (1.0,))
CRANK_NICOLSON = ImplicitTableau("crank_nicolson", 2, ((0.0,), (0.5, 0.5)), (0.5, 0.5))
SDIRK2 = ImplicitTableau(
    "sdirk2", 2, ((_GAMMA,), (1 - _GAMMA, _GAMMA)), (1 - _GAMMA, _GAMMA)
)  # L-stable


class ImplicitState(NamedTuple):
    """The state of an implicit method."""

    newton_iterations: jax.Array  # so far: int32 scalar
    krylov_iterations: jax.Array  # so far, a Hessian-vector product each: int32 scalar
    unconverged: jax.Array  # steps so far in which a system was not solved to `tolerance`: int32
    residual: jax.Array  # ||G(q)|| / ||q|| of the last step, the largest of its stages: float


class Solver(NamedTuple):
    """How the systems are solved.

    Attributes:
      newton_iterations: the most corrections of Newton's method a stage, >= 1.
      krylov_iterations: the most Hessian-vector products a correction, >= 1.
      tolerance: of the relative residual ||G(q)|| / ||q||. A residual of four units of rounding of
        the parameters, relative to the first ||g||, is small enough too: there is none smaller.
      hvp: how Hessian-vector products are made, "forward" or "reverse", see `dalr`.
    """

    newton_iterations: int
    krylov_iterations: int
    tolerance: Any
    hvp: str

    def check(self) -> None:
        """Raises `UserError` for a number out of range."""
        for name in ("newton_iterations", "krylov_iterations"):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int):
                raise UserError(f"{name} must be a whole number, not {number!r}")
            if not 1 <= number <= MOST_ITERATIONS:
                raise UserError(f"{name}={number} must be from 1 to {MOST_ITERATIONS}")
        check_number("tolerance", self.tolerance, POSITIVE)
        if self.hvp not in HESSIAN_PRODUCTS:
            raise unknown("hvp", self.hvp, HESSIAN_PRODUCTS)

    def enough(self, start: Start, q: Vector, before: jax.Array) -> Enough:
        """What residual is small enough, where it was `before` for q = 0."""
        units = [float(jnp.finfo(leaf.dtype).eps) for leaf in jax.tree.leaves(start.params)]
        return Enough(jnp.asarray(self.tolerance, float), 4 * max(units, default=0.0) * before, q)

    def solve(
        self, start: Start, y: Vector, q: Vector, c: Any, b: Vector, enough: Enough
    ) -> Solution:
        """x of (1 + c H(y) A_n) x = b, with the derivative of A_n at q where it is not linear."""
        hessian = functools.partial(HESSIAN_PRODUCTS[self.hvp], start.grad_fn, y)

        def product(p: Vector, image: Vector) -> Vector:
            return add_scaled(p, c, hessian(cast_like(image, y)))

        if start.self_adjoint:
            return conjugate_gradients(
                product, start.precondition, b, enough, self.krylov_iterations
            )

        def general(p: Vector) -> Vector:
            return product(p, jax.jvp(start.precondition, (q,), (p,))[1])

        return gmres(general, b, enough, self.krylov_iterations)

    def solve_field(self, start: Start, c: Any, b: Vector, enough: Enough) -> Solution:
        """x of (1 + c A_n' H) x = b at theta_n, with A_n' the derivative of A_n at g(theta_n)."""
        params, g = start.params, start.gradient

        def product(p: Vector) -> Vector:
            turned = HESSIAN_PRODUCTS[self.hvp](start.grad_fn, params, cast_like(p, params))
            image = jax.jvp(start.precondition, (g,), (cast_like(turned, g),))[1]
            return add_scaled(p, c, image)

        return gmres(product, b, enough, self.krylov_iterations)


def _size(start: Start, r: Vector) -> jax.Array:
    """||r||, in the norm of the solver."""
    if start.self_adjoint:
        return root(inner(r, start.precondition(r)))
    return root(squared_norm(r))


class _Newton(NamedTuple):
    """Newton's method on G(q) = 0 for one stage."""

    q: Vector
    r: Vector  # -G(q) = g(y) - q
    size: jax.Array  # ||r||
    target: jax.Array  # of it
    newton: jax.Array  # corrections made: int32
    krylov: jax.Array  # products made: int32
    ended: jax.Array  # whether a correction made the residual no smaller: bool


def _stage(
    solver: Solver, start: Start, point: Vector, c: jax.Array, q: Vector, g: Vector
) -> _Newton:
    """Solves for a stage, beginning at q, where the gradient is g."""
    before = _size(start, g)
    norm = functools.partial(_size, start)

    def unfinished(at: _Newton) -> jax.Array:
        # False for what is no number, too.
        return (at.size > at.target) & (at.newton < solver.newton_iterations) & ~at.ended

    def correct(at: _Newton) -> _Newton:
        y = add_scaled(point, -c, start.precondition(at.q))
        enough = solver.enough(start, at.q, before)
        half = enough._replace(tolerance=enough.tolerance / 2, floor=enough.floor / 2)
        solution = solver.solve(start, y, at.q, c, at.r, half)
        q = add_scaled(at.q, 1.0, solution.x)
        y = add_scaled(point, -c, start.precondition(q))
        r = add_scaled(widen(cast_like(start.grad_fn(y), g)), -1.0, q)
        size = _size(start, r)
        # The first correction is a linearly implicit step, which stands by itself. A later one that
        # makes the residual no smaller is taken back.
        better = (size < at.size) | (at.newton == 0)
        q, r, size = jax.tree.map(
            lambda new, old: jnp.where(better, new, old), (q, r, size), (at.q, at.r, at.size)
        )
        newton, krylov = at.newton + 1, at.krylov + solution.products
        target = solver.enough(start, q, before).target(scale(0.0, q), norm)
        return _Newton(q, r, size, target, newton, krylov, ~better)

    zero, r = jnp.zeros((), jnp.int32), add_scaled(g, -1.0, q)
    target = solver.enough(start, q, before).target(scale(0.0, q), norm)
    first = _Newton(q, r, norm(r), target, zero, zero, jnp.zeros((), bool))
    last = repeat(unfinished, correct, first)
    # A gradient that is no number is passed on: standing still would hide it.
    finite = jnp.isfinite(before)
    q = jax.tree.map(lambda q, g: jnp.where(finite, q, g), last.q, g)
    return last._replace(q=q)


def _init(params: Vector) -> ImplicitState:
    del params
    # No buffer twice: a state can be donated.
    newton, krylov, unconverged = (jnp.zeros((), jnp.int32) for _ in range(3))
    return ImplicitState(newton, krylov, unconverged, jnp.zeros((), float))


class _Outcome(NamedTuple):
    """How well a system was solved."""

    converged: jax.Array
    residual: jax.Array  # relative


def _outcome(size: jax.Array, target: jax.Array, q_size: jax.Array) -> _Outcome:
    relative = jnp.where(size == 0, 0, size / jnp.where(q_size == 0, 1, q_size))
    return _Outcome(size <= target, relative)


def _reported(
    state: ImplicitState, newton: Any, krylov: Any, outcomes: list[_Outcome]
) -> ImplicitState:
    converged = functools.reduce(jnp.logical_and, [outcome.converged for outcome in outcomes])
    return ImplicitState(
        state.newton_iterations + newton,
        state.krylov_iterations + krylov,
        state.unconverged + jnp.where(converged, 0, 1).astype(jnp.int32),
        functools.reduce(jnp.maximum, [outcome.residual for outcome in outcomes]),
    )


def diagonally_implicit(tableau: ImplicitTableau, solver: Solver) -> Method:
    """The method of a diagonally implicit table."""
    solver.check()

    def advance(start: Start, h: jax.Array, state: ImplicitState) -> Advance:
        ks: list[Vector] = []
        newton = krylov = jnp.zeros((), jnp.int32)
        evaluations, outcomes = 0, []
        g_n = widen(start.gradient)
        explicit = tableau.a[0][-1] == 0
        for row in tableau.a:
            if explicit and not ks:
                ks.append(widen(start.first))
                continue
            c, point, q, g = h * row[-1], start.params, scale(0.0, g_n), g_n
            for a, k in zip(row, ks, strict=False):
                point = add_scaled(point, -h * a, k)
            if explicit:  # p may be far out: begin at y = theta_n instead, where g is known
                q = scale(-row[0] / row[-1], g_n)
            if ks and not (explicit and start.self_adjoint):
                y = add_scaled(point, -c, start.precondition(q))
                g = widen(cast_like(start.grad_fn(y), start.gradient))
                evaluations += 1
            solved = _stage(solver, start, point, c, q, g)
            ks.append(start.precondition(solved.q))
            newton, krylov = newton + solved.newton, krylov + solved.krylov
            outcomes.append(_outcome(solved.size, solved.target, _size(start, solved.q)))
        total = scale(tableau.b[0], ks[0])
        for b, k in zip(tableau.b[1:], ks[1:], strict=True):
            total = add_scaled(total, b, k)
        return Advance(
            cast_like(total, start.first),
            evaluations + newton + 2 * krylov,
            _reported(state, newton, krylov, outcomes),
        )

    return Method(tableau.name, tableau.order, advance, _init)


def implicit_euler(
    newton_iterations: int = 3, krylov_iterations: int = 10, tolerance: Any = 1e-3,
    hvp: str = "forward",
) -> Method:  # fmt: skip
    """g* = k(theta_n - h g*): order 1, L-stable, R(z) = 1 / (1 - z); the keywords are `Solver`'s.

    It is the proximal point method: theta_{n+1} minimizes L(y) + ||y - theta_n||^2 / (2 h).
    """
    solver = Solver(newton_iterations, krylov_iterations, tolerance, hvp)
    return diagonally_implicit(IMPLICIT_EULER, solver)


def implicit_midpoint(
    newton_iterations: int = 3, krylov_iterations: int = 10, tolerance: Any = 1e-3,
    hvp: str = "forward",
) -> Method:  # fmt: skip
    """g* = k(theta_n - h/2 g*): order 2, A-stable, R(z) = (1 + z/2) / (1 - z/2).

    R tends to -1 for stiff components: they are not damped, but alternate.
    """
    solver = Solver(newton_iterations, krylov_iterations, tolerance, hvp)
    return diagonally_implicit(IMPLICIT_MIDPOINT, solver)


def crank_nicolson(
    newton_iterations: int = 3, krylov_iterations: int = 10, tolerance: Any = 1e-3,
    hvp: str = "forward",
) -> Method:  # fmt: skip
    """g* = (k(theta_n) + k(theta_{n+1})) / 2, the trapezoidal rule: R as `implicit_midpoint`'s."""
    solver = Solver(newton_iterations, krylov_iterations, tolerance, hvp)
    return diagonally_implicit(CRANK_NICOLSON, solver)


def sdirk2(
    newton_iterations: int = 3, krylov_iterations: int = 10, tolerance: Any = 1e-3,
    hvp: str = "forward",
) -> Method:  # fmt: skip
    """Alexander's method of two stages: order 2, L-stable, with gamma = 1 - 1/sqrt(2).

    K_1 = k(theta_n - h gamma K_1), K_2 = k(theta_n - h (1 - gamma) K_1 - h gamma K_2) and
    g* = (1 - gamma) K_1 + gamma K_2; R(z) = (1 + (1 - 2 gamma) z) / (1 - gamma z)^2.
    """
    solver = Solver(newton_iterations, krylov_iterations, tolerance, hvp)
    return diagonally_implicit(SDIRK2, solver)


def rosenbrock_euler(
    krylov_iterations: int = 10, tolerance: Any = 1e-3, hvp: str = "forward"
) -> Method:
    """(1 + h A_n H(theta_n)) g* = k(theta_n): one linear system a step; order 1, R = 1/(1 - z).

    The linearly implicit Euler method; `tolerance` is of this system's residual.
    """
    solver = Solver(1, krylov_iterations, tolerance, hvp)
    solver.check()

    def advance(start: Start, h: jax.Array, state: ImplicitState) -> Advance:
        b = widen(start.gradient if start.self_adjoint else start.first)
        norm = functools.partial(_size, start)
        enough = solver.enough(start, scale(0.0, b), norm(b))
        if start.self_adjoint:
            solution = solver.solve(start, start.params, b, h, b, enough)
            k = start.precondition(solution.x)
        else:
            solution = solver.solve_field(start, h, b, enough)
            k = solution.x
        target = enough.target(solution.x, norm)
        outcome = _outcome(solution.residual, target, norm(solution.x))
        # A gradient that is no number is passed on.
        k = jax.tree.map(
            lambda k, first: jnp.where(jnp.isfinite(norm(b)), k, first), k, start.first
        )
        return Advance(
            cast_like(k, start.first),
            2 * solution.products,
            _reported(state, 0, solution.products, [outcome]),
        )

    return Method("rosenbrock_euler", 1, advance, _init)


IMPLICIT: dict[str, Callable[..., Method]] = {
    "implicit_euler": implicit_euler,
    "implicit_midpoint": implicit_midpoint,
    "crank_nicolson": crank_nicolson,
    "sdirk2": sdirk2,
    "rosenbrock_euler": rosenbrock_euler,
}
"""Implicit methods by name: factories."""
