"""`rkbench table1`, `figure N...|all`, `paper`, `study`: train what is missing, then draw.

Started again after an interruption, finished runs are not repeated and a half-finished one resumes.
A run that fails or diverges does not stop the others, and is shown as such.

Scales: paper (as published), cpu (for two cores), smoke (minutes, to see that all works).
"""

import argparse
import pathlib
import sys
import time
from collections.abc import Sequence

from rkbench.commands.command_line import Parser, folder_path, output_path
from rkbench.errors import UserError, unknown
from rkbench.paper import plan
from rkbench.paper.figures import FIGURES, PaperFigure
from rkbench.paper.input_scaling import InputScaling
from rkbench.paper.published import Published
from rkbench.paper.runs import TABLE_1, PaperRun
from rkbench.paper.scales import SCALES
from rkbench.paper.study import Study
from rkbench.paper.table1 import Table1
from rkbench.trainer import preemption

ALL = "all"


def run(argv: list[str]) -> None:
    """Does what the command's name (the last word of argv[0]) and arguments ask for."""
    what = argv[0].split()[-1]
    arguments = _parser(argv[0], what).parse_args(argv[1:])
    if arguments.scale not in SCALES:
        raise unknown("scale", arguments.scale, SCALES)
    published = _published(what, arguments)
    results = arguments.results or pathlib.Path(
        f"{arguments.runs}/smoke-results" if arguments.scale == "smoke" else "results"
    )
    places = plan.Places(results, arguments.runs, arguments.scale)
    wanted = list(dict.fromkeys(run for one in published for run in one.runs(arguments.scale)))
    only = [] if arguments.only is None else arguments.only.split(",")
    jobs = plan.select(plan.jobs(wanted, places, _seeds(arguments.seeds)), only)
    if arguments.manifest:
        _write_manifest(jobs, arguments)
    if arguments.dry_run:
        _show(jobs, places, arguments.hours)
    if arguments.dry_run or arguments.manifest:
        return
    failed: dict[str, str] = {}
    if arguments.draw_only:
        _check_drawable(places, [run for run in wanted if not only or run.is_one_of(only)])
    else:
        with preemption.handled():
            from rkbench.paper.train import train

            failed = train(jobs, places)
    chosen = [one.only(only, arguments.scale) for one in published]
    _draw(places, [one for one in chosen if one is not None])
    if failed:
        raise UserError(
            f"{len(failed)} runs failed: " + "; ".join(f"{k}: {v}" for k, v in failed.items())
        )


def _parser(program: str, what: str) -> argparse.ArgumentParser:
    parser = Parser(
        prog=program, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if what == "figure":
        parser.add_argument("figures", nargs="+", metavar="N", help="1 to 18, or all")
    elif what != "study":
        parser.add_argument("--rows", help="of the table, as 1,3; default: all")
    parser.add_argument("--scale", default="cpu", help=", ".join(SCALES))
    parser.add_argument(
        "--only", help="train and draw only runs whose name contains one of these words: a,b"
    )
    parser.add_argument("--seeds", help="instead of the scale's, as 0,1,2")
    parser.add_argument("--dry_run", action="store_true", help="show the runs and their cost")
    parser.add_argument(
        "--manifest", type=output_path, help="write the missing runs to this file, for scripts/"
    )
    parser.add_argument(
        "--no_hours",
        dest="hours",
        action="store_false",
        help="with the two above: count gradient evaluations, but time nothing",
    )
    parser.add_argument("--draw_only", action="store_true", help="draw from the records there are")
    parser.add_argument(
        "--axis",
        default="step",
        choices=("step", "grad_evals", "wall_time"),
        help="of the figures; with step, the paper's, comes a companion at gradient evaluations",
    )
    parser.add_argument(
        "--results",
        type=folder_path,
        help="where table, figures and records are; default: results (smoke: below --runs)",
    )
    parser.add_argument(
        "--runs", type=folder_path, default=pathlib.Path("runs/paper"), help="for workdirs"
    )
    return parser


def _numbers(text: str | None, last: int, kind: str) -> list[int]:
    """Numbers from 1 to `last`, parted by commas; None: all."""
    valid = {str(number): number for number in range(1, last + 1)}
    words = list(valid) if text is None else [word.strip() for word in text.split(",")]
    for word in words:
        if word not in valid:
            raise UserError(f"unknown {kind} {word!r}: they are numbered 1 to {last}")
    return list(dict.fromkeys(valid[word] for word in words))


def _published(what: str, arguments: argparse.Namespace) -> list[Published]:
    """What the command asks for, in the order in which it is trained and drawn."""
    if what == "study":
        return [Study(), InputScaling()]
    found: list[Published] = []
    if what in ("table1", "paper"):
        found.append(Table1(tuple(_numbers(arguments.rows, len(TABLE_1), "row"))))
    if what in ("figure", "paper"):
        everything = what == "paper" or ALL in arguments.figures
        chosen = None if everything else ",".join(arguments.figures)
        for number in _numbers(chosen, len(FIGURES), "figure"):
            found += PaperFigure(number, arguments.axis).with_companion()
    return found


def _seeds(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    from rkbench.trainer.config_checks import check_seeds

    try:
        seeds = tuple(dict.fromkeys(int(word) for word in text.split(",")))
    except ValueError as error:
        raise UserError(f"--seeds={text}: whole numbers parted by commas are needed") from error
    check_seeds(seeds)
    return seeds


def _write_manifest(jobs: list[plan.Job], arguments: argparse.Namespace) -> None:
    from rkbench.paper import manifest

    left_out = manifest.write(jobs, arguments.scale, arguments.hours, arguments.manifest)
    print(arguments.manifest)
    if left_out:
        print(
            f"{len(left_out)} runs left out, which are timed in turns on one machine "
            "(rkbench figure 6 16)",
            file=sys.stderr,
        )


def _show(jobs: list[plan.Job], places: plan.Places, timed: bool) -> None:
    """Prints the runs with their cost, and their commands."""
    from rkbench.paper.estimate import Cost, estimate

    def row(name: str, seeds: str, cost: Cost) -> str:
        hours = "-" if cost.hours is None else f"{cost.hours:.2f}"
        gigabytes = "-" if cost.gigabytes is None else f"{cost.gigabytes:.2f}"
        return f"{name:<58}{seeds:>7}{cost.grad_evals:>14,}{hours:>10}{gigabytes:>8}"

    costs = []
    print(f"{'run':<58}{'seeds':>7}{'gradients':>14}{'hours':>10}{'GB':>8}")
    for job in jobs:
        costs.append(estimate(job, timed))
        print(row(job.run.name, f"{len(job.missing)}/{len(job.seeds)}", costs[-1]))
    hours = sum(cost.hours or 0 for cost in costs) if timed else None
    print(row("all", "", Cost(sum(cost.grad_evals for cost in costs), hours)))
    note = "; hours on this machine, within a factor of two" if timed else ""
    print(f"\nseeds: missing/wanted{note}\n")
    for job in jobs:
        if job.missing:
            print(job.command(places.workdir(job.run)))


def _check_drawable(places: plan.Places, runs: list[PaperRun]) -> None:
    if not places.records(runs):
        raise UserError(
            f"nothing to draw: {places.results}/records/{places.scale} has none of the {len(runs)} "
            "runs; without --draw_only they are trained first"
        )


def _draw(places: plan.Places, published: Sequence[Published]) -> None:
    from rkbench.paper.published import draw

    begin, undrawn = time.monotonic(), {}
    for one in published:
        files = draw(places, one)
        for file in files:
            print(file)
        if not files:
            undrawn[one.title] = None
    for title in undrawn:
        print(f"{title}: none of its runs has a record yet", file=sys.stderr)
    runs = dict.fromkeys(run for one in published for run in one.runs(places.scale))
    for line in plan.left_out(places, runs):
        print(f"left out: {line}", file=sys.stderr)
    print(f"drawn in {time.monotonic() - begin:.1f} s", file=sys.stderr)
