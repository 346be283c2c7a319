"""Curves of one setting for each optimizer of a task, on the three axes."""

import dataclasses
from collections.abc import Sequence

from rkbench.drawing.plotting import Figure, Panel
from rkbench.records import AXES, Curve, aligned
from rkbench.scoring import Score, Setting

SKIPPED = 0.25  # of the points: the vertical axis begins at what was reached by then


@dataclasses.dataclass(frozen=True)
class SettingCurves:
    """A setting as `plotting.Panel` draws it; its seeds may lie in several folders."""

    setting: Setting

    def curve(self, metric: str, axis: str = "step") -> Curve:
        """The metric of every seed against the axis."""
        return aligned([log.columns for log in self.setting.logs], metric, axis)

    @property
    def diverged(self) -> list[int]:
        """The steps at which seeds diverged, as far as their logs say."""
        return [int(log.spent["step"]) for log in self.setting.logs if log.diverged]


def figure(scores: Sequence[Score]) -> Figure:
    """A panel for each axis; the scores are of one task and metric, and each a curve."""
    metric = scores[0].metric
    curves = {one.setting.method: SettingCurves(one.setting) for one in scores}
    counts = sorted({len(one.setting.logs) for one in scores})
    seeds = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
    skipped = SKIPPED if metric.endswith("accuracy") else 0.0
    began = " The vertical axis begins at what all had reached after a quarter." if skipped else ""
    return Figure(
        tuple(
            Panel(f"against {label}", metric, curves, axis, skipped, metric.endswith("loss"))
            for axis, label in AXES.items()
        ),
        caption=f"{scores[0].setting.task}; mean over {seeds} seeds, band: one standard error. One "
        "setting for each optimizer: the one with the most seeds, of these the best by its mean "
        f"final value.{began}",
        columns=len(AXES),
    )
