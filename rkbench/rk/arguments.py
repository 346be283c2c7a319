"""What users pass to `runge_kutta` and its `update`, checked while tracing: free at run time."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from rkbench.rk.checks import Range, check_number
from rkbench.rk.method import GradFn, Method
from rkbench.rk.preconditioners import Preconditioner
from rkbench.rk.stabilized import Recurrence
from rkbench.rk.step_size import STEP_SIZES
from rkbench.rk.tableaus import Tableau
from rkbench.rk.vector_space import Vector

BY_NAME = "rkbench.optimizers.create takes names"
OF_PART = (
    " for the part of the parameters that optax.masked or optax.partition shows; give "
    "grad_fn=rkbench.optimizers.masked_grad_fn(grad_fn, params)"
)


def check_parts(method: Any, learning_rate: Any, preconditioner: Any) -> None:
    """Raises `TypeError` for a part that is a name, or a factory that was not called."""
    _check_part("method", method, (Tableau, Recurrence, Method), "such as RK4 or rk2(0.5)")
    if preconditioner is not None:
        _check_part("preconditioner", preconditioner, Preconditioner, "such as adagrad(eps=0.1)")
    if learning_rate is None or isinstance(learning_rate, str):
        raise TypeError(
            "learning_rate must be a number, a schedule or a step-size rule such as dalr(c=1.0), "
            f"not {learning_rate!r}; {BY_NAME}"
        )
    if callable(learning_rate) and learning_rate in STEP_SIZES.values():
        raise TypeError(f"learning_rate: call the factory: {learning_rate.__name__}(...)")


def _check_part(name: str, part: Any, kinds: Any, example: str) -> None:
    if isinstance(part, kinds):
        return
    called = getattr(part, "__name__", None) if callable(part) else None
    remedy = f"call it: {called}(...)" if called else BY_NAME
    raise TypeError(f"{name} must be an object {example}, not {part!r}; {remedy}")


def as_vector(name: str, what: str, tree: Any) -> Vector:
    """`tree` with JAX arrays as its leaves; Python floats and NumPy arrays may be given too.

    Raises:
      TypeError: a leaf is no floating-point or complex array: it has no gradient.
    """

    def array(path: Any, leaf: Any) -> Any:
        dtype = getattr(leaf, "dtype", None) or jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.inexact):
            place = jax.tree_util.keystr(path) or "the only leaf"
            raise TypeError(
                f"optimizer {name!r}: {what}: {place} is {dtype}, which has no gradient; keep such "
                "leaves out of the parameters that are differentiated"
            )
        # As optax's, states can be made of shapes alone.
        return leaf if isinstance(leaf, jax.ShapeDtypeStruct) else jnp.asarray(leaf)

    return jax.tree_util.tree_map_with_path(array, tree)


def check_gradient(name: str, what: str, gradient: Any, params: Vector) -> None:
    """Raises `TypeError` unless `gradient` has the structure and shapes of `params`.

    Otherwise a loss, say, would be broadcast over the parameters and train something.
    """
    if _is_like(gradient, params):
        return
    raise TypeError(
        f"optimizer {name!r}: {what} must be the gradient alone, with the structure and shapes of "
        f"the parameters, {_shapes(params)}, not {_shapes(gradient)}{_remedy(gradient, params)}"
    )


def _is_like(x: Any, params: Vector) -> bool:
    """Whether `x` has the structure and shapes of `params`."""
    return jax.tree.structure(x) == jax.tree.structure(params) and all(
        jnp.shape(leaf) == jnp.shape(p)
        for leaf, p in zip(jax.tree.leaves(x), jax.tree.leaves(params), strict=True)
    )


def _is_part(params: Vector) -> bool:
    """Whether `optax.masked` or `optax.partition` shows a part of the parameters only."""
    is_masked = lambda node: isinstance(node, optax.MaskedNode)  # noqa: E731
    return any(map(is_masked, jax.tree.leaves(params, is_leaf=is_masked)))


def _remedy(found: Any, params: Vector) -> str:
    if _is_part(params):
        return OF_PART
    if isinstance(found, tuple):
        for i, part in enumerate(found):
            if _is_like(part, params):
                return f"; pass lambda params: f(params)[{i}] in place of f"
    if len(jax.tree.leaves(found)) == 1 and jnp.ndim(jax.tree.leaves(found)[0]) == 0:
        return "; if that is the loss, pass jax.grad(loss)"
    return ""


def _shapes(tree: Any) -> str:
    text = str(jax.tree.map(lambda x: f"{jnp.result_type(x)}{[*jnp.shape(x)]}", tree))
    text = text.replace("'", "")
    return text if len(text) <= 200 else f"{text[:200]}..."


def checked_grad_fn(name: str, grad_fn: Any, params: Vector) -> GradFn:
    """`grad_fn` with its result checked; without one, a function that says so when called."""
    if grad_fn is None:

        def checked(theta: Vector) -> Vector:
            del theta
            raise TypeError(
                f"optimizer {name!r}: update() needs the keyword grad_fn, a function from "
                "parameters to the gradient of the same loss on the same batch, because "
                "Runge-Kutta stages are gradients at further points. (flax's TrainState and "
                "optax.lookahead do not pass it on: see rkbench.optimizers.TrainState and "
                "rkbench.optimizers.bind)"
            )

        return checked
    if not callable(grad_fn):
        raise TypeError(f"optimizer {name!r}: grad_fn must be a function, not {grad_fn!r}")

    def checked(theta: Vector) -> Vector:
        try:
            gradient = grad_fn(theta)
        except Exception as error:
            if not _is_part(params):
                raise
            raise TypeError(f"optimizer {name!r}: grad_fn fails{OF_PART}") from error
        check_gradient(name, "what grad_fn returns", gradient, params)
        return as_vector(name, "what grad_fn returns", gradient)

    return checked


def is_absent(number: Any) -> bool:
    """Whether a part is left out: None or a Python zero.

    An array or a schedule never is: its value may change, and must not decide what a state holds.
    """
    return number is None or (isinstance(number, (int, float)) and number == 0)


def at(number: Any, count: jax.Array) -> Any:
    """A number, or a schedule's at `count`."""
    return number(count) if callable(number) else number


def check_optional(name: str, number: Any, valid: Range) -> None:
    """Raises `UserError` for a number out of range; a schedule has no value yet."""
    if not (is_absent(number) or callable(number)):
        check_number(name, number, valid)
