"""The learning rate, over five decades for every optimizer.

For comparing Runge-Kutta methods with baselines on the MLPs, with raw pixels or inputs in [0, 1]. A
grid of 15 has 0.36 decades between neighbours: a factor of 2.3.

- Adam and its relatives divide the gradient by its own size: around 0.001.
- Gradient descent and Runge-Kutta methods: 0.003 in the paper with raw pixels, 0.1 to 1 without.
- With momentum m a step is in effect 1 / (1 - m) times as long: ten times lower.
- DALR has no learning rate: its cap c takes that place, and the curvature shortens large ones.
"""

from configs.sweeps.distributions import LogUniform


def get_config():
    """The space of each optimizer."""
    adam = {"optimizer.learning_rate": LogUniform(1e-6, 1e-1)}
    gradient = {"optimizer.learning_rate": LogUniform(1e-4, 1e1)}
    momentum = {"optimizer.learning_rate": LogUniform(1e-5, 1e0)}
    return {
        "adam": adam,
        "adamw": adam,
        "nadamw": adam,
        "momentum": momentum,
        "rk4_momentum": momentum,
        "rk4_dalr": {"optimizer.c": LogUniform(1e-2, 1e3)},
        "*": gradient,
    }
