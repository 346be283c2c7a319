"""`rkbench.rk` imports its names when they are used: all are there, and stay what they are."""

import importlib
import inspect
import subprocess
import sys

from rkbench import rk


def test_every_public_name_is_there():
    for name in rk.__all__:
        assert getattr(rk, name) is not None
    assert set(rk.__all__) <= set(dir(rk))


def test_a_function_is_not_hidden_by_the_module_of_its_name():
    for name in ("runge_kutta", "rk_gradient", "stabilized"):
        importlib.import_module(f"rkbench.rk.{name}")
        assert inspect.isfunction(getattr(rk, name))


def test_module_first_and_tableaus_without_jax():
    program = (
        "import sys; from rkbench.rk import RK4, TABLEAUS, Tableau; "
        "print({'jax', 'numpy'} & set(sys.modules)); "
        "from rkbench.rk.runge_kutta import RungeKuttaState; "
        "from rkbench.rk import runge_kutta; print(callable(runge_kutta))"
    )
    printed = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert printed.split() == ["set()", "True"]
