"""`python -m rkbench.main --config=configs/mnist_mlp.py:rk4 --workdir=DIR`: trains one config.

Any field of the config can be overridden: `--config.total_steps=1000 --config.seeds=0,1`. The same
command run again resumes. Config files are Python code: run only those that you trust.
"""

import pathlib
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from rkbench import command_line, preemption
from rkbench.errors import UserError

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file and variant, as configs/mnist_mlp.py:rk4", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; made if it is not there")
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "One of several processes, found as TPU VMs, SLURM and GKE tell them"
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of the first of several processes, where they are told by hand"
)
_PROCESSES = flags.DEFINE_integer("processes", None, "How many processes there are, by hand")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which this is, from 0, by hand")


def main(argv: list[str]) -> None:
    """Trains the config of the flags in their workdir and prints where the result is."""
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}; overrides are --config.FIELD=VALUE")
    if _CONFIG.value is None:
        raise UserError("--config is missing, as in --config=configs/mnist_mlp.py:rk4")
    if not _WORKDIR.value:
        raise UserError("--workdir is missing: the folder of the run")
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # JAX, TFDS and Orbax narrate at INFO
    from rkbench import distributed  # JAX loads only when it is needed

    by_hand = (_COORDINATOR.value, _PROCESSES.value, _PROCESS_ID.value)
    if _DISTRIBUTED.value or any(value is not None for value in by_hand):
        distributed.initialize(*by_hand)
    with preemption.handled(), distributed.failing_at_once():
        from rkbench import compilation, summary, train

        compilation.enable_cache()
        record = train.train_and_evaluate(_CONFIG.value, pathlib.Path(_WORKDIR.value))
    if distributed.is_primary():
        print(summary.text(record))


def run(argv: list[str]) -> None:
    """Runs `main` on a command line (with the program's name first); exits with its code."""
    with command_line.user_errors():
        if "--help" in argv[1:] or "-h" in argv[1:]:
            print(f"{__doc__}\n{flags.FLAGS.main_module_help()}")
            sys.exit(0)
        app.run(main, argv=argv, flags_parser=command_line.parse_flags)


if __name__ == "__main__":
    run(sys.argv)
