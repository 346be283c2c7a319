"""Tuning that is fair: a search space, equal budgets, and a choice on held-out examples.

    space -> sampling -> plan (trials as configs) -> train -> results (choice, warnings)

Every trial is an ordinary run in a folder of its own, and all that is concluded from them is read
from these folders: `sweep.json` only says in one place what they hold.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rkbench.sweep.plan import Protocol
    from rkbench.sweep.space import Space
    from rkbench.sweep.tune import Swept


def sweep(
    configs: Sequence[Any],
    spaces: "Mapping[str, Space]",
    workdir: pathlib.Path | str,
    protocol: "Protocol | None" = None,
    shard: tuple[int, int] = (0, 1),
) -> "Swept":
    """Tunes the optimizers of the configs alike, as `rkbench sweep` does, and returns the choices.

    Args:
      configs: ConfigDicts, each with another optimizer. For a metric of the validation split they
        must hold out examples: `config.validation_examples`.
      spaces: {name of an optimizer, or "*" for all others: {field: its distribution}}.
      workdir: the sweep's folder; the same call again goes on where it stopped.
      protocol: trials, sampler, metric, seeds and budget; None: the defaults.
      shard: (i, n) with i from 0: only every n-th trial, from the i-th.

    Raises:
      UserError: a config or a space cannot work, or the folder cannot be used.
    """
    from rkbench import paths
    from rkbench.sweep import plan, space, tune  # JAX loads only when it is needed

    protocol, folder = protocol or plan.Protocol(), paths.local(workdir)
    tunings = [
        plan.tuning(config, space.of_optimizer(spaces, config), protocol, folder)
        for config in configs
    ]
    return tune.sweep(tunings, protocol, folder, shard)
