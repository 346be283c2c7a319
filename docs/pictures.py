"""Draws the pictures of the pages on concepts, with rkbench's own optimizers and tableaus.

    python docs/pictures.py FOLDER [NAME ...]

The site's build draws all of them into `_pictures/`. One is committed, for pages that are read
without a build: `python docs/pictures.py docs/_static flow`. Pictures are as wide as the text, so
that a point in them is a point on the page.
"""

import pathlib
import sys
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, PercentFormatter

from rkbench import optimizers
from rkbench.drawing.plotting import COLOURS
from rkbench.records import AXES, Run
from rkbench.rk import EULER, HEUN, KUTTA3, RK4, Tableau
from rkbench.statistics import band

RESULTS = pathlib.Path(__file__).parent.parent / "results"
WIDTH = 7.36  # inches, of 100 pixels on the page
DOTS = 200  # an inch: twice as many, for screens with small pixels
FLOW = "#777777"
WINDOW = np.full(25, 1 / 25)  # evaluations that are averaged where a curve has a thousand

METHODS: dict[str, tuple[Tableau, str]] = {
    "Euler": (EULER, COLOURS[0]),
    "Heun": (HEUN, COLOURS[2]),
    "Kutta's third-order method": (KUTTA3, COLOURS[3]),
    "RK4": (RK4, COLOURS[1]),
}
"""Name, tableau and colour of each method, the same in all pictures."""

START = (-1.9, 1.0)


def loss(theta: jax.Array) -> jax.Array:
    """A curved valley with steep walls; theta is float [2], the minimum at (1, 0.5)."""
    x, y = theta
    return 0.5 * jnp.square(1 - x) + 2.0 * jnp.square(y - 0.5 * jnp.square(x))


def path(tableau: Tableau, step_size: float, steps: int) -> np.ndarray:
    """Where the optimizer stands: float [steps + 1, 2]."""
    optimizer = optimizers.create(tableau, step_size)
    grad_fn = jax.grad(loss)

    def step(carry, _):
        theta, state = carry
        updates, state = optimizer.update(grad_fn(theta), state, theta, grad_fn=grad_fn)
        theta = jnp.asarray(optax.apply_updates(theta, updates))
        return (theta, state), theta

    start = jnp.asarray(START, dtype=float)
    _, points = jax.lax.scan(step, (start, optimizer.init(start)), None, length=steps)
    return np.concatenate([np.asarray([START]), np.asarray(points)])


def flow(time: float) -> np.ndarray:
    """The gradient flow from the start for so long, by RK4 with steps of 0.002."""
    return path(RK4, 0.002, round(time / 0.002))


def surface(axes: Any, left: float, right: float, bottom: float, top: float) -> None:
    """Contours of the loss, and its minimum as a star where it is in sight."""
    x, y = np.meshgrid(np.linspace(left, right, 200), np.linspace(bottom, top, 200))
    values = jax.vmap(jax.vmap(loss))(jnp.stack([x, y], axis=-1))
    levels = np.geomspace(0.02, 30, 14)
    axes.contour(x, y, values, levels=levels, colors="#c9d3dd", linewidths=0.7)
    if left < 1 < right:
        axes.plot(1, 0.5, "*", color="black", markersize=9, label="minimum")
    axes.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
    axes.set_xlabel(r"$\theta_1$")
    axes.set_ylabel(r"$\theta_2$")


def draw_flow(file: pathlib.Path) -> None:
    """The flow, Euler and RK4: at the same step size, and at the same gradient evaluations."""
    canvas, (left, right) = _canvas(1, 2, height=3.4)
    h, steps = 0.14, 24
    both = (
        (left, f"the same step size: h = {h}", h, steps),
        (right, "the same gradient evaluations: Euler takes h / 4", h / 4, 4 * steps),
    )
    for axes, title, euler_step, euler_steps in both:
        surface(axes, -2.35, 1.4, -0.35, 2.6)
        _line(axes, flow(h * steps), FLOW, "gradient flow", linewidth=5, alpha=0.45)
        _line(axes, path(EULER, euler_step, euler_steps), METHODS["Euler"][1], "Euler", marker="o")
        _line(axes, path(RK4, h, steps), METHODS["RK4"][1], "RK4", marker="s")
        axes.set_title(title, fontsize=9)
    _legend(canvas, left, columns=4)
    canvas.savefig(file)


def draw_stages(file: pathlib.Path) -> None:
    """One step of RK4, with the point of each stage and the gradient there."""
    canvas, (axes,) = _canvas(1, 1, height=2.9)
    h, grad_fn = 0.08, jax.grad(loss)
    theta = np.asarray(START)
    surface(axes, -2.0, -1.05, 0.9, 1.4)
    axes.set_aspect("auto")
    _line(axes, flow(h), FLOW, "gradient flow for the time h", linewidth=5, alpha=0.45)
    slopes: list[np.ndarray] = []
    for i, row in enumerate(RK4.a):
        terms = (a * k for a, k in zip(row, slopes, strict=False))
        point = theta - h * sum(terms, start=np.zeros(2))
        slopes.append(np.asarray(grad_fn(jnp.asarray(point, dtype=float))))
        look = {"arrowstyle": "-|>", "color": "black", "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", point - 0.03 * slopes[-1], point, arrowprops=look)
        label = "stage: a gradient is taken here" if i == 0 else None
        axes.plot(*point, "o", color="black", markersize=5, label=label)
        below = (-3, -14 if i == 2 else 7)  # the third lies close to the flow
        axes.annotate(f"{i + 1}", point, below, textcoords="offset points")
    for name, marker in (("RK4", "s"), ("Euler", "D")):
        tableau, colour = METHODS[name]
        end = path(tableau, h, 1)[-1]
        axes.plot(*end, marker, color=colour, markersize=7, label=f"end of the step of {name}")
    _legend(canvas, axes, columns=1, loc="outside right center")
    canvas.savefig(file)


def draw_order(file: pathlib.Path) -> None:
    """The distance from the flow after a fixed time, against step size and against price."""
    canvas, (left, right) = _canvas(1, 2, height=3.0)
    time, counts = 0.25, (4, 8, 16, 32, 64)
    with jax.enable_x64(True):
        exact = path(RK4, time / 4096, 4096)[-1]
        for name, (tableau, colour) in METHODS.items():
            ends = [path(tableau, time / steps, steps)[-1] for steps in counts]
            errors = [np.linalg.norm(end - exact) for end in ends]
            label = f"{name}: order {tableau.order}"
            left.loglog([time / steps for steps in counts], errors, "o-", color=colour, label=label)
            right.loglog([steps * tableau.stages for steps in counts], errors, "o-", color=colour)
    left.set(xlabel="step size h", ylabel="distance from the gradient flow")
    right.set(xlabel="gradient evaluations")
    for axes in (left, right):
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
    _legend(canvas, left, columns=2)
    canvas.savefig(file)


def interval(tableau: Tableau) -> float:
    """The largest h lambda up to which a step does not lengthen an error: |R(-h lambda)| <= 1."""
    growth = np.polynomial.Polynomial(tableau.stability_polynomial)
    crossings = np.concatenate([(growth - 1).roots(), (growth + 1).roots()])
    real = -crossings[np.abs(crossings.imag) < 1e-9].real
    return float(min(real[real > 1e-9]))


def draw_stability(file: pathlib.Path) -> None:
    """What a step does to an error, by step size times curvature."""
    canvas, (axes,) = _canvas(1, 1, height=3.3)
    z = np.linspace(0, 3.2, 400)
    axes.plot(z, np.exp(-z), color=FLOW, linewidth=5, alpha=0.45, label="gradient flow")
    axes.axhspan(-1, 1, color="#eef3ea", zorder=0)
    for name, (tableau, colour) in METHODS.items():
        end = interval(tableau)
        growth = np.polynomial.Polynomial(tableau.stability_polynomial)
        axes.plot(z, growth(-z), color=colour, label=f"{name}: up to {end:.2f}")
        axes.plot(end, growth(-end), "o", color=colour, markersize=5)
    axes.set(xlim=(0, 3.2), ylim=(-1.6, 1.6))
    axes.set_xlabel("step size times curvature, $h \\lambda$")
    axes.set_ylabel("factor on the error in one step")
    axes.text(3.17, -0.95, "stable", ha="right", va="bottom", color="#4b6b3a")
    _legend(canvas, axes, columns=3)
    canvas.savefig(file)


def draw_regions(file: pathlib.Path) -> None:
    """The stability regions in the complex plane, and the interval that a gradient pays for."""
    canvas, (left, right) = _canvas(1, 2, height=2.9, width_ratios=(1, 1.5))
    x, y = np.meshgrid(np.linspace(-3.4, 0.8, 300), np.linspace(-3.2, 3.2, 300))
    for row, (tableau, colour) in enumerate(METHODS.values()):
        growth = np.polynomial.Polynomial(tableau.stability_polynomial)
        left.contour(x, y, np.abs(growth(x + 1j * y)), levels=[1.0], colors=[colour])
        share = interval(tableau) / tableau.stages
        right.barh(row, share, color=colour, height=0.6)
        right.text(share + 0.04, row, f"{share:.2f}", va="center")
    left.axhline(0, color="#999999", linewidth=0.6)
    left.axvline(0, color="#999999", linewidth=0.6)
    left.set(aspect="equal", xlabel=r"real part of $-h \lambda$", ylabel="imaginary part")
    names = [name.replace("'s third-order", "'s\nthird-order") for name in METHODS]
    right.set_yticks(range(len(METHODS)), names)
    right.invert_yaxis()
    right.set(xlim=(0, 2.4), xlabel="length of the interval for each gradient")
    canvas.savefig(file)


def draw_stiffness(file: pathlib.Path) -> None:
    """A quadratic with curvatures 1 and 50: the loss by steps, at two step sizes and methods."""
    canvas, (axes,) = _canvas(1, 1, height=3.0)
    curvature, steps = np.array([1.0, 50.0]), 80
    start = np.array([1.0, 0.2])
    lines = (
        ("Euler", 0.038, "-"),
        ("Euler", 0.0405, ":"),
        ("RK4", 0.038, "-"),
        ("RK4", 0.0562, ":"),
    )
    for name, h, dashes in lines:
        tableau, colour = METHODS[name]
        growth = np.polynomial.Polynomial(tableau.stability_polynomial)
        points = start * growth(-h * curvature) ** np.arange(steps + 1)[:, None]
        values = 0.5 * (curvature * points**2).sum(axis=1)
        end = interval(tableau) / curvature.max()
        label = f"{name}, h = {h:g}, {'below' if h < end else 'above'} the limit of {end:.4f}"
        axes.semilogy(values, dashes, color=colour, label=label)
    axes.set(xlim=(0, steps), ylim=(1e-3, 30), xlabel="steps", ylabel="loss")
    _legend(canvas, axes, columns=2)
    canvas.savefig(file)


def draw_dalr(file: pathlib.Path) -> None:
    """The step size of DALR by curvature along the gradient."""
    canvas, (axes,) = _canvas(1, 1, height=2.9)
    curvature = jnp.geomspace(0.03, 300, 200)
    for c, colour in ((0.25, COLOURS[0]), (1.0, COLOURS[1]), (4.0, COLOURS[2])):
        # a quadratic in one dimension: ||H g|| / ||g|| is its curvature
        rule = optimizers.create("rk4_dalr", c=c, p=0.8)
        sizes = jax.vmap(lambda k, rule=rule: _step_size(rule, k))(curvature)
        axes.loglog(curvature, sizes, color=colour, label=f"DALR, c = {c:g}, p = 0.8")
    axes.loglog(curvature, 2 / curvature, "--", color=FLOW, label="Euler's limit of stability")
    axes.loglog(curvature, interval(RK4) / curvature, ":", color="black", label="RK4's limit")
    axes.set(ylim=(3e-3, 30), ylabel="step size h")
    axes.set_xlabel(r"curvature along the gradient, $\Vert H g \Vert / \Vert g \Vert$")
    _legend(canvas, axes, columns=3)
    canvas.savefig(file)


def _step_size(optimizer: Any, curvature: jax.Array) -> jax.Array:
    theta = jnp.ones(1)
    grad_fn = jax.grad(lambda t: 0.5 * curvature * jnp.sum(jnp.square(t)))
    _, state = optimizer.update(grad_fn(theta), optimizer.init(theta), theta, grad_fn=grad_fn)
    return optimizers.step_size(state, 0.0)


def draw_accounting(file: pathlib.Path) -> None:
    """The same runs against steps, gradient evaluations and seconds (results/records/cpu)."""
    canvas, panels = _canvas(1, 3, height=2.9)
    runs = {"Adam": ("mnist_mlp-adam", COLOURS[0]), "RK4": ("mnist_mlp-rk4", COLOURS[1])}
    for axes, (axis, label) in zip(panels, AXES.items(), strict=True):
        for name, (folder, colour) in runs.items():
            curve = Run(RESULTS / "records" / "cpu" / folder).curve("test/accuracy", axis)
            mean, _ = band(curve.values)
            axes.plot(curve.x, mean, color=colour, alpha=0.25, linewidth=0.8)
            smooth = [np.convolve(numbers, WINDOW, mode="valid") for numbers in (curve.x, mean)]
            axes.plot(*smooth, color=colour, label=name, linewidth=1.5)
        axes.set(xlabel=label, ylim=(0.85, 0.98))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.tick_params(labelleft=axes is panels[0])
    panels[0].set_ylabel("test accuracy")
    _legend(canvas, panels[0])
    canvas.savefig(file)


def _canvas(rows: int, columns: int, height: float, **layout: Any) -> tuple[Canvas, list[Any]]:
    canvas = Canvas(figsize=(WIDTH, height), layout="constrained", dpi=DOTS)
    panels = list(canvas.subplots(rows, columns, squeeze=False, **layout).ravel())
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    return canvas, panels


def _line(axes: Any, points: np.ndarray, colour: str, label: str, **looks: Any) -> None:
    axes.plot(*points.T, color=colour, label=label, **{"linewidth": 1.3, "markersize": 3, **looks})


def _legend(canvas: Canvas, axes: Any, columns: int = 3, loc: Any = "outside upper center") -> None:
    canvas.legend(*axes.get_legend_handles_labels(), loc=loc, ncols=columns, frameon=False)


PICTURES: dict[str, Callable[[pathlib.Path], None]] = {
    "flow": draw_flow,
    "stages": draw_stages,
    "order": draw_order,
    "stability": draw_stability,
    "regions": draw_regions,
    "stiffness": draw_stiffness,
    "dalr": draw_dalr,
    "accounting": draw_accounting,
}


def draw(folder: pathlib.Path, names: Iterable[str] = PICTURES) -> None:
    """Draws the pictures as `folder`/NAME.png."""
    import matplotlib as mpl

    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"font.size": 9, "axes.titlesize": 9, "legend.fontsize": 9}):
        for name in names:
            PICTURES[name](folder / f"{name}.png")


if __name__ == "__main__":
    draw(pathlib.Path(sys.argv[1]), sys.argv[2:] or PICTURES)
