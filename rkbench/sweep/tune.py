"""A sweep from its trials to its choices: trains what is missing, and chooses."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rkbench.sweep import results
    from rkbench.sweep.plan import Protocol, Tuning


@dataclasses.dataclass(frozen=True)
class Swept:
    """What a sweep came to.

    Attributes:
      choices: one an optimizer: its trials with their results, the best, and warnings.
      compilations: the programs that were compiled for each optimizer.
      failures: {folder: why} of runs that failed.
    """

    choices: "Sequence[results.Choice]"
    compilations: Mapping[str, int]
    failures: Mapping[pathlib.Path, str]


def sweep(
    tunings: "Sequence[Tuning]",
    protocol: "Protocol",
    workdir: pathlib.Path,
    shard: tuple[int, int] = (0, 1),
) -> Swept:
    """Trains what is missing of this shard, (i, n) with i from 0, and chooses.

    The same call goes on where it stopped; `workdir`/sweep.json holds what is returned.

    Args:
      tunings: of `plan.tuning`, one an optimizer.
      protocol: what they have in common.
      workdir: the sweep's folder, that of the tunings.
      shard: (0, 1): everything.

    Raises:
      UserError: a config cannot work, or the folder cannot be used. Nothing is written then.
    """
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

    def rerun(tuning: "Tuning") -> None:
        best = results.choose(tuning, protocol, trainer.failures).best
        if tuning in reruns and best is not None:
            trainer.train(tuning, [tuning.chosen(best.trial, protocol)], protocol)

    for one in tunings:
        trainer.train(one, [trial for trial in one.trials if trial.folder in mine], protocol)
        choose()
        rerun(one)  # now, as the program is compiled
    for one in tunings:
        rerun(one)  # those that had to wait for other shards
    return Swept(choose(), trainer.compilations, trainer.failures)
