"""First-order optimizers to compare with: eight by name, and all that optax exports.

Each is wrapped by `count_grad_evals`, so that results can be compared at equal computation.
"""

import enum
import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from rkbench.configs import optimizers as rows
from rkbench.errors import UserError, unknown
from rkbench.optimizers import optimizer_states
from rkbench.optimizers.optimizer_states import find
from rkbench.optimizers.related import RGDState, rgd_eval_params
from rkbench.rk.checks import DECAY, FINITE, NON_NEGATIVE, POSITIVE, check_number
from rkbench.rk.step_size import StepSizeRule, check_learning_rate

Evaluations = Callable[[Any, Any], Any]  # (inner state before, after) -> evaluations of the step


class Spending(enum.Enum):
    """What decides the gradient evaluations of a step."""

    FIXED = enum.auto()  # they are the same in every step
    SCHEDULED = enum.auto()  # the step's number, as where every tenth step spends more
    BY_LOSS = enum.auto()  # the loss, as with a line search: known only afterwards


VALUE = {"value": "value"}  # Polyak's and MoMo's step sizes need the loss

# What optax calls the learning rate, in the order of preference.
LEARNING_RATE_NAMES = ("learning_rate", "max_learning_rate")

# Ranges of the keywords that mean the same everywhere; optax checks none of them.
RANGES = {"momentum": DECAY, "b1": DECAY, "b2": DECAY, "eps": NON_NEGATIVE}


def sgd(learning_rate: Any) -> optax.GradientTransformationExtraArgs:
    """theta <- theta - h g."""
    return optax.sgd(learning_rate)


def momentum(learning_rate: Any, momentum: Any = 0.9) -> optax.GradientTransformationExtraArgs:
    """Heavy ball: m <- beta m + g, theta <- theta - h m."""
    return optax.sgd(learning_rate, momentum=momentum)


def nadamw(
    learning_rate: Any,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    weight_decay: Any = 1e-4,
) -> optax.GradientTransformationExtraArgs:
    """NAdamW as in AlgoPerf and init2winit, where the paper's ViT baseline comes from.

    It corrects the bias of the look-ahead moment as a whole, by 1 - b1^t; `optax.nadamw` corrects
    its two terms apart, by 1 - b1^(t+1) and 1 - b1^t.
    """
    return optax.chain(
        scale_by_nadam(b1, b2, eps),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(learning_rate),
    )


def scale_by_nadam(b1: Any, b2: Any, eps: Any) -> optax.GradientTransformation:
    """The direction of `nadamw`; its state is optax's `ScaleByAdamState`."""

    def init(params) -> optax.ScaleByAdamState:
        zeros = optax.tree.zeros_like(params)
        return optax.ScaleByAdamState(count=jnp.zeros((), jnp.int32), mu=zeros, nu=zeros)

    def update(updates, state: Any, params=None):
        del params
        t = jnp.asarray(optax.safe_increment(state.count))
        # mu_t = b1 mu_{t-1} + (1 - b1) g;  nu_t = b2 nu_{t-1} + (1 - b2) g^2
        mu = optax.tree.update_moment(updates, state.mu, b1, 1)
        nu = optax.tree.update_moment_per_elem_norm(updates, state.nu, b2, 2)
        # mu^ = (b1 mu_t + (1 - b1) g) / (1 - b1^t);  nu^ = nu_t / (1 - b2^t)
        ahead = _debias(optax.tree.update_moment(updates, mu, b1, 1), b1, t)
        spread = _debias(nu, b2, t)
        direction = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + eps), ahead, spread)
        return direction, optax.ScaleByAdamState(count=t, mu=mu, nu=nu)

    return optax.GradientTransformation(init, update)


def _debias(moment: Any, decay: Any, t: jax.Array) -> Any:
    """moment / (1 - decay^t)."""
    correction = 1 - jnp.asarray(decay, dtype=float) ** t.astype(float)
    return jax.tree.map(lambda m: m / correction.astype(m.dtype), moment)


def one_evaluation(before: Any, after: Any) -> Any:
    """The gradient itself and no more."""
    del before, after
    return 1


def two_evaluations(before: Any, after: Any) -> Any:
    """The gradient itself and one more."""
    del before, after
    return 2


class CountGradEvalsState(NamedTuple):
    """The state of `count_grad_evals`."""

    grad_evals: jax.Array  # gradient evaluations spent: int32 scalar
    inner: Any  # the state of the optimizer wrapped, as `optimizer_states.kept` keeps it


def count_grad_evals(
    inner: optax.GradientTransformation,
    evaluations: Evaluations = one_evaluation,
    extra_args: Mapping[str, str] = VALUE,
) -> optax.GradientTransformationExtraArgs:
    """`inner`, with a count of the gradient evaluations it spends.

    Args:
      inner: the optimizer.
      evaluations: how many a step spends, from the inner state before and after it.
      extra_args: the extra arguments of `update` that `inner` takes: its name for each to the name
        it is given by. All others are kept from it: optax's line search refuses what it does not
        know.
    """
    inner = optax.with_extra_args_support(inner)

    def init(params) -> CountGradEvalsState:
        state = optimizer_states.kept(inner.init(params))
        state = optimizer_states.with_own_buffers(state)
        return CountGradEvalsState(jnp.zeros((), jnp.int32), state)

    def update(updates, state: Any, params=None, **given):
        known = {key: given[name] for key, name in extra_args.items() if name in given}
        before = optimizer_states.restored(state.inner)
        updates, after = inner.update(updates, before, params, **known)
        spent = jnp.asarray(evaluations(before, after), jnp.int32)
        return updates, CountGradEvalsState(state.grad_evals + spent, optimizer_states.kept(after))

    return optax.GradientTransformationExtraArgs(init, update)


_LINE_SEARCHES = (optax.ScaleByZoomLinesearchState, optax.ScaleByBacktrackingLinesearchState)


def line_search_evaluations(before: Any, after: Any) -> Any:
    """The gradient itself and one more evaluation a trial step of the line search."""
    del before
    searches = find(after, *_LINE_SEARCHES)
    return 1 + sum(jnp.asarray(search.info.num_linesearch_steps) for search in searches)


def hutchinson_evaluations(before: Any, after: Any) -> Any:
    """Sophia: two more (a Hessian-vector product) in the steps that draw a new random vector."""
    old, new = (find(state, contrib.HutchinsonState) for state in (before, after))
    drawn = [jnp.any(one.key != other.key) for one, other in zip(old, new, strict=True)]
    return 1 + 2 * sum(jnp.asarray(one, jnp.int32) for one in drawn)


# Of optax's optimizers, those that evaluate the loss themselves: what they spend and need.
MORE_THAN_A_GRADIENT: dict[str, tuple[Evaluations, Spending, Mapping[str, str]]] = {
    "optax:lbfgs": (
        line_search_evaluations,
        Spending.BY_LOSS,
        {"value": "value", "grad": "grad", "value_fn": "value_fn"},
    ),
    "sgd_g2": (two_evaluations, Spending.FIXED, {"grad_fn": "grad_fn"}),
    "optax:contrib.sophia": (hutchinson_evaluations, Spending.SCHEDULED, {"obj_fn": "value_fn"}),
}


# By the type of an optimizer's state: where it is to be evaluated, if not at its parameters, which
# are then the points at which it wants gradients. (state, parameters) -> parameters.
EVAL_PARAMS: dict[type, Callable[[Any, Any], Any]] = {
    contrib.ScheduleFreeState: contrib.schedule_free_eval_params,  # x, the average; not y
    RGDState: rgd_eval_params,  # x_k, not x_{k+1/2}
    optax.LookaheadState: lambda state, params: params.slow,  # a wrapper: registered under no name
}

# What optax exports and a step cannot give what it needs.
NOT_REGISTERED = {
    "optax:contrib.dpsgd": "it needs the gradient of every example, where there is that of a batch",
}


class Baseline(NamedTuple):
    """A registered first-order optimizer: a factory with optax's keywords."""

    name: str
    factory: Callable[..., optax.GradientTransformation]
    evaluations: Evaluations = one_evaluation
    spending: Spending = Spending.FIXED
    extra_args: Mapping[str, str] = VALUE

    def hyperparameters(self, **given: Any) -> dict[str, Any]:
        """The factory's keywords and their defaults, without the learning rate."""
        del given
        parameters = inspect.signature(self.factory).parameters.values()
        return {p.name: p.default for p in parameters if p.name != self._learning_rate_name}

    def create(
        self,
        learning_rate: Any,
        given: Mapping[str, Any],
        unroll_stages: bool | None = None,
        clip_norm: float | None = None,
        stage_clip_norm: float | None = None,
    ) -> optax.GradientTransformationExtraArgs:
        """The optimizer, counting, on clipped gradients; there are no stages to unroll."""
        del unroll_stages
        valid = self.hyperparameters()
        for key, value in given.items():
            if key not in valid:
                raise unknown(f"{self.name} hyperparameter", key, valid)
            if key in RANGES and value is not None:
                check_number(key, value, RANGES[key])
            elif isinstance(valid[key], bool) and not isinstance(value, bool):
                raise UserError(f"{key} must be True or False, not {value!r}")
            elif isinstance(value, float) and value != valid[key]:  # some have no limit by default
                check_number(key, value, FINITE)
        arguments = dict(given)
        if isinstance(learning_rate, StepSizeRule):
            raise UserError(f"optimizer {self.name!r} takes no step-size rule as learning_rate")
        if learning_rate is not None:
            check_learning_rate(learning_rate)
            arguments[self._learning_rate_name] = learning_rate
        self._check_required(arguments)
        optimizer = self._made(arguments)
        # The gradient is the only stage there is.
        for name, norm in (("clip_norm", clip_norm), ("stage_clip_norm", stage_clip_norm)):
            if norm is not None:
                check_number(name, norm, POSITIVE)
                optimizer = optax.chain(optax.clip_by_global_norm(norm), optimizer)
                if "grad_fn" in self.extra_args:
                    optimizer = _with_clipped_grad_fn(optimizer, norm)
        return count_grad_evals(optimizer, self.evaluations, self.extra_args)

    def _made(self, arguments: Mapping[str, Any]) -> optax.GradientTransformation:
        try:
            return self.factory(**arguments)
        except Exception as error:  # optax raises what a wrong value happens to raise
            given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
            raise UserError(
                f"optimizer {self.name!r} cannot be made of {given}: {error}"
            ) from error

    @property
    def _learning_rate_name(self) -> str:
        parameters = inspect.signature(self.factory).parameters
        return next(name for name in LEARNING_RATE_NAMES if name in parameters)

    def _check_required(self, arguments: Mapping[str, Any]) -> None:
        for parameter in inspect.signature(self.factory).parameters.values():
            if parameter.default is parameter.empty and parameter.name not in arguments:
                raise UserError(f"optimizer {self.name!r} needs a {parameter.name}")


def _with_clipped_grad_fn(
    optimizer: optax.GradientTransformationExtraArgs, norm: float
) -> optax.GradientTransformationExtraArgs:
    """`optimizer` with further gradients clipped as the first one is: it compares them."""
    clip = optax.clip_by_global_norm(norm)

    def update(updates, state, params=None, *, grad_fn: Any = None, **extra_args):
        def clipped(theta):
            return clip.update(grad_fn(theta), optax.EmptyState())[0]

        given = None if grad_fn is None else clipped
        return optimizer.update(updates, state, params, grad_fn=given, **extra_args)

    return optax.GradientTransformationExtraArgs(optimizer.init, update)


@functools.cache
def optax_optimizers() -> dict[str, Baseline]:
    """Every optimizer that optax exports, as `optax:<name>` and `optax:contrib.<name>`."""
    plain = {
        prefix + public: Baseline(prefix + public, factory)
        for prefix, module in (("optax:", optax), ("optax:contrib.", contrib))
        for public, factory in sorted(vars(module).items(), key=lambda item: item[0])
        if _is_optimizer(public, factory) and prefix + public not in NOT_REGISTERED
    }
    return plain | {
        name: plain[name]._replace(
            evaluations=evaluations, spending=spending, extra_args=extra_args
        )
        for name, (evaluations, spending, extra_args) in MORE_THAN_A_GRADIENT.items()
        if name in plain
    }


def _is_optimizer(name: str, value: Any) -> bool:
    """Whether it makes a gradient transformation from a learning rate alone, or numbers beside it.

    A function that needs another transformation (`schedule_free`) wraps optimizers and is none,
    and neither are the building blocks that optax calls `scale_by_...`.
    """
    if name.startswith(("_", "scale_by_")) or not callable(value) or inspect.isclass(value):
        return False
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):  # a type alias
        return False
    required = [p for p in signature.parameters.values() if p.default is p.empty]
    return (
        _is_transformation(signature.return_annotation)
        and any(name in signature.parameters for name in LEARNING_RATE_NAMES)
        and not any(_is_transformation(p.annotation) for p in required)
    )


def _is_transformation(annotation: Any) -> bool:
    return inspect.isclass(annotation) and issubclass(annotation, optax.GradientTransformation)


def _baselines() -> dict[str, Baseline]:
    return {name: _baseline(name, row.function) for name, row in rows.BASELINES.items()}


def _baseline(name: str, function: str) -> Baseline:
    """The baseline of a row; one of optax's spends what it spends under optax's name."""
    public = function.replace("optax.contrib:", "optax:contrib.")
    if public in optax_optimizers():
        return optax_optimizers()[public]._replace(name=name)
    baseline = Baseline(name, _function(function))
    if name in MORE_THAN_A_GRADIENT:
        evaluations, spending, extra_args = MORE_THAN_A_GRADIENT[name]
        return baseline._replace(evaluations=evaluations, spending=spending, extra_args=extra_args)
    return baseline


def _function(path: str) -> Callable[..., Any]:
    """The function that "module:function" names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


BASELINES: Mapping[str, Baseline] = rows.Derived(_baselines)
