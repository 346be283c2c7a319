"""What the slots of a step hold: where it begins, the method that is followed, what it returns.

A `Tableau` is one kind of method (`rkbench.rk.rk_gradient.explicit`). Any other, stabilised or
implicit, is a `Method` too: a function from a step's beginning and length to g*.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from rkbench.rk.vector_space import Vector

GradFn = Callable[[Vector], Vector]


class Start(NamedTuple):
    """All that is known at theta_n, where a step begins."""

    count: jax.Array  # n, updates before this one: int32 scalar
    params: Vector  # theta_n
    gradient: Vector  # g(theta_n), before any preconditioning
    grad_fn: GradFn  # g at any point, for this step's mini-batch
    precondition: Callable[[Vector], Vector]  # A_n
    first: Vector  # k_1 = A_n g(theta_n)
    value: Any = None  # L(theta_n), where the caller gives it: a scalar
    extra_args: Mapping[str, Any] = {}
    self_adjoint: bool = False  # whether A_n is a symmetric, positive semi-definite linear map

    def field(self, params: Vector) -> Vector:
        """k(theta) = A_n g(theta), the field that the stages follow: one gradient evaluation."""
        return self.precondition(self.grad_fn(params))


class Advance(NamedTuple):
    """What a method makes of a step."""

    gradient: Vector  # g*, like Start.first: theta_{n+1} = theta_n - h g* without momentum
    grad_evals: Any  # evaluations of the field beyond the first stage: an integer, or int32 scalar
    state: Any = ()  # the method's own state after the step
    error: Vector | None = None  # g* minus that of the embedded method, where there is one
    stages: tuple[Vector, ...] | None = None  # k_1, k_2, ..., where they were asked for


class Method(NamedTuple):
    """A one-step method, as three facts and two pure functions.

    Attributes:
      name: what messages call it.
      order: its order of convergence.
      advance: (start, h, state) -> `Advance`. `h` is a float scalar; `start.first` is the first
        stage and is not counted. The cost may vary from step to step.
      init: params -> the method's state, such as counts of iterations; none by default.
    """

    name: str
    order: int
    advance: Callable[[Start, jax.Array, Any], Advance]
    init: Callable[[Vector], Any] = lambda params: ()
