"""`rkbench quickstart [--workdir=DIR]`: Runge-Kutta optimizers against Adam on the embedded digits.

Trains Adam, RK4, and RK4 with modified AdaGrad, with DALR and with momentum on scikit-learn's 8x8
handwritten digits, 5 seeds each, and ends with a table and a figure. Started again, it resumes, and
what is finished is not repeated.
"""

import pathlib
import time

from rkbench.commands.command_line import Parser, folder_path
from rkbench.drawing import tables
from rkbench.files import write_text
from rkbench.statistics import estimate, percent
from rkbench.trainer import preemption

OPTIMIZERS = {
    "adam": "Adam",
    "rk4": "RK4",
    "rk4_modified_adagrad": "RK4 + modified AdaGrad",
    "rk4_dalr": "RK4 + DALR",
    "rk4_momentum": "RK4 + momentum",
}
SEEDS = (0, 1, 2, 3, 4)

COLUMNS = (
    "optimizer",
    "seeds",
    "best test accuracy (%)",
    "final test accuracy (%)",
    "gradient evaluations",
    "seconds",
)


def run(argv: list[str]) -> None:
    """Runs the comparison and prints where its table and figure are."""
    parser = Parser(prog=argv[0], description=__doc__)
    parser.add_argument("--workdir", type=folder_path, default=pathlib.Path("runs/quickstart"))
    parser.add_argument(
        "--draw_only", action="store_true", help="draw from the runs that are there"
    )
    arguments = parser.parse_args(argv[1:])
    if not arguments.draw_only:
        with preemption.handled():
            _train(arguments.workdir)
    _show(arguments.workdir)


def _train(workdir: pathlib.Path) -> None:
    from rkbench import train
    from rkbench.configs import digits_mlp
    from rkbench.step import compilation

    compilation.enable_cache()
    begin = time.monotonic()
    for number, (name, label) in enumerate(OPTIMIZERS.items(), 1):
        print(f"[{number}/{len(OPTIMIZERS)}] {label}, {len(SEEDS)} seeds", flush=True)
        config = digits_mlp.get_config(name)
        config.seeds = SEEDS
        config.tensorboard = False  # the table and the figure are what it is for
        train.train_and_evaluate(config.lock(), workdir / name)
    print(f"trained in {time.monotonic() - begin:.0f} s")


def _show(workdir: pathlib.Path) -> None:
    from rkbench.drawing.plotting import SKIPPED, Figure, Panel, draw
    from rkbench.records import Run

    runs = {label: Run(workdir / name) for name, label in OPTIMIZERS.items()}
    rows = [_row(label, run) for label, run in runs.items()]
    table = workdir / "quickstart_table.csv"
    write_text(table, tables.comma_separated([COLUMNS, *rows]))
    print(tables.aligned([COLUMNS, *rows]))
    print(
        "mean ± standard error over seeds; the best accuracy is selected on the test set; gradient "
        "evaluations and seconds of training (without compilation and evaluation) are a seed's"
    )
    figure = Figure(
        panels=(
            Panel("against steps", "test/accuracy", runs, "step", SKIPPED),
            Panel("against gradient evaluations", "test/accuracy", runs, "grad_evals", SKIPPED),
        ),
        caption="scikit-learn digits, MLP; mean over 5 seeds, band: one standard error. From what "
        "all had reached after a tenth of the steps",
    )
    files = draw(figure, workdir / "quickstart")
    print("table: ", table)
    print("figure:", *files)


def _row(label: str, run) -> tuple[str, ...]:
    evals, seconds = (estimate(run.outcomes(field)) for field in ("grad_evals", "seconds"))
    return (
        label,
        str(len(run.entries)),
        percent(estimate(run.outcomes("best_test_accuracy"))),
        percent(estimate(run.outcomes("final_test_accuracy"))),
        f"{evals.mean:.0f}",
        f"{seconds.mean:.2f}",
    )
