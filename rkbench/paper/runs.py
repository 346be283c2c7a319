"""Every run behind Table 1 and the figures, as data: nothing else knows a run by name."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class PaperRun:
    """One optimizer on one workload with one group of settings.

    Attributes:
      config: the file in `configs/`, which is the workload's name.
      variant: the preset: optimizer, words, settings.
      kind: how large it is at each scale: a key of `scales.SCALES`.
      label: the optimizer's name in a legend.
    """

    config: str
    variant: str
    kind: str
    label: str

    @property
    def name(self) -> str:
        """A name of its own: also that of the folder with its record."""
        words = [self.config, *self.variant.replace("=", "_").split(",")]
        return "-".join(words) + ("-timing" if self.kind.startswith("timing") else "")

    def is_one_of(self, words: Iterable[str]) -> bool:
        """Whether the name contains one of the words."""
        return any(word in self.name for word in words)

    def get_config(self, settings: Mapping[str, Any], seeds: tuple[int, ...]) -> Any:
        """The config with a scale's settings and these seeds, locked."""
        import importlib

        config = importlib.import_module(f"rkbench.configs.{self.config}").get_config(self.variant)
        config.update_from_flattened_dict({**settings, "seeds": seeds})
        return config.lock()


def shrunken(run: PaperRun) -> PaperRun:
    """A few steps on a small model and real data, where the scale has no room for the run."""
    return PaperRun(run.config, f"{run.variant},smoke", "shrunken", run.label)


ADAM, RK4, MOMENTUM = "Adam", "RK4", "momentum"
ADGR, MODIFIED = "RK4 + ADGR", "RK4 + Modified-ADGR"
DALR, RK4_MOMENTUM = "RK4 + DALR", "RK4 + momentum"


def _pair(config: str, kind: str, baseline: str, words: str = "", label: str = ADAM):
    """The baseline and RK4 on one workload."""
    return (
        PaperRun(config, f"{baseline}{words}", kind, label),
        PaperRun(config, f"rk4{words}", kind, RK4),
    )


SMALL_BATCH = {  # Table 1 rows 1 and 3, Figures 1 (left), 2, 3
    "mnist": _pair("mnist_mlp", "small_batch", "adam"),
    "fashion": _pair("fashion_mlp", "small_batch", "adam"),
}
RAW_FULL_BATCH = {  # Figures 1 (right), 4, 5: raw pixels, the reading of the small-batch rows
    "mnist": _pair("mnist_mlp", "full_batch", "adam", ",full,input_scaling=raw"),
    "fashion": _pair("fashion_mlp", "full_batch", "adam", ",full,input_scaling=raw"),
}


def _full_batch(config: str) -> dict[str, PaperRun]:
    """Figures 7 to 15: Adam's learning rate in them is 0.002 (D.2)."""
    return {
        ADAM: PaperRun(config, "adam,full,learning_rate=0.002", "full_batch", ADAM),
        RK4: PaperRun(config, "rk4,full", "full_batch", RK4),
        ADGR: PaperRun(config, "rk4_adagrad,full", "full_batch", ADGR),
        MODIFIED: PaperRun(config, "rk4_modified_adagrad,full", "full_batch", MODIFIED),
        DALR: PaperRun(config, "rk4_dalr,full", "full_batch", DALR),
        RK4_MOMENTUM: PaperRun(config, "rk4_momentum,full", "full_batch", RK4_MOMENTUM),
    }


FULL_BATCH = {"mnist": _full_batch("mnist_mlp"), "fashion": _full_batch("fashion_mlp")}
CIFAR10_MLP = {  # Figure 17
    ADAM: PaperRun("cifar10_mlp", "adam", "cifar10_mlp", ADAM),
    RK4: PaperRun("cifar10_mlp", "rk4", "cifar10_mlp", RK4),
    ADGR: PaperRun("cifar10_mlp", "rk4_adagrad", "cifar10_mlp", ADGR),
    MODIFIED: PaperRun("cifar10_mlp", "rk4_modified_adagrad", "cifar10_mlp", MODIFIED),
}
RESNET18 = {  # Figure 18
    ADAM: PaperRun("cifar10_resnet18", "adam", "resnet18", ADAM),
    RK4: PaperRun("cifar10_resnet18", "rk4", "resnet18", RK4),
    RK4_MOMENTUM: PaperRun("cifar10_resnet18", "rk4_momentum", "resnet18", RK4_MOMENTUM),
    DALR: PaperRun("cifar10_resnet18", "rk4_dalr", "resnet18", DALR),
}
TIMING = {  # Figures 6 and 16; the runs of one group are timed in turns
    "mnist small": _pair("mnist_mlp", "timing_small", "adam"),
    "mnist full": _pair("mnist_mlp", "timing_full", "adam", ",full"),
    "fashion small": _pair("fashion_mlp", "timing_small", "adam"),
    "fashion full": _pair("fashion_mlp", "timing_full", "adam", ",full"),
    "resnet18 small": _pair("cifar10_resnet18", "timing_batch1", "adam", ",batch1"),
    "resnet18 large": _pair("cifar10_resnet18", "timing_batch8192", "adam", ",batch8192"),
}


@dataclasses.dataclass(frozen=True)
class PaperRow:
    """A row of Table 1. Accuracies are in percent, with their standard errors (paper-wide 5 seeds).

    The paper prints the errors as fractions: "96.64 +- 7e-4" is 96.64 % +- 0.07 %.
    """

    dataset: str
    model: str
    runs: tuple[PaperRun, PaperRun]
    paper: tuple[tuple[float, float], tuple[float, float]]  # baseline's, RK4's


TABLE_1 = (
    PaperRow("MNIST", "DNN", SMALL_BATCH["mnist"], ((96.64, 0.07), (96.88, 0.06))),
    PaperRow(
        "MNIST",
        "Simple CNN",
        _pair("mnist_cnn", "cnn", "momentum", label=MOMENTUM),
        ((98.64, 0.02), (98.53, 0.01)),
    ),
    PaperRow("Fashion-MNIST", "DNN", SMALL_BATCH["fashion"], ((85.6, 0.04), (86.02, 0.04))),
    PaperRow(
        "Fashion-MNIST",
        "Simple CNN",
        _pair("fashion_cnn", "fashion_cnn", "momentum", label=MOMENTUM),
        ((90.12, 0.04), (90.65, 0.2)),
    ),
    PaperRow(
        "CIFAR-10",
        "WRN 28-10",
        _pair("cifar10_wrn", "large", "momentum", label=MOMENTUM),
        ((97.10, 0.01), (96.78, 0.4)),
    ),
    PaperRow(
        "CIFAR-100",
        "WRN 28-10",
        _pair("cifar100_wrn", "large", "momentum", label=MOMENTUM),
        ((81.89, 0.2), (78.81, 0.09)),
    ),
    PaperRow(
        "ImageNet",
        "ViT",
        _pair("imagenet_vit", "large", "nadamw", label="NAdamW"),
        ((78.5, 0.2), (61.2, 0.2)),
    ),
)
