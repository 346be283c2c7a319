"""Wall-clock time of several optimizers, a few steps of each in turn.

A machine that slows down for a while slows all of them, so that the ratio of their times stays
right; compilation is outside the clock. What is left are the records of ordinary runs, whose only
measurement is the time.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

from rkbench.train import train_in_turns
from rkbench.trainer.experiment import Experiment

TURNS = 20  # of each optimizer in a run, if it has so many steps


def interleave(configs: Mapping[pathlib.Path, Any]) -> None:
    """Times the configs, which have the same seeds and steps, each in its own workdir.

    Where all are finished, nothing is done: their times stand.
    """
    experiments = [Experiment.from_config(config) for config in configs.values()]
    train_in_turns(experiments, list(configs), TURNS)
