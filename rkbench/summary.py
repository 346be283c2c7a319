"""A run's summary, computed from its log alone."""

from collections.abc import Iterable
from typing import Any

Record = dict[str, Any]

ENDS = ("done", "diverged")  # of a run and of a seed; before: "running", "failed"


def of_seed(
    records: Iterable[Record], seed: int, diverged: int | None, seconds: float, steps: int
) -> Record:
    """One seed's entry of run.json from the records of metrics.jsonl.

    `best_test_accuracy` is the largest over all evaluations, at the first step that reaches it: it
    is selected on the test set, as in the paper; `final_test_accuracy` is that of the last step,
    None for a seed that diverged.

    Args:
      records: all records of the run.
      seed: whose.
      diverged: the step at which the seed diverged, or None.
      seconds: of training.
      steps: done.
    """
    own = [record for record in records if record["seed"] == seed]
    accuracies = [
        (record["test/accuracy"], record["step"])
        for record in own
        if record.get("test/accuracy") is not None
    ]
    best, best_step = max(accuracies, key=lambda pair: (pair[0], -pair[1]), default=(None, None))
    final = accuracies[-1][0] if accuracies and diverged is None else None
    return {
        "seed": seed,
        "status": "done" if diverged is None else "diverged",
        "steps": steps if diverged is None else diverged,
        "seconds": round(seconds, 3),
        "grad_evals": max((record["grad_evals"] for record in own), default=0),
        "best_test_accuracy": best,
        "best_test_step": best_step,
        "final_test_accuracy": final,
    }


def of_run(seeds: list[Record]) -> Record:
    """The run's own fields from its seeds' entries; a run is "diverged" when every seed is."""
    every_seed_diverged = all(entry["status"] == "diverged" for entry in seeds)
    return {
        "status": "diverged" if every_seed_diverged else "done",
        "steps": max(entry["steps"] for entry in seeds),
        "seconds": round(sum(entry["seconds"] for entry in seeds), 3),
        "grad_evals": sum(entry["grad_evals"] for entry in seeds),
    }


def text(record: Record) -> str:
    """The lines that end a run: one a seed, and one where the data are part of the published."""
    lines = []
    for entry in record["seeds"]:
        if entry["status"] == "diverged":
            outcome = f"diverged at step {entry['steps']}"
        else:
            outcome = f"final test accuracy {_percent(entry['final_test_accuracy'])}"
        if entry["best_test_accuracy"] is not None:  # else the test set was not looked at
            best = _percent(entry["best_test_accuracy"])
            outcome += f", best {best} at step {entry['best_test_step']}"
        lines.append(
            f"seed {entry['seed']}: {outcome}, {entry['grad_evals']} gradient evaluations, "
            f"{entry['seconds']:.1f} s of training"
        )
    if part := subset(record):
        lines.append(f"on a subset of {part}")
    return "\n".join(lines)


def subset(record: Record) -> str:
    """Which part of the published data the run had; "" for all of it."""
    data = record.get("data") or {}
    if not data.get("subset"):
        return ""
    text = (
        f"{data['name']}: {data['train_examples']:,} of {data['full_train_examples']:,} training "
        f"and {data['test_examples']:,} of {data['full_test_examples']:,} test examples"
    )
    if held_out := data.get("validation_examples"):
        text += f", {held_out:,} training examples held out for validation"
    return text


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.2f} %"
