"""Performance profiles on the three axes."""

from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import PercentFormatter

from rkbench.comparison.contenders import Profiles
from rkbench.drawing import plotting, tables
from rkbench.records import AXES, METRICS
from rkbench.scoring.profiles import MAX_RATIO


def picture(profiles: Profiles) -> Canvas:
    """The profiles drawn, a panel an axis."""
    canvas = Canvas(figsize=(4.8 * len(AXES), 4.5), layout="constrained", dpi=150)
    all_axes = canvas.subplots(1, len(AXES), sharey=True)
    for (axis, by_method), axes in zip(profiles.by_axis.items(), all_axes, strict=True):
        for number, (method, profile) in enumerate(by_method.items()):
            colour, style = plotting.style(number)
            tau, share = profile.steps()
            looks = {"color": colour, "linestyle": style, "linewidth": 1.6, "label": method}
            axes.step(tau, share, where="post", **looks)
        axes.set_xlabel(f"{AXES[axis]} to the target / the least")
        axes.set_xlim(1, MAX_RATIO)
        axes.set_ylim(-0.03, 1.03)
        plotting.finish(axes, profiles.metric)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    all_axes[0].set_ylabel("share of workloads solved")
    plotting.add_legend(canvas, all_axes)
    label = METRICS.get(profiles.metric, profiles.metric)
    goals = ", ".join(f"{task} {value:.4g}" for task, value in profiles.targets.items())
    plotting.add_caption(
        canvas,
        f"Targets by {label}: {goals}. The median over seeds counts, and a missed target never. A "
        "method that was not run on a workload has not solved it.",
        len(AXES),
    )
    return canvas


def numbers(profiles: Profiles) -> str:
    """The corners of the profiles as CSV, with their areas."""
    rows = [["axis", "method", "workloads", "area", "ratio", "share"]]
    for axis, by_method in profiles.by_axis.items():
        for method, profile in by_method.items():
            common = [axis, method, str(profile.tasks), f"{profile.area():.6g}"]
            rows += [
                [*common, f"{t:.6g}", f"{s:.6g}"] for t, s in zip(*profile.steps(), strict=True)
            ]
    return tables.comma_separated(rows)
