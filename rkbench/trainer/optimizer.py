"""The optimizer that a config asks for, and its learning rate at every step."""

from typing import Any

import numpy as np

from rkbench import errors, optimizers
from rkbench.optimizers import budget
from rkbench.trainer import schedules


def make_optimizer(
    config,
    learning_rate,
    unroll_stages: bool = False,
    clip_norm: float | None = None,
    stage_clip_norm: float | None = None,
    max_grad_evals: int = 0,
    **instead: Any,
):
    """The optimizer of the config's `optimizer` with the given learning rate (or none).

    It ends within `max_grad_evals` gradient evaluations; 0 for no such end.
    Keywords of the optimizer given here take the place of the config's.
    """
    keywords = config.to_dict() | instead
    name, peak = keywords.pop("name"), keywords.pop("learning_rate")
    optimizer = optimizers.create(
        name,
        None if peak is None else learning_rate,
        unroll_stages=unroll_stages or None,  # None: the core's own choice
        clip_norm=clip_norm,
        stage_clip_norm=stage_clip_norm,
        **keywords,
    )
    return budget.within_budget(optimizer, max_grad_evals) if max_grad_evals else optimizer


def check_optimizer(config, learning_rates: np.ndarray) -> None:
    """Raises a UserError for an unknown optimizer, keyword or value."""
    make_optimizer(config, float(learning_rates.max()))


def learning_rates(config) -> np.ndarray:
    """The learning rate of every step, float32 [total_steps]; 0 where the optimizer has none.

    Raises a UserError for a schedule that cannot work.
    """
    if config.optimizer.learning_rate is None:
        if config.schedule.name != "constant":
            raise errors.UserError(
                f"schedule.name={config.schedule.name!r} has no effect: optimizer "
                f"{config.optimizer.name!r} sets its own step size; valid here: 'constant'"
            )
        return np.zeros(config.total_steps, np.float32)
    return schedules.tabulate(config.schedule, config.optimizer.learning_rate, config.total_steps)
