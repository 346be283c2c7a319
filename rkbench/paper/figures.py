"""Figures 1 to 18 as data: panels, curves, metrics, captions; `drawing.plotting` draws them."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from rkbench.drawing import plotting
from rkbench.drawing.artefact import Artefact
from rkbench.drawing.plotting import SKIPPED, Figure, Panel
from rkbench.paper.plan import Places
from rkbench.paper.runs import (
    ADAM,
    ADGR,
    CIFAR10_MLP,
    DALR,
    FULL_BATCH,
    MODIFIED,
    RAW_FULL_BATCH,
    RESNET18,
    RK4,
    RK4_MOMENTUM,
    SMALL_BATCH,
    TIMING,
    PaperRun,
)
from rkbench.paper.scales import SCALES
from rkbench.records import AXES, Run, summary

COMPANION = "grad_evals"  # beside the paper's axis: an RK4 step costs four gradients


@dataclasses.dataclass(frozen=True)
class PanelSpec:
    """A panel before there are runs; see `plotting.Panel`."""

    title: str
    metric: str
    runs: tuple[PaperRun, ...]
    log_y: bool = False


@dataclasses.dataclass(frozen=True)
class FigureSpec:
    """A figure of the paper.

    Attributes:
      about: what it shows, and the paper's claim.
      panels: row by row.
      columns: panels in a row.
      timed: whether it shows seconds, from interleaved runs; it has no companion then.
    """

    about: str
    panels: tuple[PanelSpec, ...]
    columns: int = 2
    timed: bool = False

    @property
    def runs(self) -> tuple[PaperRun, ...]:
        """Every run in it, once."""
        return tuple(dict.fromkeys(run for panel in self.panels for run in panel.runs))

    def only(self, words: Sequence[str]) -> "FigureSpec":
        """The same of those runs alone whose names contain one of the words; () keeps all runs."""
        if not words:
            return self
        panels = [
            dataclasses.replace(
                panel, runs=tuple(run for run in panel.runs if run.is_one_of(words))
            )
            for panel in self.panels
        ]
        return dataclasses.replace(self, panels=tuple(panel for panel in panels if panel.runs))


DATASETS = {"mnist": "MNIST", "fashion": "Fashion-MNIST"}


def _learning_curves(about: str, runs: Iterable[PaperRun]) -> FigureSpec:
    """Training on the left, test on the right; loss above, accuracy below."""
    runs = tuple(runs)
    metrics = {
        "training loss": "train/loss",
        "test loss": "test/loss",
        "training accuracy": "train/accuracy",
        "test accuracy": "test/accuracy",
    }
    return FigureSpec(
        about,
        tuple(
            PanelSpec(title, metric, runs, log_y=metric.endswith("loss"))
            for title, metric in metrics.items()
        ),
    )


def _some(dataset: str, *labels: str) -> tuple[PaperRun, ...]:
    return tuple(FULL_BATCH[dataset][label] for label in labels)


def _bridging(about: str, *labels: str) -> FigureSpec:
    """Test accuracy of full-batch methods, MNIST on the left."""
    return FigureSpec(
        about,
        tuple(
            PanelSpec(name, "test/accuracy", _some(dataset, *labels))
            for dataset, name in DATASETS.items()
        ),
    )


def _timed(about: str, panels: Mapping[str, str]) -> FigureSpec:
    """Seconds against steps; `panels` gives each title its group of `TIMING`."""
    specs = tuple(PanelSpec(title, "wall_time", TIMING[group]) for title, group in panels.items())
    return FigureSpec(about, specs, timed=True)


_PRECONDITIONED = (ADAM, RK4, ADGR, MODIFIED)
_ADAPTIVE = (ADAM, RK4, DALR)
_WITH_MOMENTUM = (ADAM, RK4, RK4_MOMENTUM)

FIGURES: Mapping[int, FigureSpec] = {
    1: FigureSpec(
        "RK4 against Adam: ahead at batch 16, behind on the full batch (raw pixels)",
        tuple(
            PanelSpec(f"{name}, {batch}", "test/accuracy", runs[dataset])
            for dataset, name in DATASETS.items()
            for batch, runs in (("batch 16", SMALL_BATCH), ("full batch", RAW_FULL_BATCH))
        ),
    ),
    2: _learning_curves("RK4 and Adam on MNIST, MLP, batch 16", SMALL_BATCH["mnist"]),
    3: _learning_curves("RK4 and Adam on Fashion-MNIST, MLP, batch 16", SMALL_BATCH["fashion"]),
    4: _learning_curves(
        "RK4's generalization gap on MNIST, MLP, full batch (raw pixels)", RAW_FULL_BATCH["mnist"]
    ),
    5: _learning_curves(
        "RK4's generalization gap on Fashion-MNIST, MLP, full batch (raw pixels)",
        RAW_FULL_BATCH["fashion"],
    ),
    6: _timed(
        "Seconds against steps, MLP",
        {
            "MNIST, batch 16": "mnist small",
            "MNIST, full batch": "mnist full",
            "Fashion-MNIST, batch 16": "fashion small",
            "Fashion-MNIST, full batch": "fashion full",
        },
    ),
    7: _bridging("Preconditioning bridges the gap, full batch", *_PRECONDITIONED),
    8: _learning_curves(
        "RK4 with preconditioning on MNIST, full batch", _some("mnist", *_PRECONDITIONED)
    ),
    9: _learning_curves(
        "RK4 with preconditioning on Fashion-MNIST, full batch",
        _some("fashion", *_PRECONDITIONED),
    ),
    10: _bridging("The adaptive learning rate DALR bridges the gap, full batch", *_ADAPTIVE),
    11: _learning_curves("RK4 with DALR on MNIST, full batch", _some("mnist", *_ADAPTIVE)),
    12: _learning_curves(
        "RK4 with DALR on Fashion-MNIST, full batch", _some("fashion", *_ADAPTIVE)
    ),
    13: _bridging("Momentum bridges the gap, full batch", *_WITH_MOMENTUM),
    14: _learning_curves("RK4 with momentum on MNIST, full batch", _some("mnist", *_WITH_MOMENTUM)),
    15: _learning_curves(
        "RK4 with momentum on Fashion-MNIST, full batch", _some("fashion", *_WITH_MOMENTUM)
    ),
    16: _timed(
        "Seconds against steps, ResNet-18 on CIFAR-10",
        {"batch 1": "resnet18 small", "large batch": "resnet18 large"},
    ),
    17: _learning_curves("Preconditioned RK4 on CIFAR-10, MLP, batch 1024", CIFAR10_MLP.values()),
    18: FigureSpec(
        "RK4 with momentum and with DALR on CIFAR-10, ResNet-18",
        tuple(
            PanelSpec(f"{title}, {side}", metric, tuple(RESNET18[label] for label in labels))
            for side, metric in (("training", "train/loss"), ("test", "test/accuracy"))
            for title, labels in (("momentum", _WITH_MOMENTUM), ("DALR", _ADAPTIVE))
        ),
    ),
}


@dataclasses.dataclass(frozen=True)
class PaperFigure:
    """A figure of the paper on an axis, perhaps of some of its runs; see `published.Published`.

    On another axis than the paper's (`step`) and its companion's, or of chosen runs, it is not
    in `manifest.json`.

    Attributes:
      number: a key of `FIGURES`.
      axis: a key of `records.AXES`.
      words: if any, only runs with one of them in their names are drawn.
    """

    number: int
    axis: str = "step"
    words: tuple[str, ...] = ()

    def __post_init__(self):
        if self.number not in FIGURES or self.axis not in AXES:
            raise ValueError(f"there is no figure {self.number} on the axis {self.axis!r}")

    @property
    def name(self) -> str:
        """figures/fig07; fig07-grad_evals for another axis; fig07-adam+rk4 of these runs."""
        axis, runs = [] if self.axis == "step" else [self.axis], "+".join(self.words)
        return "figures/" + "-".join([f"fig{self.number:02d}", *axis, *([runs] if runs else [])])

    @property
    def title(self) -> str:
        """Its number, whatever the axis."""
        return f"figure {self.number}"

    @property
    def noted(self) -> bool:
        """Whether it is one of those that are published."""
        return not self.words and self.axis in ("step", COMPANION)

    @property
    def spec(self) -> FigureSpec:
        """Its panels, with the chosen runs alone."""
        return FIGURES[self.number].only(self.words)

    def with_companion(self) -> list["PaperFigure"]:
        """It and, beside a figure on the paper's axis, the same at equal gradient evaluations."""
        alone = self.spec.timed or self.axis != "step"
        return [self] if alone else [self, dataclasses.replace(self, axis=COMPANION)]

    def runs(self, scale: str) -> list[PaperRun]:
        """The runs in it, at every scale."""
        return list(self.spec.runs)

    def only(self, words: Sequence[str], scale: str) -> "PaperFigure | None":
        """The same of these runs alone."""
        chosen = dataclasses.replace(self, words=tuple(words))
        return chosen if chosen.spec.runs else None

    def of(self, places: Places) -> Artefact | None:
        """The figure with the runs that have a record, of which there must be one."""
        records = places.records(self.spec.runs)
        return (
            plotting.artefact(self._figure(places.scale, records), self.name) if records else None
        )

    def _figure(self, scale: str, records: Mapping[str, Run]) -> Figure:
        """A run without a record is left out, named in the caption."""
        panels = tuple(
            Panel(
                panel.title,
                panel.metric,
                {run.label: records[run.name] for run in panel.runs if run.name in records},
                self.axis,
                SKIPPED if panel.metric.endswith("accuracy") else 0.0,
                panel.log_y,
            )
            for panel in self.spec.panels
        )
        return Figure(panels, _caption(self.spec, scale, records), self.spec.columns)


def _caption(spec: FigureSpec, scale: str, records: Mapping[str, Run]) -> str:
    runs = [records[run.name] for run in spec.runs if run.name in records]
    counts = sorted({len(run.entries) for run in runs})
    seeds = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else "".join(map(str, counts))
    parts = [
        f"{spec.about}.",
        f"Mean over {seeds or 0} seed{'' if counts == [1] else 's'}, band: one standard error.",
    ]
    if any(panel.metric.endswith("accuracy") for panel in spec.panels):
        parts.append("Accuracies from what all had reached after a tenth of the steps.")
    reductions = dict.fromkeys(SCALES[scale][run.kind].says for run in spec.runs)
    parts += [f"{says[0].upper()}{says[1:]}." for says in reductions if says]
    parts += dict.fromkeys(f"{part}." for run in runs if (part := summary.subset(run.record)))
    missing = [run.name for run in spec.runs if run.name not in records]
    if missing:
        parts.append(f"Not run: {', '.join(missing)}.")
    return " ".join(parts)
