"""flax's `TrainState` for optimizers that need more than a gradient; imports flax."""

from typing import Any

from flax.training import train_state

from rkbench.optimizers.combine import bind

EXTRA_ARGS = ("grad_fn", "value", "grad", "value_fn")  # of `update`, see rkbench.optimizers.create


class TrainState(train_state.TrainState):
    """`flax.training.train_state.TrainState` that passes on what the optimizer's `update` needs."""

    def apply_gradients(self, *, grads: Any, **kwargs: Any) -> "TrainState":
        """One step.

        Args:
          grads: the gradient at `self.params`, the first stage.
          **kwargs: `grad_fn`, `value`, `grad` and `value_fn` go to the optimizer's `update`; all
            others are fields to replace, as in flax: `apply_gradients(grads=grads,
            grad_fn=grad_fn, batch_stats=batch_stats)`.
        """
        extra_args = {key: kwargs.pop(key) for key in EXTRA_ARGS if key in kwargs}
        # flax's own method does the rest; the optimizer that is kept is the unbound one.
        bound = self.replace(tx=bind(self.tx, **extra_args))
        return super(TrainState, bound).apply_gradients(grads=grads, **kwargs).replace(tx=self.tx)
