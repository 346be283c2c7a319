"""Runge-Kutta methods as optax gradient transformations, usable in anybody's optax loop.

An optimizer here is a product of four parts, each in a file of its own:

    optimizer = method x preconditioner x step-size rule x momentum

At the parameters theta_n, with g = grad L and one mini-batch for the whole step,

    A_n  = preconditioner(g(theta_n), its state)      frozen for the step      (Eqs. 4, 6, Lemma 3)
    h_n  = step-size rule(n, theta_n, g)              constant, schedule, DALR (Eq. 8)
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
"""

from rkbench.rk.implicit import (
    IMPLICIT,
    ImplicitState,
    crank_nicolson,
    implicit_euler,
    implicit_midpoint,
    rosenbrock_euler,
    sdirk2,
)
from rkbench.rk.method import Advance, Method, Start
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
from rkbench.rk.step_size import STEP_SIZES, Choice, StepSizeRule, dalr, fixed, stateless
from rkbench.rk.tableaus import (
    EULER,
    FAMILIES,
    HEUN,
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

__all__ = [
    "EULER",
    "FAMILIES",
    "HEUN",
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
    "dalr",
    "explicit",
    "fixed",
    "identity",
    "implicit_euler",
    "implicit_midpoint",
    "modified_adagrad",
    "natural",
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
