"""Run folders made by hand, as the trainer writes them, for tests of reports and comparisons."""

import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from rkbench import files
from rkbench.records import identity, metrics, summary

GRADIENTS = {"adam": 1, "sgd": 1, "rk4": 4}


def write_run(
    folder: pathlib.Path,
    optimizer: str = "rk4",
    learning_rate: float = 0.1,
    seeds: Sequence[int] = (0,),
    points: int = 11,
    workload: str = "mnist_mlp",
    diverges: bool = False,
    split: str = "test",
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes run.json and metrics.jsonl of a finished run of 10 steps a point; the record.

    The accuracy rises to 0.9 or so, by the learning rate and seed, and wiggles on its way.
    """
    folder.mkdir(parents=True)
    lines = [
        line
        for seed in seeds
        for line in _lines(optimizer, learning_rate, seed, points, split, diverges)
    ]
    writer = metrics.JsonLinesWriter(folder / "metrics.jsonl")
    for line in lines:
        writer.write_line(line)
    writer.close()
    config = {
        "workload": workload,
        "optimizer": {"name": optimizer, "learning_rate": learning_rate},
        "batch_size": 32,
        "total_steps": 10 * (points - 1),
        "eval_every_steps": 10,
        "log_every_steps": 10,
        "seeds": list(seeds),
        **(more or {}),
    }
    last = 10 * ((points // 2 if diverges else points) - 1)
    entries = [
        summary.of_seed(lines, seed, last if diverges else None, 0.1 * points, last)
        for seed in seeds
    ]
    record = {
        "config": config,
        "config_hash": identity.config_hash(config),
        "command": ["rkbench", "train", f"--workdir={folder}"],
        "started": "2026-01-02T03:04:05+00:00",
        "commit": "0123456789abcdef",
        "dirty": False,
        "devices": ["cpu: cpu"],
        "versions": {"jax": "0.10.2"},
        "data": {"name": workload.partition("_")[0]},
        **summary.of_run(entries),
        "seeds": entries,
    }
    files.write_json(folder / "run.json", record)
    return record


def _lines(optimizer, learning_rate, seed, points, split, diverges):
    best = 0.9 - 0.05 * abs(math.log10(learning_rate / 0.1)) + 0.002 * (seed % 100)
    for i in range(points // 2 if diverges else points):
        common = {
            "step": 10 * i,
            "seed": seed,
            "wall_time": round(0.1 * i * (1 + 0.01 * seed), 6),
            "grad_evals": 10 * i * GRADIENTS[optimizer],
        }
        wiggle = 0.01 * math.sin(17.0 * i + seed)
        accuracy = best - (best - 0.1) * math.exp(-6 * i / points) + wiggle
        yield common | {
            f"{split}/accuracy": accuracy,
            f"{split}/loss": 2.3 * (1 - accuracy),
            "train/accuracy": accuracy + 0.02,
            "train/loss": 2.3 * (0.98 - accuracy),
        }
        if i:
            step = {"batch/loss": 2.5 * (1 - accuracy) + wiggle, "batch/grad_norm": 1 + wiggle}
            yield common | step | {"batch/learning_rate": learning_rate}


def write_sweep(folder: pathlib.Path, points: int = 11) -> None:
    """Writes what a sweep leaves: trials on a validation split, and reruns of the chosen ones."""
    for optimizer in ("adam", "rk4"):
        for number, rate in enumerate((0.001, 0.01, 0.1, 1.0, 10.0)):
            write_run(
                folder / optimizer / f"trial-{number:03d}",
                optimizer,
                rate,
                (100,),
                points,
                split="validation",
                diverges=rate == 10,
                more={"eval_test": False},
            )
        write_run(folder / optimizer / "chosen", optimizer, 0.1, (0, 1, 2), points)


def damage(folder: pathlib.Path) -> None:
    """Cuts the log off in the middle of a line."""
    log = folder / "metrics.jsonl"
    text = log.read_text()
    log.write_text(text[: len(text) // 2])


def rewrite(folder: pathlib.Path, **changes: Any) -> None:
    """Changes fields of run.json."""
    record = json.loads((folder / "run.json").read_text())
    files.write_json(folder / "run.json", record | changes)
