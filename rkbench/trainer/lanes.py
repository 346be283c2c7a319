"""The lanes of a group: which seed of which run each is, and the logs and records they write."""

import pathlib
import shutil
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from rkbench.records import metrics
from rkbench.records.run_log import RunLog
from rkbench.records.summary import SeedSummary
from rkbench.records.workdir import Workdir
from rkbench.trainer.checkpoint import unused_name


class Lane(NamedTuple):
    """One seed of one run; those of a group train together."""

    run: Workdir
    log: RunLog
    seed: int


class Outcome(NamedTuple):
    """How the training of a lane ended."""

    steps: int
    seconds: float
    diverged: int | None  # the step at which it did


class _RunLanes(NamedTuple):
    """The lanes of one run."""

    run: Workdir
    log: RunLog
    seeds: dict[int, int]  # by the lane's column in the group


class Lanes:
    """The lanes of a group, each a column of the leading axis of its state.

    Attributes:
      seeds: of each lane.
    """

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self._lanes = tuple(lanes)
        self.seeds = tuple(lane.seed for lane in lanes)
        runs: dict[pathlib.Path, _RunLanes] = {}
        for column, lane in enumerate(lanes):
            own = runs.setdefault(lane.run.folder, _RunLanes(lane.run, lane.log, {}))
            own.seeds[column] = lane.seed
        self._runs = tuple(runs.values())

    def __len__(self) -> int:
        return len(self._lanes)

    def __getitem__(self, column: int) -> Lane:
        return self._lanes[column]

    @property
    def label(self) -> str:
        """What the progress calls them."""
        label = f"seed {','.join(map(str, dict.fromkeys(self.seeds)))}"
        return label if len(self._runs) == 1 else f"{len(self._runs)} runs, {label}"

    def own(self, tree: Any, column: int, axis: int = 0) -> Any:
        """One lane's part of a tree whose leaves have an axis for lanes, if there are several."""
        if len(self) == 1:
            return tree
        return jax.tree.map(lambda leaf: leaf.take(column, axis), tree)

    def begin(self) -> None:
        """Notes in each run which of its seeds train together."""
        for own in self._runs:
            own.run.begin_group(list(own.seeds.values()))

    def flush(self) -> None:
        """Writes out the logs."""
        for own in self._runs:
            own.log.flush()

    def fingerprints(self) -> list[Any]:
        """The fingerprint of each run's log as it is now."""
        return [own.log.fingerprint() for own in self._runs]

    def check(self, known: Sequence[list[Any]]) -> None:
        """Checks that the logs hold what they held when one of the `known` was taken.

        Raises:
          ValueError: they do not.
        """
        for number, own in enumerate(self._runs):
            seeds = tuple(own.seeds.values())
            if not any(own.log.holds(seeds, fingerprints[number]) for fingerprints in known):
                raise ValueError("metrics.jsonl has lost or changed lines from before it")

    def truncate(self, fingerprints: list[Any] | None, without_evaluation: int | None = None):
        """Cuts the logs to the lines that they had when the fingerprints were taken; None: to none.

        An evaluation at the step `without_evaluation` is cut off as well.
        """
        for number, own in enumerate(self._runs):
            seeds = tuple(own.seeds.values())
            lines = 0 if fingerprints is None else fingerprints[number]["lines"]
            if without_evaluation is not None:
                lines = own.log.without_evaluation(seeds, without_evaluation, lines)
            own.log.truncate(seeds, lines)

    def copy_logs(self, checkpoints: pathlib.Path) -> None:
        """Copies the logs, which begin anew as no checkpoint is left, beside the damaged ones."""
        for own in self._runs:
            log = own.run.folder / "metrics.jsonl"
            if log.is_file():
                name = f"damaged-{checkpoints.name}-{own.run.folder.name}.jsonl"
                kept = unused_name(checkpoints.parent / name)
                shutil.copyfile(log, kept)
                print(
                    f"rkbench: no checkpoint is left: training begins anew, and the log so far is "
                    f"kept as {kept}",
                    file=sys.stderr,
                )

    def finish(self, outcomes: Sequence[Outcome], parameters: int) -> None:
        """Adds the seeds, with what their logs hold, to the records of their runs."""
        for own in self._runs:
            gathered = {seed: SeedSummary() for seed in own.seeds.values()}
            for record in metrics.read(own.run.folder / "metrics.jsonl"):
                if record["seed"] in gathered:
                    gathered[record["seed"]].add(record)
            fingerprints = metrics.fingerprints(own.run.folder / "metrics.jsonl")
            entries = {entry["seed"]: entry for entry in own.run.record["seeds"]}
            logs = dict(own.run.record.get("logs", {}))
            for column, seed in own.seeds.items():
                steps, seconds, diverged = outcomes[column]
                entries[seed] = gathered[seed].entry(seed, diverged, seconds, steps)
                logs[str(seed)] = fingerprints[seed]
            seeds = [entries[seed] for seed in sorted(entries)]
            own.run.write(seeds=seeds, parameters=parameters, logs=logs)
