"""rkbench: Runge-Kutta methods as deep-learning optimizers, benchmarked in JAX.

Data flows one way: config -> workload + optimizer -> trainer -> records -> table and figures.
"""

__version__ = "0.1.0"
