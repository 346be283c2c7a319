"""Learning-rate schedules, tabulated: one float32 a step, which the compiled step reads as data.

A table means that a new learning rate or schedule is a new argument, not a new compilation.

With peak p, end_factor f, W = warmup_steps and N = total_steps, step n = 0, ..., N - 1 has

    "constant":       p
    "cosine":         p (f + (1 - f) (1 + cos(pi n / N)) / 2)
    "warmup_cosine":  p n / W for n < W, then p (f + (1 - f) (1 + cos(pi (n - W) / (N - W))) / 2)

So a cosine reaches f p only at step N, one after the last; the last step's rate is a little higher.
The first step of a warm-up has the rate 0 and changes no parameter.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import optax

from rkbench import errors


def _constant(peak: float, total_steps: int, warmup_steps: int, end_factor: float):
    del total_steps, warmup_steps, end_factor
    return optax.constant_schedule(peak)


def _cosine(peak: float, total_steps: int, warmup_steps: int, end_factor: float):
    del warmup_steps
    return optax.cosine_decay_schedule(peak, total_steps, alpha=end_factor)


def _warmup_cosine(peak: float, total_steps: int, warmup_steps: int, end_factor: float):
    return optax.warmup_cosine_decay_schedule(
        0.0, peak, warmup_steps, total_steps, end_value=end_factor * peak
    )


_SCHEDULES: dict[str, Callable[[float, int, int, float], optax.Schedule]] = {
    "constant": _constant,
    "cosine": _cosine,
    "warmup_cosine": _warmup_cosine,
}


def names() -> tuple[str, ...]:
    """The names that `config.schedule.name` can take."""
    return tuple(_SCHEDULES)


def tabulate(schedule, learning_rate: float, total_steps: int) -> np.ndarray:
    """The learning rate of every step: float32 [total_steps].

    Args:
      schedule: the config's `schedule`: `name`, `warmup_steps` and `end_factor`, see above;
        "cosine" ignores the warm-up, "constant" both.
      learning_rate: the peak.
      total_steps: steps of the run.

    Raises:
      UserError: an unknown name, a warm-up that is not shorter than the run, or a rate that is
        not finite.
    """
    if schedule.name not in _SCHEDULES:
        raise errors.unknown("schedule", schedule.name, _SCHEDULES)
    if schedule.name == "warmup_cosine" and not 0 <= schedule.warmup_steps < total_steps:
        raise errors.UserError(
            f"schedule.warmup_steps={schedule.warmup_steps} must be at least 0 and less than "
            f"total_steps={total_steps}"
        )
    function = _SCHEDULES[schedule.name](
        learning_rate, total_steps, schedule.warmup_steps, schedule.end_factor
    )
    with np.errstate(over="ignore"):
        table = np.asarray(function(jnp.arange(total_steps)), np.float32)
    if not np.isfinite(table).all():
        raise errors.UserError(
            f"schedule.end_factor={schedule.end_factor} times optimizer.learning_rate="
            f"{learning_rate} is more than float32 can hold"
        )
    return np.broadcast_to(table, (total_steps,))
