"""A run's summary, computed from its log alone."""

from collections.abc import Iterable

from rkbench.records.metrics import Line
from rkbench.records.schemas import Object

ENDS = ("done", "diverged")  # of a run and of a seed; before: "running", "failed"


class SeedSummary:
    """One seed's entry of run.json, gathered from the lines of its log as they pass by.

    `best_test_accuracy` is the largest over all evaluations, at the first step that reaches it: it
    is selected on the test set, as in the paper; `final_test_accuracy` is that of the last step,
    None for a seed that diverged.
    """

    def __init__(self) -> None:
        self._grad_evals = 0
        self._best: float | None = None
        self._best_step: int | None = None
        self._final: float | None = None

    def add(self, line: Line) -> None:
        """Takes in the seed's next line."""
        self._grad_evals = max(self._grad_evals, line["grad_evals"])
        accuracy = line.get("test/accuracy")
        if accuracy is not None:
            self._final = accuracy
            if self._best is None or accuracy > self._best:
                self._best, self._best_step = accuracy, line["step"]

    def entry(self, seed: int, diverged: int | None, seconds: float, steps: int) -> Object:
        """The entry.

        Args:
          seed: whose.
          diverged: the step at which it diverged, or None.
          seconds: of training.
          steps: done.
        """
        return {
            "seed": seed,
            "status": "done" if diverged is None else "diverged",
            "steps": steps if diverged is None else diverged,
            "seconds": round(seconds, 3),
            "grad_evals": self._grad_evals,
            "best_test_accuracy": self._best,
            "best_test_step": self._best_step,
            "final_test_accuracy": self._final if diverged is None else None,
        }


def of_seed(
    lines: Iterable[Line], seed: int, diverged: int | None, seconds: float, steps: int
) -> Object:
    """The same from lines among which are those of other seeds; see `SeedSummary`."""
    gathered = SeedSummary()
    for line in lines:
        if line["seed"] == seed:
            gathered.add(line)
    return gathered.entry(seed, diverged, seconds, steps)


def of_run(seeds: list[Object]) -> Object:
    """The run's own fields from its seeds' entries; a run is "diverged" when every seed is."""
    every_seed_diverged = all(entry["status"] == "diverged" for entry in seeds)
    return {
        "status": "diverged" if every_seed_diverged else "done",
        "steps": max(entry["steps"] for entry in seeds),
        "seconds": round(sum(entry["seconds"] for entry in seeds), 3),
        "grad_evals": sum(entry["grad_evals"] for entry in seeds),
    }


def text(record: Object) -> str:
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


def subset(record: Object) -> str:
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
