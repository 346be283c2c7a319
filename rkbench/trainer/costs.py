"""`rkbench costs [--output=FILE]`: parameters and FLOPs of every workload, without its data.

The FLOPs are XLA's own count (`Lowered.cost_analysis`) of one gradient with XLA's convolution,
before any optimization: a product of matrices [m, k] and [k, n] counts as 2 m k n. A step takes
(gradient evaluations of the optimizer) x (batch size) of them; what the optimizer adds, a few
operations a parameter, is left out.
"""

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

from rkbench import errors
from rkbench.drawing import tables

EXAMPLES = 8  # of the gradient that is counted


class Cost(NamedTuple):
    """What one workload costs."""

    parameters: int
    flops: float  # of the gradient at one example


class StepCost(NamedTuple):
    """What one step of a preset costs."""

    optimizer: str
    batch_size: int
    grad_evals: int  # a step
    flops: float  # a step
    steps: int


def of_workload(config: Any) -> Cost:
    """Counts the gradient of a config's workload; `config` is changed nowhere but in convolution.

    Only shapes are computed, so a full-size model takes a second or two.
    """
    import jax
    import jax.numpy as jnp

    from rkbench.step.gradients import Objective
    from rkbench.trainer.experiment import Experiment

    config = config.copy_and_resolve_references()
    if "convolution" in config.model:
        config.model.convolution = "xla"
    config.update({"batch_size": EXAMPLES, "physical_batch_size": 0})
    config.mesh.update({"seed": 1, "data": 1, "fsdp": 1})
    workload = Experiment.with_synthetic_data(config, EXAMPLES).workload
    params, model_state = jax.eval_shape(workload.init, jax.random.key(0))

    def gradient(params, model_state, data, key):
        indices = jnp.arange(EXAMPLES, dtype=jnp.int32)
        return Objective(workload, data, indices, model_state, key, 0).value_and_gradient(params)

    lowered = jax.jit(gradient).lower(params, model_state, workload.train, jax.random.key(0))
    analysis = lowered.cost_analysis()
    assert analysis is not None, "XLA counts the operations of every backend"
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    return Cost(count, analysis["flops"] / EXAMPLES)


def grad_evals_of_step(config: Any) -> int:
    """The gradients that one step of a config's optimizer spends, by its own count."""
    from rkbench import optimizers

    init, step = _toy(config)
    return int(optimizers.grad_evals(step(init())))


def steps_within(config: Any, grad_evals: int) -> int:
    """The most steps of a config's optimizer that spend no more than `grad_evals`.

    Not for an optimizer whose steps cost what the loss demands.
    """
    import jax
    import numpy as np

    from rkbench import optimizers
    from rkbench.optimizers.baselines import Spending

    name, tableau = config.optimizer.name, config.optimizer.get("tableau")
    if optimizers.spending(name, tableau) is Spending.FIXED:
        return grad_evals // grad_evals_of_step(config)
    init, step = _toy(config)

    def counted(state, _):
        state = step(state)
        return state, optimizers.grad_evals(state)

    # Every step costs one at least: no more than so many can fit.
    _, spent = jax.jit(lambda: jax.lax.scan(counted, init(), length=grad_evals))()
    return int(np.searchsorted(np.asarray(spent), grad_evals, side="right"))


def _toy(config: Any) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    """The first state of a config's optimizer, and its step, on a loss of one parameter."""
    import jax
    import jax.numpy as jnp

    from rkbench.trainer.optimizer import make_optimizer

    optimizer = make_optimizer(config.optimizer, 0.1)
    params = {"w": jnp.ones(1)}

    def loss(params):
        return (params["w"] ** 2).sum()

    gradient = jax.grad(loss)

    def step(state):
        return optimizer.update(
            gradient(params),
            state,
            params,
            grad_fn=gradient,
            value=loss(params),
            grad=gradient(params),
            value_fn=loss,
        )[1]

    return lambda: optimizer.init(params), step


def of_step(config: Any, cost: Cost) -> StepCost:
    """What one step of `config` costs, whose workload costs `cost`."""
    evals = grad_evals_of_step(config)
    return StepCost(
        config.optimizer.name,
        config.batch_size,
        evals,
        evals * config.batch_size * cost.flops,
        config.total_steps,
    )


def table() -> str:
    """A Markdown table: the baseline and RK4 of every workload."""
    from rkbench import workloads

    header = ("workload", "parameters", "GFLOP of a gradient at one example", "optimizer", "batch")
    rows: list[tables.Row] = [
        (*header, "gradients a step", "GFLOP a step", "steps", "PFLOP in all")
    ]
    for name in workloads.own_names():
        get_config = importlib.import_module(f"rkbench.configs.{name}").get_config
        cost = of_workload(get_config())
        for config in (get_config(), get_config("rk4")):
            step = of_step(config, cost)
            cells = (
                f"`{name}`",
                f"{cost.parameters:,}",
                _number(cost.flops / 1e9),
                f"`{step.optimizer}`",
                f"{step.batch_size:,}",
                str(step.grad_evals),
                _number(step.flops / 1e9),
                f"{step.steps:,}",
                _number(step.flops * step.steps / 1e15),
            )
            rows.append(cells)
    return tables.markdown(rows, right=(1, 2, 4, 5, 6, 7, 8)).rstrip("\n")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


MARKS = ("<!-- rkbench costs -->", "<!-- end -->")


def with_table(document: str, table: str) -> str:
    """The document with what is between its `MARKS` replaced; UserError where they are missing."""
    before, found, rest = document.partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    if not (found and end):
        raise errors.UserError(f"it has no {MARKS[0]} followed by {MARKS[1]}")
    return f"{before}{MARKS[0]}\n{table}\n{MARKS[1]}{after}"
