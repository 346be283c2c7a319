"""Steps of the full-size models at a tiny batch, each in a process of its own; and huge batches.

`python -m rkbench.bench.large CONFIG VARIANT FIELD=VALUE...` is such a process.
"""

import ast
import importlib
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax

from rkbench.bench.row import Row

STEPS = 2
TINY_BATCH = 4
MODELS = {  # config: its baseline
    "cifar10_wrn": "momentum",
    "cifar100_wrn": "momentum",
    "cifar10_resnet18": "adam",
    "imagenet_vit": "nadamw",
}


def full_size() -> Iterator[Row]:
    """`STEPS` steps of each full-size model, with its baseline and with RK4."""
    for name, baseline in MODELS.items():
        for variant in (baseline, "rk4"):
            settings = {"batch_size": TINY_BATCH, "physical_batch_size": 0}
            yield _row(f"{name}, full size, {variant}, batch {TINY_BATCH}", name, variant, settings)


def huge_batches() -> Iterator[Row]:
    """One step of Adam on batches too large to hold: memory must not depend on the batch."""
    for name, chunk, batches in (
        ("mnist_mlp", 1_000, (6_000, 60_000)),
        ("cifar10_resnet18", 64, (256, 8_192)),
    ):
        for batch in batches:
            settings = {"batch_size": batch, "physical_batch_size": chunk, "input_scaling": "unit"}
            what = f"{name}, adam, batch {batch} in chunks of {chunk}"
            yield _row(what, name, "adam", settings | {"total_steps": 1})


def _row(what: str, name: str, variant: str, settings: dict[str, Any]) -> Row:
    arguments = [f"{field}={value!r}" for field, value in settings.items()]
    command = [sys.executable, "-m", "rkbench.bench.large", name, variant, *arguments]
    found = json.loads(subprocess.check_output(command, text=True).splitlines()[-1])
    return Row(
        what,
        f"{found['step']:.2f} s a step",
        "runs",
        f"{found['steps']} steps, loss {found['loss']:.3f}; compiled in {found['compile']:.0f} s; "
        f"temporary memory {found['temporary'] / 2**20:,.0f} MiB; peak of the process "
        f"{found['peak'] / 2**20:,.0f} MiB",
    )


def measure(name: str, variant: str, settings: dict[str, Any]) -> dict[str, float]:
    """Time and memory of a few steps of a preset on synthetic data of its shape."""
    from rkbench.trainer.experiment import Experiment

    config = importlib.import_module(f"rkbench.configs.{name}").get_config(variant)
    config.update({"total_steps": STEPS, "schedule": {"name": "constant"}} | settings)
    program = Experiment.with_synthetic_data(config, max(8, config.batch_size)).program
    state = program.init((0,))
    begin = time.perf_counter()
    compiled = program.compile(state, (0,))
    compilation = time.perf_counter() - begin
    begin = time.perf_counter()
    _, metrics = program.advance(state, (0,), 0, config.total_steps)
    loss = jax.device_get(metrics.loss)
    memory: Any = compiled.memory_analysis()
    return {
        "steps": config.total_steps,
        "compile": compilation,
        "step": (time.perf_counter() - begin) / config.total_steps,
        "loss": float(loss[config.total_steps - 1]),
        "temporary": memory.temp_size_in_bytes,
        "peak": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }


if __name__ == "__main__":
    _, NAME, VARIANT, *FIELDS = sys.argv
    SETTINGS = {field: ast.literal_eval(value) for field, value in (f.split("=") for f in FIELDS)}
    print(json.dumps(measure(NAME, VARIANT, SETTINGS)))
