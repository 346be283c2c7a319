"""`runge_kutta`: method x preconditioner x step-size rule x momentum, as an optax optimizer."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rkbench.errors import UserError
from rkbench.rk.arguments import (
    as_vector,
    at,
    check_gradient,
    check_optional,
    check_parts,
    checked_grad_fn,
    is_absent,
)
from rkbench.rk.checks import DECAY, NON_NEGATIVE, POSITIVE
from rkbench.rk.method import Method, Start, StepSizeRule
from rkbench.rk.preconditioners import Preconditioner, identity
from rkbench.rk.rk_gradient import explicit
from rkbench.rk.stabilized import Recurrence, stabilized
from rkbench.rk.step_size import fixed
from rkbench.rk.tableaus import Tableau
from rkbench.rk.vector_space import Vector, add_scaled, clip, scale, squared_norm


class RungeKuttaState(NamedTuple):
    """The state of `runge_kutta`."""

    count: jax.Array  # n, updates made, rejected steps among them: int32 scalar
    grad_evals: jax.Array  # gradient evaluations spent, with the caller's first stage: int32 scalar
    step_size: jax.Array  # h of the last step: float scalar
    preconditioner: Any  # what A_n is made of, e.g. diag G_n
    momentum: Any  # m_n, like the parameters; () without momentum
    rule: Any = ()  # the step-size rule's own
    method: Any = ()  # the method's own, such as counts of iterations


def runge_kutta(
    method: Tableau | Recurrence | Method,
    learning_rate: Any,
    *,
    preconditioner: Preconditioner | None = None,
    momentum: Any = 0.0,
    nesterov: bool = False,
    clip_norm: Any = None,
    weight_decay: Any = 0.0,
    l2: Any = 0.0,
    unroll_stages: bool | None = None,
    name: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    """A Runge-Kutta method as an optimizer; see `rkbench.rk` for the equations.

    Numbers may be scalar arrays, traced too; momentum, weight_decay and l2 also optax schedules. Of
    these three a Python 0 or None leaves the part out; an array or schedule does not, whatever its
    value, so that a state never depends on a value.

    Args:
      method: a tableau, a stabilised method such as `rkc1(stages=8)`, or any other `Method`.
      learning_rate: h >= 0: a number, an optax schedule or a step-size rule such as
        `dalr(c=4.0, p=0.8)`.
      preconditioner: A_n; none by default.
      momentum: beta in [0, 1) of Eq. (9), m <- beta m + g*.
      nesterov: Nesterov's form of momentum: theta <- theta - h (g* + beta m) with the new m, as in
        `optax.sgd(nesterov=True)`, instead of theta <- theta - h m.
      clip_norm: the largest norm of g*, over all parameters: a longer g* is shortened to it before
        momentum. None does not clip. (To clip each stage, clip inside `grad_fn` and `gradient`.)
      weight_decay: lambda >= 0 of decoupled weight decay, theta <- theta - h (m + lambda theta), as
        in `optax.adamw`: it acts once a step, on theta_n, after clipping and momentum and outside
        preconditioner and stages. With `EULER` this is SGDW (Loshchilov and Hutter 2019).
      l2: lambda >= 0 of the penalty (lambda/2) ||theta||^2: lambda theta is added to the gradient
        at every stage, so that the field followed, its preconditioner and step-size rules are those
        of the loss with the penalty.
      unroll_stages: whether to write out the stages of a chain instead of compiling them as a
        loop. By default they are a loop. XLA's CPU backend runs convolutions about five times
        slower inside a loop: unroll there.
      name: what error messages call the optimizer; the method's name by default.

    Returns:
      An optimizer whose `update(gradient, state, params, *, grad_fn)` returns -h m. `gradient` is
      the gradient at `params` and serves as the first stage; `grad_fn(params)` is the gradient of
      the same loss on the same batch, with the structure and shapes of `params`; methods of one
      stage do without. `value`, the loss at `params`, and all other keyword arguments reach the
      step-size rule and the method, which may need them.

      In `optax.chain`, what comes before changes the first stage only, while `grad_fn` gives the
      others: no transformation of gradients belongs there. What comes after acts on the finished
      update -h m: `clip_by_global_norm` there clips h m, and `add_decayed_weights` makes weights
      grow. `clip_norm`, `weight_decay` and `l2` are what is meant.

    Raises:
      TypeError: a part that is a name or a factory; in `update`, leaves that are no floating-point
        arrays, or a gradient, given or returned by `grad_fn`, that is unlike the parameters.
      UserError: a number out of range, or a step-size rule that needs of the method what it does
        not have.
    """
    check_parts(method, learning_rate, preconditioner)
    if nesterov and is_absent(momentum):
        raise UserError("nesterov=True has no effect without momentum")
    if not isinstance(nesterov, bool):
        raise UserError(f"nesterov must be True or False, not {nesterov!r}")
    for argument, number, valid in (
        ("momentum", momentum, DECAY),
        ("clip_norm", clip_norm, POSITIVE),
        ("weight_decay", weight_decay, NON_NEGATIVE),
        ("l2", l2, NON_NEGATIVE),
    ):
        check_optional(argument, number, valid)
    rule = learning_rate if isinstance(learning_rate, StepSizeRule) else fixed(learning_rate)
    name = name or method.name
    if isinstance(method, Tableau):
        method = explicit(method, bool(unroll_stages), rule.keeps_stages, rule.needs_error)
    elif isinstance(method, Recurrence):
        method = stabilized(method, bool(unroll_stages))
    rule.check(method)
    step = _Step(
        name,
        method,
        rule,
        preconditioner or identity(),
        _Terms(momentum, nesterov, clip_norm, weight_decay, l2),
    )
    return optax.GradientTransformationExtraArgs(step.init, step.update)


class _Terms(NamedTuple):
    """What is added to the gradient, and what is done to g* before the step."""

    momentum: Any
    nesterov: bool
    clip_norm: Any
    weight_decay: Any
    l2: Any

    def penalized(self, gradient: Vector, params: Vector, count: jax.Array) -> Vector:
        """g + lambda theta."""
        if is_absent(self.l2):
            return gradient
        return add_scaled(gradient, at(self.l2, count), params)

    def penalized_value(self, value: Any, params: Vector, count: jax.Array) -> Any:
        """L + lambda/2 ||theta||^2, where the caller gives L."""
        if value is None or is_absent(self.l2):
            return value
        return jnp.asarray(value, float) + at(self.l2, count) / 2 * squared_norm(params)

    def clipped(self, gradient: Vector) -> Vector:
        """g*, no longer than allowed."""
        return gradient if self.clip_norm is None else clip(gradient, self.clip_norm)

    def moved(self, gradient: Vector, m: Any, count: jax.Array) -> tuple[Vector, Any]:
        """(the direction of the step, m_{n+1} = beta m_n + g*), Eq. (9).

        The direction is m_{n+1}, or g* + beta m_{n+1} in Nesterov's form.
        """
        if is_absent(self.momentum):
            return gradient, ()
        beta = at(self.momentum, count)
        m = add_scaled(gradient, beta, m)
        return (add_scaled(gradient, beta, m) if self.nesterov else m), m

    def decayed(self, direction: Vector, params: Vector, count: jax.Array) -> Vector:
        """The direction + lambda theta_n."""
        if is_absent(self.weight_decay):
            return direction
        return add_scaled(direction, at(self.weight_decay, count), params)


class _Step(NamedTuple):
    """The two functions of the optimizer."""

    name: str
    method: Method
    rule: StepSizeRule
    preconditioner: Preconditioner
    terms: _Terms

    def init(self, params: Any) -> RungeKuttaState:
        params = as_vector(self.name, "the parameters", params)
        return RungeKuttaState(
            count=jnp.zeros((), jnp.int32),
            grad_evals=jnp.zeros((), jnp.int32),
            step_size=jnp.zeros((), float),
            preconditioner=self.preconditioner.init(params),
            momentum=() if is_absent(self.terms.momentum) else jax.tree.map(jnp.zeros_like, params),
            rule=_strongly_typed(self.rule.init(params)),
            method=_strongly_typed(self.method.init(params)),
        )

    def update(
        self, updates, state: Any, params=None, *, grad_fn: Any = None, value=None, **extra_args
    ) -> tuple[Vector, RungeKuttaState]:
        start, preconditioner = self._start(updates, state, params, grad_fn, value, extra_args)
        choice = self.rule.choose(start, state.rule)
        h = jnp.asarray(choice.step_size, dtype=float)
        advance = self.method.advance(start, h, state.method)  # g*, Eq. (1)
        gradient = self.terms.clipped(advance.gradient)
        gradient, preconditioner = self.preconditioner.average(gradient, preconditioner)
        direction, m = self.terms.moved(gradient, state.momentum, state.count)
        step = scale(-h, self.terms.decayed(direction, start.params, state.count))  # Eq. (10)
        kept = preconditioner, m
        accepted, rule_state = self.rule.review(start, h, advance, choice.state)
        if accepted is not True:
            # Not 0 times the step, which may be infinite.
            step = _where(accepted, step, jax.tree.map(jnp.zeros_like, step))
            kept = _where(accepted, kept, (state.preconditioner, state.momentum))
        spent = 1 + choice.grad_evals + advance.grad_evals
        return step, RungeKuttaState(
            count=jnp.asarray(optax.safe_increment(state.count)),
            grad_evals=state.grad_evals + jnp.asarray(spent, jnp.int32),
            step_size=h,
            preconditioner=kept[0],
            momentum=kept[1],
            rule=rule_state,
            method=advance.state,
        )

    def _start(self, updates, state, params, grad_fn, value, extra_args) -> tuple[Start, Any]:
        """Where the step begins, from what the caller gave; and the preconditioner's state."""
        name, count = self.name, state.count
        if params is None:
            raise TypeError(
                f"optimizer {name!r}: update() needs params, the point at which its stages begin"
            )
        params = as_vector(name, "the parameters", params)
        check_gradient(name, "the gradient", updates, params)
        grad_fn = checked_grad_fn(name, grad_fn, params)
        gradient = self.terms.penalized(as_vector(name, "the gradient", updates), params, count)
        penalized = lambda theta: self.terms.penalized(grad_fn(theta), theta, count)  # noqa: E731
        precondition, new = self.preconditioner.update(gradient, state.preconditioner)
        first = precondition(gradient)
        value = self.terms.penalized_value(value, params, count)
        start = Start(
            *(count, params, gradient, penalized, precondition, first, value, extra_args),
            method=self.method,
            self_adjoint=self.preconditioner.self_adjoint,
        )
        return start, new


def _strongly_typed(state: Any) -> Any:
    """Python numbers and weakly typed arrays would change their type, and so compile twice."""
    return jax.tree.map(lambda x: jax.lax.convert_element_type(x, jnp.result_type(x)), state)


def _where(condition: Any, x: Any, y: Any) -> Any:
    return jax.tree.map(lambda p, q: jnp.where(condition, p, q), x, y)
