"""What the slots of a step hold: where it begins, its length, the method, what it returns.

A `Tableau` is one kind of method (`rkbench.rk.rk_gradient.explicit`). Any other, stabilised or
implicit, is a `Method` too: a function from a step's beginning and length to g*. A `StepSizeRule`
gives the length.
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
    method: "Method | None" = None  # what will be followed
    self_adjoint: bool = False  # whether A_n is a symmetric, positive semi-definite linear map

    def field(self, params: Vector) -> Vector:
        """k(theta) = A_n g(theta), the field that the stages follow: one gradient evaluation."""
        return self.precondition(self.grad_fn(params))


class Advance(NamedTuple):
    """What a method makes of a step."""

    gradient: Vector  # g*, like Start.first: theta_{n+1} = theta_n - h g* without momentum
    grad_evals: Any  # evaluations of the field beyond the first stage: an integer, or int32 scalar
    state: Any = ()  # the method's own state after the step
    error: Vector | None = None  # g* minus that of the embedded method, where it was asked for
    stages: tuple[Vector, ...] | None = None  # k_1, k_2, ..., where they were asked for


class Method(NamedTuple):
    """A one-step method, as three facts and two pure functions.

    Attributes:
      name: what messages call it.
      order: its order of convergence.
      advance: (start, h, state) -> `Advance`. `h` is a float scalar; `start.first` is the first
        stage and is not counted. The cost may vary from step to step.
      init: params -> the method's state, such as counts of iterations; none by default.
      embedded_order: the order of the embedded method that `Advance.error` compares with; None for
        a method that gives no error.
      second_node: c_2, where the second of `Advance.stages` stands, in units of h; None for a
        method that gives no stages, or one.
    """

    name: str
    order: int
    advance: Callable[[Start, jax.Array, Any], Advance]
    init: Callable[[Vector], Any] = lambda params: ()
    embedded_order: int | None = None
    second_node: float | None = None


class Choice(NamedTuple):
    """The step size that a rule has chosen."""

    step_size: Any  # h, a scalar
    state: Any = ()  # the rule's own state
    grad_evals: Any = 0  # gradient evaluations (or their equal) spent in choosing


def accept(start: Start, step_size: jax.Array, advance: Advance, state: Any) -> tuple[Any, Any]:
    """The review of rules that take every step and learn nothing from it."""
    del start, step_size, advance
    return True, state


class StepSizeRule(NamedTuple):
    """A step-size rule chooses h before the stages and may look at what they gave.

    `stateless` makes simple ones.

    Attributes:
      choose: (start, state) -> `Choice`. `start` has the step's count, parameters, gradient,
        preconditioned field, loss value and extra arguments: see `Start`.
      init: params -> the rule's state, a pytree of arrays; () by default.
      review: (start, h, advance, state) -> (accepted, state), with `advance` what the method made
        of the step: g*, an error estimate, the stages. `accepted` is a boolean scalar. A step that
        is rejected moves nothing (parameters, momentum, preconditioner), but its gradients count.
        What the next step needs to know of this one goes into the state.
      keeps_stages: whether `review` needs `advance.stages`, which tableaus keep where it is True.
      needs_error: whether `review` needs `advance.error`, which tableaus with an embedded method
        compute where it is True.
      check: raises `UserError` for a `Method` that the rule cannot go with; by default all can.
    """

    choose: Callable[[Start, Any], Choice]
    init: Callable[[Vector], Any] = lambda params: ()
    review: Callable[[Start, jax.Array, Advance, Any], tuple[Any, Any]] = accept
    keeps_stages: bool = False
    needs_error: bool = False
    check: Callable[[Method], None] = lambda method: None


def stateless(step_size: Callable[[Start], Any], grad_evals: int = 0) -> StepSizeRule:
    """The rule h = step_size(start), which spends `grad_evals` gradient evaluations a step."""
    return StepSizeRule(lambda start, state: Choice(step_size(start), state, grad_evals))
