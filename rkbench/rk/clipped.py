"""Clipping as a part of the field: the gradient of every stage is shortened before the rest."""

from typing import Any

import optax

from rkbench.rk.checks import POSITIVE, check_number
from rkbench.rk.preconditioners import Preconditioner


def clipped(preconditioner: Preconditioner, max_norm: float | None) -> Preconditioner:
    """The field A_n c(g) with c(g) = g min(1, max_norm / ||g||), at every stage with its own g.

    A_n is made of clipped gradients too. A step-size rule still takes the loss's own gradient.

    Args:
      preconditioner: A_n.
      max_norm: the largest norm of a stage's gradient, over all parameters; None does not clip.

    Raises:
      UserError: a `max_norm` that is not positive and finite.
    """
    if max_norm is None:
        return preconditioner
    check_number("stage_clip_norm", max_norm, POSITIVE)
    clipping = optax.clip_by_global_norm(max_norm)

    def clip(gradient: Any) -> Any:
        return clipping.update(gradient, optax.EmptyState())[0]

    def update(gradient: Any, state: Any) -> tuple[Any, Any]:
        precondition, state = preconditioner.update(clip(gradient), state)
        return lambda g: precondition(clip(g)), state

    return preconditioner._replace(update=update, self_adjoint=False)
