"""The learning rate, over five decades for every optimizer.

For comparing Runge-Kutta methods with baselines on the MLPs at batch 128. A grid of 15 has 0.36
decades between neighbours: a factor of 2.3.

The ranges are laid around the best of a grid over seven decades on MNIST with raw pixels, a smaller
MLP and 1,200 gradient evaluations: 0.001 for gradient descent, momentum, Adam and RK4 with
momentum, 0.003 for Heun and RK4, 0.01 for RK4 with modified AdaGrad. With inputs in [0, 1] all but
Adam want larger ones. DALR has no learning rate: its cap c takes that place, and was best at 0.01.
"""

from rkbench.configs.sweeps.distributions import LogUniform


def get_config():
    """The space of each optimizer."""
    adam = {"optimizer.learning_rate": LogUniform(1e-6, 1e-1)}
    return {
        "adam": adam,
        "adamw": adam,
        "nadamw": adam,
        "rk4_dalr": {"optimizer.c": LogUniform(1e-4, 1e1)},
        "*": {"optimizer.learning_rate": LogUniform(1e-5, 1e0)},
    }
