"""A sweep from its trials to its choices: trains what is missing, chooses, reports."""

import pathlib
from collections.abc import Sequence
from typing import Any

from rkbench.errors import UserError


def sweep(tunings: Sequence[Any], protocol: Any, workdir: pathlib.Path, shard: tuple[int, int]):
    """Trains what is missing of this shard, (i, n) with i from 0, chooses, and reports."""
    from rkbench.records import provenance
    from rkbench.step import compilation
    from rkbench.sweep import output, results
    from rkbench.sweep.train import Trainer
    from rkbench.trainer.experiment import Experiment

    compilation.enable_cache()
    record, origin = output.read(workdir, tunings, protocol), provenance.environment()
    experiment = None
    for one in tunings:
        for trial in one.trials:  # refuses what cannot work, before anything is written
            experiment = Experiment.from_config(trial.config, like=experiment, traced=one.traced)
    output.make_folder(workdir)
    index, count = shard
    everything = [trial for one in tunings for trial in one.trials]
    mine = {trial.folder for trial in everything[index::count]}
    reruns = tunings[index::count] if protocol.seeds else []
    trainer = Trainer(
        len(mine) + len(reruns),
        {name: choice["compilations"] for name, choice in record.get("choices", {}).items()},
    )

    def choose() -> list[results.Choice]:
        found = [results.choose(one, protocol, trainer.failures) for one in tunings]
        output.write(workdir, found, protocol, trainer.compilations, origin)
        return found

    def rerun(tuning: Any) -> None:
        best = results.choose(tuning, protocol, trainer.failures).best
        if tuning in reruns and best is not None:
            trainer.train(tuning, [tuning.chosen(best.trial, protocol)], protocol)

    for one in tunings:
        trainer.train(one, [trial for trial in one.trials if trial.folder in mine], protocol)
        choose()
        rerun(one)  # now, as the program is compiled
    for one in tunings:
        rerun(one)  # those that had to wait for other shards
    print(output.text(choose(), protocol, trainer.compilations))
    print(f"\n{workdir / output.FILE}")
    if trainer.failures:
        failed = "; ".join(f"{folder}: {why}" for folder, why in trainer.failures.items())
        raise UserError(f"{len(trainer.failures)} runs failed: {failed}")
