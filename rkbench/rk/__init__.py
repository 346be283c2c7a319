"""Runge-Kutta methods as optax gradient transformations, usable in anybody's optax loop.

An optimizer here is a product of four parts, each in a file of its own:

    optimizer = method x preconditioner x step-size rule x momentum

At the parameters theta_n, with g = grad L and one mini-batch for the whole step,

    A_n  = preconditioner(g(theta_n), its state)      frozen for the step      (Eqs. 4, 6, Lemma 3)
    h_n  = step-size rule(n, theta_n, g)              constant, schedule, DALR (Eq. 8), ...
    k_i  = A_n g(theta_i)                             the field at stage i
    theta_i = theta_n - h_n sum_{j<i} a_ij k_j        the stages, theta_1 = theta_n  (Eq. 1)
    g*   = sum_i b_i k_i                              the Runge-Kutta gradient       (Eq. 1)
    m_{n+1} = beta m_n + g*                           momentum                       (Eq. 9)
    theta_{n+1} = theta_n - h_n m_{n+1}               the update                     (Eqs. 2, 10)

Equation numbers are those of the paper this package reproduces; see CITATION.cff.

The method is a tableau, a stabilised method (`rkc1`, `rkc2`, `rkl2`), an implicit one
(`implicit_euler`, `sdirk2` and others) or any other one-step method (`Method`); a step-size rule
may keep a state, see the loss and the stages, and reject a step (`StepSizeRule`; `stateless` makes
simple ones).

    optimizer = runge_kutta(RK4, 0.1, preconditioner=adagrad(eps=0.1), momentum=0.9)
    updates, state = optimizer.update(gradient, state, params, grad_fn=grad_fn)

`gradient` is the first stage, k_1 before preconditioning, and is not computed again.
`grad_fn(params)` is the gradient of the *same* loss: same mini-batch, same augmentation, same
dropout key. With another one each stage would follow a different vector field.

Clipping, weight decay and an L2 penalty are arguments of `runge_kutta`: before it in `optax.chain`
they would change the first stage only, after it they would act on -h m.

Names are imported when they are first used, so that tableaus can be read without JAX, as configs
and `rkbench list` do.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rkbench.rk.error_control import error_control
    from rkbench.rk.implicit import (
        IMPLICIT,
        ImplicitState,
        crank_nicolson,
        implicit_euler,
        implicit_midpoint,
        rosenbrock_euler,
        sdirk2,
    )
    from rkbench.rk.loss_rules import ngn, polyak
    from rkbench.rk.method import Advance, Choice, Method, Start, StepSizeRule, stateless
    from rkbench.rk.preconditioners import (
        PRECONDITIONERS,
        Preconditioner,
        adagrad,
        adam,
        identity,
        modified_adagrad,
        natural,
        rmsprop,
    )
    from rkbench.rk.rk_gradient import explicit, rk_gradient
    from rkbench.rk.runge_kutta import RungeKuttaState, runge_kutta
    from rkbench.rk.stabilized import STABILIZED, Recurrence, rkc1, rkc2, rkl2, stabilized
    from rkbench.rk.step_size import STEP_SIZES, dal, dalr, fixed
    from rkbench.rk.tableaus import (
        BS32,
        DOPRI5,
        EULER,
        FAMILIES,
        HEUN,
        HEUN_EULER,
        KUTTA3,
        MIDPOINT,
        RALSTON,
        RK4,
        RK4_38,
        SSPRK3,
        TABLEAUS,
        Tableau,
        rk2,
    )

# Where the names below are made; those that need no JAX come first.
_MODULES = ("tableaus", "method", "preconditioners", "stabilized", "step_size", "error_control")
_MODULES += ("loss_rules", "rk_gradient", "implicit", "runge_kutta")

__all__ = [
    "BS32",
    "DOPRI5",
    "EULER",
    "FAMILIES",
    "HEUN",
    "HEUN_EULER",
    "IMPLICIT",
    "KUTTA3",
    "MIDPOINT",
    "PRECONDITIONERS",
    "RALSTON",
    "RK4",
    "RK4_38",
    "SSPRK3",
    "STABILIZED",
    "STEP_SIZES",
    "TABLEAUS",
    "Advance",
    "Choice",
    "ImplicitState",
    "Method",
    "Preconditioner",
    "Recurrence",
    "RungeKuttaState",
    "Start",
    "StepSizeRule",
    "Tableau",
    "adagrad",
    "adam",
    "crank_nicolson",
    "dal",
    "dalr",
    "error_control",
    "explicit",
    "fixed",
    "identity",
    "implicit_euler",
    "implicit_midpoint",
    "modified_adagrad",
    "natural",
    "ngn",
    "polyak",
    "rk2",
    "rk_gradient",
    "rkc1",
    "rkc2",
    "rkl2",
    "rmsprop",
    "rosenbrock_euler",
    "runge_kutta",
    "sdirk2",
    "stabilized",
    "stateless",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in _MODULES:
            found = importlib.import_module(f"{__name__}.{module}")
            if hasattr(found, name):
                globals()[name] = getattr(found, name)
                return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """A function keeps its name although a module has it too: `runge_kutta` is the function."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
