"""`python streamed_run.py WORKDIR [COORDINATOR PROCESSES PROCESS_ID]`: digits trained as a stream.

Prints the places of the batch that this process was asked for.
"""

import pathlib
import sys

from streams import ArrayStream, Streamed

from rkbench.configs import digits_mlp
from rkbench.train import train_experiment
from rkbench.trainer import distributed
from rkbench.trainer.experiment import Experiment
from rkbench.workloads import datasets


def main(workdir: str, *process: str) -> None:
    if process:
        coordinator, processes, process_id = process
        distributed.initialize(coordinator, int(processes), int(process_id))
    config = digits_mlp.get_config("rk4")
    config.update(
        {"total_steps": 6, "batch_size": 16, "physical_batch_size": 8, "log_every_steps": 1}
        | {"eval_every_steps": 3, "eval_batch_size": 100, "tensorboard": False}
    )
    dataset = Streamed(datasets.load("digits", None))
    stream: ArrayStream = dataset.train
    train_experiment(Experiment.from_config(config.lock(), dataset), pathlib.Path(workdir))
    print(stream.places)


if __name__ == "__main__":
    main(*sys.argv[1:])
