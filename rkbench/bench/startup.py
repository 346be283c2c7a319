"""From a command to its first result, in fresh processes with warm caches."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from rkbench.bench.row import Row
from rkbench.errors import UserError

LIMIT = 300.0  # seconds after which a command is given up

# Runs a console command and says on stderr whether TensorFlow was imported on the way.
_WITNESS = """
import sys
from rkbench.commands import cli
sys.argv = ["rkbench", *sys.argv[1:]]
try:
    cli.main()
finally:
    print("tensorflow" in sys.modules, file=sys.stderr)
"""


def startup() -> Iterator[Row]:
    """Seconds to the first training step on a second start, and of the commands that only print."""
    for arguments in (["train", "--help"], ["list"]):
        yield _printing(arguments)
    try:
        with tempfile.TemporaryDirectory() as cache:
            first = _first_step(cache)  # fills the cache
            times = sorted(_first_step(cache) for _ in range(3))
    except UserError as error:
        yield Row("command to first training step of mnist_mlp", "not measured", "", str(error))
        return
    yield Row(
        "command to first training step of mnist_mlp, second start",
        f"{times[1]:.1f} s [{times[0]:.1f} to {times[2]:.1f}]",
        "<= 12 s",
        "a new process; data and compiled programs cached; TensorBoard on",
    )
    yield Row(
        "that over the first start",
        f"{times[1] / first:.2f}",
        "<= 0.5",
        f"the first start took {first:.1f} s: TFDS read the data, XLA compiled",
    )


def _printing(arguments: list[str]) -> Row:
    times, imported = [], ""
    for _ in range(4):
        begin = time.perf_counter()
        result = subprocess.run(
            [sys.executable, "-c", _WITNESS, *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=LIMIT,
        )
        times.append(time.perf_counter() - begin)
        imported = result.stderr.split()[-1]
    times = sorted(times[1:])
    return Row(
        f"rkbench {' '.join(arguments)}",
        f"{times[1]:.1f} s [{times[0]:.1f} to {times[-1]:.1f}]",
        "< 4 s",
        "imports TensorFlow" if imported == "True" else "no TensorFlow import",
    )


def _first_step(cache: str) -> float:
    """Seconds from starting the command, with that cache, until the log holds a training step."""
    with tempfile.TemporaryDirectory() as folder:
        workdir = pathlib.Path(folder)
        command = [
            sys.executable,
            "-m",
            "rkbench.main",
            "--config=configs/mnist_mlp.py:rk4",
            f"--workdir={workdir}",
            "--config.total_steps=100000",
            "--config.log_every_steps=1",
            "--config.checkpoint_every_steps=1",
        ]
        begin = time.perf_counter()
        process = subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"RKBENCH_CACHE_DIR": cache},
        )
        try:
            while not _has_step(workdir / "metrics.jsonl"):
                if process.poll() is not None:
                    raise UserError(process.communicate()[1].strip().splitlines()[-1])
                if time.perf_counter() - begin > LIMIT:
                    raise UserError(f"no training step within {LIMIT:.0f} s")
                time.sleep(0.02)
            return time.perf_counter() - begin
        finally:
            process.kill()
            process.wait()


def _has_step(log: pathlib.Path) -> bool:
    if not log.exists():
        return False
    lines = log.read_text(encoding="utf-8").splitlines()
    return any("batch/loss" in json.loads(line) for line in lines if line.endswith("}"))
