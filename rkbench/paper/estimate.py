"""What runs will cost on this machine: gradient evaluations, time and memory, without the data.

A few steps of each workload at a small batch are timed; time and the memory of activations grow in
proportion to the examples, and a step of an optimizer takes its gradients. The estimate is within a
factor of two. Gradient evaluations are counted, exactly and without any timing.
"""

import dataclasses
import functools
import time
from typing import Any

import jax

from rkbench import workloads
from rkbench.paper.plan import Job
from rkbench.trainer import costs
from rkbench.trainer.experiment import Experiment
from rkbench.workloads import datasets

_EVALUATION = 1 / 3  # of the time of a gradient, an example
_CALIBRATION_FLOPS = 4e9  # of the gradient that is timed, about


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of a job with all its missing seeds; None where no step was timed."""

    grad_evals: int
    hours: float | None = None
    gigabytes: float | None = None


@dataclasses.dataclass(frozen=True)
class _Speed:
    """What one example costs on this machine."""

    seconds: float  # of its gradient
    bytes: float  # of its activations
    parameters: int


def estimate(job: Job, timed: bool = True) -> Cost:
    """The cost of a job; if `timed`, the first of each model takes some seconds to calibrate."""
    if not job.missing:
        return Cost(0, 0.0, 0.0)
    config = job.config()
    evals, seeds = costs.grad_evals_of_step(config), len(job.missing)
    grad_evals = evals * config.total_steps * seeds
    if not timed:
        return Cost(grad_evals)
    seconds, memory = _one_seed(config, evals)
    return Cost(grad_evals, seconds * seeds / 3600, memory / 1e9)


def _one_seed(config: Any, evals: int) -> tuple[float, float]:
    """Seconds and bytes of one seed, whose step takes `evals` gradients."""
    dataset = datasets.published(workloads.dataset_name(config.workload))
    train = (config.train_examples or dataset[0]) - config.validation_examples
    batch = train if config.batch_size == "full" else config.batch_size
    speed = _calibrated(config.workload, _frozen(config.model.to_dict()))
    seconds = evals * batch * speed.seconds * config.total_steps
    if config.eval_every_steps:
        evaluations = config.total_steps // config.eval_every_steps + 1
        examples = min(config.train_eval_size, train) + config.validation_examples
        examples += dataset[1] if config.eval_test else 0
        seconds += evaluations * examples * speed.seconds * _EVALUATION
    held = min(batch, config.physical_batch_size or batch)
    # Parameters, gradient, and about four more of their size for the optimizer and the stages.
    return seconds, 6 * 4 * speed.parameters + held * speed.bytes


def _frozen(model: dict[str, Any]) -> tuple:
    return tuple(sorted(model.items()))


@functools.cache
def _calibrated(workload: str, model: tuple) -> _Speed:
    """Two steps of SGD at a batch small enough to be quick."""
    import importlib

    config = importlib.import_module(f"rkbench.configs.{workload}").get_config("sgd")
    config.model.update(dict(model))
    cost = costs.of_workload(config)
    batch = int(min(256, max(2, _CALIBRATION_FLOPS / cost.flops)))
    config.update({"batch_size": batch, "physical_batch_size": 0, "total_steps": 3})
    config.schedule.update({"name": "constant", "warmup_steps": 0})
    program = Experiment.with_synthetic_data(config, batch + 1).program
    state = program.init((0,))
    memory: Any = program.compile(state, (0,)).memory_analysis()
    state, metrics = program.advance(state, (0,), 0, 1)
    jax.block_until_ready((state, metrics))
    begin = time.perf_counter()
    jax.block_until_ready(program.advance(state, (0,), 1, 2))
    seconds = (time.perf_counter() - begin) / 2
    return _Speed(seconds / batch, memory.temp_size_in_bytes / batch, cost.parameters)
