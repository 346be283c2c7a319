"""`rkbench train --config=configs/mnist_mlp.py:rk4 --workdir=DIR`: trains one config.

`python -m rkbench.main` does the same.
Any field of the config can be overridden: `--config.total_steps=1000 --config.seeds=0,1`. The same
command run again resumes. Config files are Python code: run only those that you trust.
"""

import sys
from typing import Any

from absl import app, flags

from rkbench import paths
from rkbench.commands import command_line
from rkbench.errors import UserError
from rkbench.trainer import preemption


def _flags() -> flags.FlagValues:
    values = command_line.flag_values(__name__)
    own: dict[str, Any] = {"flag_values": values}
    text, number = flags.DEFINE_string, flags.DEFINE_integer
    text("workdir", None, "Folder of the run; made if it is not there", **own)
    flags.DEFINE_bool(
        *("distributed", False, "One of several processes, found as TPU VMs, SLURM and GKE tell"),
        **own,
    )
    text("coordinator", None, "HOST:PORT of the first of several processes, told by hand", **own)
    number("processes", None, "How many processes there are, by hand", **own)
    number("process_id", None, "Which this is, from 0, by hand", **own)
    return values


def main(values: Any) -> None:
    """Trains the config of the flags in their workdir and prints where the result is."""
    if values.config is None:
        raise UserError("--config is missing, as in --config=configs/mnist_mlp.py:rk4")
    if not values.workdir:
        raise UserError("--workdir is missing: the folder of the run")
    config, workdir = values.config.config(), paths.local(values.workdir)
    from rkbench.trainer import distributed  # JAX loads only when it is needed

    by_hand = (values.coordinator, values.processes, values.process_id)
    if values.distributed or any(value is not None for value in by_hand):
        distributed.initialize(*by_hand)
    with preemption.handled(), distributed.failing_at_once():
        from rkbench import train
        from rkbench.records import summary
        from rkbench.step import compilation

        compilation.enable_cache()
        record = train.train_and_evaluate(config, workdir)
    if distributed.is_primary():
        print(summary.text(record))


def run(argv: list[str]) -> None:
    """Runs `main` on a command line (with the program's name first); exits with its code."""
    values = _flags()
    with command_line.user_errors():
        app.run(
            lambda _: main(values),
            argv=argv,
            flags_parser=lambda argv: command_line.parse_flags(argv, values),
        )


if __name__ == "__main__":
    run(sys.argv)
