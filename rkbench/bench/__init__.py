"""Benchmarks: speed and memory, as ratios measured within one run."""

import pathlib
import platform

# name: (module, function); a function yields rows as it measures them
BENCHMARKS = {
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


def machine() -> str:
    """The machine, the versions and the commit, in one line."""
    import os

    import jax

    from rkbench.records.provenance import source_commit

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
