"""`python -m scripts.launch tpu|gke|slurm --output=... (--manifest=FILE | --name=NAME -- FLAG...)`.

Starts the runs of a manifest (`rkbench paper --manifest=FILE`), each on a machine of its own, or
one run, with the flags of `rkbench train` behind `--`. Runs that are finished are not repeated, so
the same command goes on after an interruption. --dry-run prints every command and manifest and
starts nothing. docs/scaling.md says more.
"""

import argparse
import pathlib
import re
import signal
import sys
import threading
import time
from collections.abc import Sequence

from rkbench.errors import UserError
from scripts.launch import source
from scripts.launch.bucket import Bucket
from scripts.launch.gke import GKE
from scripts.launch.jobs import Job, read_manifest
from scripts.launch.kit import Kit
from scripts.launch.shell import CommandError
from scripts.launch.slurm import Slurm
from scripts.launch.tpu import TPU, has_several_hosts
from scripts.launch.watch import Limits, Place, run_all


def main() -> None:
    """Does what the command line asks for; exit code 0: all runs are finished or submitted."""
    arguments, train = sys.argv[1:], None
    if "--" in arguments:
        at = arguments.index("--")
        arguments, train = arguments[:at], arguments[at + 1 :]
    options = _parser().parse_args(arguments)
    try:
        jobs = _jobs(options, train)
        failed = _slurm(options, jobs) if options.place == "slurm" else _cloud(options, jobs)
    except (UserError, CommandError) as error:
        print(f"launch: error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UserError) else 1)
    for name, reason in failed.items():
        print(f"launch: {name}: {reason}", file=sys.stderr)
    sys.exit(1 if failed else 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.launch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    places = parser.add_subparsers(dest="place", required=True, metavar="tpu|gke|slurm")
    common = _common()
    tpu = places.add_parser("tpu", parents=[common, _cloudy()], help="TPU VMs, by queued resources")
    tpu.add_argument("--zone", required=True)
    tpu.add_argument("--project", default="", help="default: that of gcloud's configuration")
    tpu.add_argument("--accelerator", required=True, help="as v5litepod-1")
    tpu.add_argument("--runtime", required=True, help="the image, as v2-alpha-tpuv5-lite")
    tpu.set_defaults(source=source.CLONE)
    gke = places.add_parser("gke", parents=[common, _cloudy()], help="JobSets on GKE")
    gke.add_argument("--image", required=True, help="with Python, gcloud and rkbench")
    gke.add_argument("--accelerator", default="", help="as tpu-v5-lite-podslice; default: CPUs")
    gke.add_argument("--topology", default="1x1", help="of the TPU slice (default: %(default)s)")
    gke.add_argument("--chips", type=_positive, default=1, help="of a host (default: %(default)s)")
    gke.add_argument("--hosts", type=_positive, default=1, help="of a run (default: %(default)s)")
    gke.add_argument("--volume", default="", help="claim of the volume to mount at --shared")
    gke.add_argument("--service-account", default="", help="of Kubernetes")
    gke.set_defaults(source=source.INSTALLED)
    places.add_parser("slurm", parents=[common], help="a job array")
    return parser


def _common() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--output", required=True, help="folder of the workdirs: gs:// or a path")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--manifest", type=pathlib.Path, help="the runs")
    what.add_argument("--name", help="of one run, whose flags follow --")
    parser.add_argument(
        "--only", help="of the manifest: names that contain one of these words: a,b"
    )
    parser.add_argument("--dry-run", action="store_true", help="print commands, start nothing")
    parser.add_argument("--at-once", type=_positive, default=4, help="(default: %(default)s)")
    parser.add_argument(
        "--attempts", type=_positive, default=3, help="failures of a run (default: %(default)s)"
    )
    parser.add_argument("--setup", type=pathlib.Path, help="bash to run before the run, there")
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        help="a flag of gcloud's create, kubectl or sbatch, as --option=--partition=gpu; repeat it",
    )
    return parser


def _cloudy() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--spot", action="store_true", help="cheaper, may be taken away")
    parser.add_argument(
        "--source",
        help="clone (this commit), installed, a wheel or git+https://HOST/REPOSITORY@COMMIT "
        "(default: clone on TPU VMs, installed on GKE)",
    )
    parser.add_argument(
        "--shared",
        default="",
        metavar="DIR",
        help="folder for workdirs that all hosts of a run see; several hosts need it",
    )
    parser.add_argument("--allow-dirty", action="store_true", help="send uncommitted changes too")
    parser.add_argument(
        "--preemptions", type=_positive, default=100, help="(default: %(default)s; TPU VMs only)"
    )
    for name, seconds, what in (
        ("--upload-seconds", 300, "between two uploads of the workdir"),
        ("--poll-seconds", 30, "between two looks at a machine"),
        ("--silent-seconds", 1800, "without a report after which a machine has failed"),
    ):
        parser.add_argument(
            name, type=_seconds, default=seconds, help=f"{what} (default: %(default)s)"
        )
    return parser


def _positive(text: str) -> int:
    if not re.fullmatch("[1-9][0-9]{0,8}", text):
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number from 1")
    return int(text)


def _seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,8}(\.[0-9]+)?", text) or float(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} must be a positive number of seconds")
    return float(text)


def _jobs(options: argparse.Namespace, train: Sequence[str] | None) -> list[Job]:
    if options.manifest is not None:
        if train is not None:
            raise UserError("flags behind -- belong to --name; a manifest has its runs' own")
        return read_manifest(options.manifest, options.only)
    if not train:
        raise UserError("--name needs the flags of `rkbench train` behind --")
    return [Job(options.name, tuple(train))]


def _setup(options: argparse.Namespace) -> str:
    if options.setup is None:
        return ""
    try:
        return options.setup.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"--setup={options.setup}: {error.strerror}") from error


def _slurm(options: argparse.Namespace, jobs: list[Job]) -> dict[str, str]:
    if "://" in options.output:
        raise UserError(f"--output={options.output} must be a path that all nodes share")
    output = pathlib.Path(options.output).absolute()
    place = Slurm(output, options.at_once, options.attempts, _setup(options), tuple(options.option))
    unfinished = place.unfinished(jobs)
    for job in jobs:
        print(f"# {job.name}: {job.cost if job in unfinished else 'finished'}")
    if options.dry_run and unfinished:
        print(place.submit(unfinished))
    elif unfinished:
        print(f"submitted as {place.start(unfinished)}; squeue --me shows it")
    return {}


def _cloud(options: argparse.Namespace, jobs: list[Job]) -> dict[str, str]:
    if options.silent_seconds < 2 * options.upload_seconds:
        raise UserError(
            f"--silent-seconds={options.silent_seconds:g} must be at least twice "
            f"--upload-seconds={options.upload_seconds:g}, with which a machine reports"
        )
    _check_shared(options)
    place = _tpu(options) if options.place == "tpu" else _gke(options)
    if options.dry_run:
        _show(place, jobs, options.poll_seconds)
        return {}
    limits = Limits(
        at_once=options.at_once,
        attempts=options.attempts,
        preemptions=options.preemptions,
        poll_seconds=options.poll_seconds,
        silent_seconds=options.silent_seconds,
    )
    stop = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, lambda *_: stop.set())
    return run_all(jobs, place, limits, _say, stop)


def _check_shared(options: argparse.Namespace) -> None:
    """Raises a UserError where the hosts of a run would not see one workdir."""
    if options.place == "gke":
        several, which = options.hosts > 1, f"--hosts={options.hosts}"
        if bool(options.shared) != bool(options.volume):
            raise UserError("--shared=DIR and --volume=CLAIM, which is mounted there, go together")
        if not re.fullmatch("([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?)?", options.volume):
            raise UserError(f"--volume={options.volume} must be the name of a volume's claim")
    else:
        several = has_several_hosts(options.accelerator)
        which = f"--accelerator={options.accelerator}"
    if several and not options.shared:
        raise UserError(
            f"{which}: several hosts need one workdir that all see; name a folder that they share "
            "with --shared=DIR"
        )
    if options.shared and not re.fullmatch(r"(/(?!\.{1,2}(/|$))[^/:\x00-\x1f]+)+", options.shared):
        raise UserError(f"--shared={options.shared} must be an absolute path, as /mnt/shared")


def _kit(options: argparse.Namespace, hosts: int | None) -> Kit:
    return Kit(
        bucket=Bucket(options.output.rstrip("/")),
        source=source.find(options.source, options.allow_dirty),
        extra="tpu" if options.accelerator else "",
        setup=_setup(options),
        upload_seconds=options.upload_seconds,
        shared=options.shared,
        hosts=hosts,
    )


def _tpu(options: argparse.Namespace) -> Place:
    return TPU(
        kit=_kit(options, hosts=None),
        zone=options.zone,
        project=options.project,
        accelerator=options.accelerator,
        runtime=options.runtime,
        spot=options.spot,
        options=tuple(options.option),
    )


def _gke(options: argparse.Namespace) -> Place:
    return GKE(
        kit=_kit(options, options.hosts),
        image=options.image,
        accelerator=options.accelerator,
        topology=options.topology,
        chips=options.chips,
        spot=options.spot,
        attempts=options.attempts,
        volume=options.volume,
        service_account=options.service_account,
        options=tuple(options.option),
    )


def _show(place: Place, jobs: Sequence[Job], poll_seconds: float) -> None:
    """Prints what would be done for every run, in the order of a run without trouble."""
    for job in jobs:
        print(f"# {job.name}: {job.cost}".rstrip(": "))
        print("# finished already? Then nothing of what follows.")
        print(place.bucket.record(job))
        for name, content in place.files(job).items():
            if name in ("job.json", "setup.sh", "startup.sh"):
                print(f"# file {name}\n{content.decode().rstrip()}")
        for command in place.start(job, pathlib.Path()):
            print(command)
        print(f"# every {poll_seconds:g} s until the run is over")
        print(place.describe(job))
        print(place.bucket.status(job))
        print("# at the end, after a failure and before a new attempt")
        print(f"{place.delete(job)}\n")


_SAYING = threading.Lock()


def _say(text: str) -> None:
    with _SAYING:
        print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":
    main()
