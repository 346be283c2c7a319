"""`rkbench bench [NAME ...]`: speed and memory, as ratios measured within one run.

Ratios rather than times, each from calls of both sides in turn, so that a slow or busy machine
slows both. Nothing here passes or fails a test: it prints a table, with the machine.
"""

import pathlib
import platform
import sys

from rkbench import errors, files
from rkbench.bench import row
from rkbench.commands.command_line import Parser, output_path

# name: (module, function); a function yields rows as it measures them
_BENCHMARKS = {
    "trainer": ("rkbench.bench.steps", "trainer"),
    "stages": ("rkbench.bench.steps", "stages"),
    "methods": ("rkbench.bench.steps", "methods"),
    "chunks": ("rkbench.bench.steps", "chunks"),
    "compilation": ("rkbench.bench.steps", "compilation"),
    "convolution": ("rkbench.bench.steps", "convolution"),
    "input": ("rkbench.bench.input", "input_pipeline"),
    "full_size": ("rkbench.bench.large", "full_size"),
    "huge_batches": ("rkbench.bench.large", "huge_batches"),
    "devices": ("rkbench.bench.devices", "devices"),
    "startup": ("rkbench.bench.startup", "startup"),
}


def run(argv: list[str]) -> None:
    """Measures what is asked for, or everything, and prints (and writes) the table."""
    parser = Parser(prog=argv[0], description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(_BENCHMARKS))
    parser.add_argument("--output", type=output_path, help="also write the table to this .md file")
    arguments = parser.parse_args(argv[1:])
    for name in arguments.names:
        if name not in _BENCHMARKS:
            raise errors.unknown("benchmark", name, _BENCHMARKS)
    rows = []
    for name in arguments.names or _BENCHMARKS:
        for measured in row.measure(*_BENCHMARKS[name]):
            print(f"  {measured.what}: {measured.value}", file=sys.stderr, flush=True)
            rows.append(measured)
    table = f"{_machine()}\n\n{row.table(rows)}"
    print(table)
    if arguments.output is not None:
        files.write_text(arguments.output, f"# Speed\n\n{table}")


def _machine() -> str:
    import os

    import jax

    from rkbench.records.run_record import source_commit

    commit, dirty = source_commit()
    source = f"commit {commit}{' with changes' if dirty else ''}" if commit else "no commit"
    devices = ", ".join(f"{device.platform} {device.device_kind}" for device in jax.devices())
    return (
        f"{platform.machine()}, {_processor()}, {os.cpu_count()} cores, devices: {devices}; "
        f"Python {platform.python_version()}, jax {jax.__version__}, rkbench {source}. "
        "Medians over pairs of calls in turn; minimum to maximum in brackets."
    )


def _processor() -> str:
    """The processor's name where the system tells."""
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"
