"""`rkbench sweep --config=configs/mnist_mlp.py:rk4 --space=FILE --workdir=DIR`: tunes and reports.

Every trial is an ordinary run in DIR/<optimizer>/trial-000 and so on. The best by a metric of
examples held out of the training set is trained again, with other seeds and on the same training
examples, in DIR/<optimizer>/chosen: only these runs see the test set. With
--optimizers=adam,rk4,... every one is tuned by the same protocol. DIR/sweep.json holds all of it.

The same command again goes on where it stopped. --shard=1/4 trains every fourth trial, and may run
at the same time as the other three, on other machines with a folder in common. Fields of the config
are set for all trials by --config.FIELD=VALUE. Config and space are Python code: trust them.
"""

import re
from collections.abc import Sequence
from typing import Any

from absl import flags

from rkbench import paths
from rkbench.commands import command_line, config_flag
from rkbench.errors import UserError
from rkbench.trainer import preemption

SPACES = "configs/sweeps"


def run(argv: list[str]) -> None:
    """Runs the sweep of a command line and prints what came out."""
    values: Any = _flags()
    command_line.parse_flags(argv, values)
    for name, meaning in (("config", "the preset"), ("space", "the search space")):
        if getattr(values, name) is None:
            raise UserError(f"--{name} is missing: {meaning}")
    if not values.workdir:
        raise UserError("--workdir is missing: the folder of the sweep")
    shard = _shard(values.shard)
    from rkbench import sweep  # JAX loads only when it is needed
    from rkbench.sweep import output, space

    protocol = _protocol(values)
    workdir = paths.local(values.workdir)
    spaces = space.load(config_flag.find_file("space", values.space, SPACES, "[a-z]*_*.py"))
    configs = _configs(values, protocol.gradient_evaluations is not None)
    with preemption.handled():
        swept = sweep.sweep(configs, spaces, workdir, protocol, shard)
    print(output.text(swept.choices, protocol, swept.compilations))
    print(f"\n{workdir / output.FILE}")
    if swept.failures:
        failed = "; ".join(f"{folder}: {why}" for folder, why in swept.failures.items())
        raise UserError(f"{len(swept.failures)} runs failed: {failed}")


def _flags() -> flags.FlagValues:
    values = command_line.flag_values(__name__)
    text, number, numbers = flags.DEFINE_string, flags.DEFINE_integer, flags.DEFINE_list
    own: dict[str, Any] = {"flag_values": values}
    text("space", None, f"Search space, a file as {SPACES}/learning_rate.py", **own)
    text("workdir", None, "Folder of the sweep; made if it is not there", **own)
    numbers("optimizers", [], "Several, each instead of the config's own", **own)
    number("trials", 15, "Trials of each optimizer, at most", **own)
    text("sampler", "auto", "grid, halton, sobol; auto: a grid for one range, else halton", **own)
    number("sampler_seed", 0, "Of halton's and sobol's scrambling", **own)
    number("gradient_evaluations", None, "Budget of each seed instead of total_steps", **own)
    number("evaluations", 40, "Evaluations of each run; 0: as the config says", **own)
    text("metric", "validation/accuracy", "Of validation or train, accuracy or loss", **own)
    text("quantity", "final", "Of the metric: final or best", **own)
    numbers("tuning_seeds", ["100"], "Seeds of every trial", **own)
    numbers("seeds", ["0", "1", "2", "3", "4"], "Reporting seeds, of what is chosen", **own)
    text("shard", "1/1", "i/n: every n-th trial, from the i-th", **own)
    return values


def _protocol(values: Any) -> Any:
    from rkbench.sweep.plan import Protocol

    return Protocol(
        trials=values.trials,
        sampler=values.sampler,
        sampler_seed=values.sampler_seed,
        metric=values.metric,
        quantity=values.quantity,
        tuning_seeds=_seeds("tuning_seeds", values.tuning_seeds),
        seeds=_seeds("seeds", values.seeds),
        gradient_evaluations=values.gradient_evaluations,
        evaluations=values.evaluations or None,
    )


def _configs(values: Any, has_budget: bool) -> list[Any]:
    """The config of each optimizer, with the overrides of the command line."""
    given = values.config.overrides
    for field, instead in (("seeds", "--tuning_seeds and --seeds"), ("eval_test", "nothing")):
        if field in given:
            raise UserError(f"--config.{field} is the sweep's own; there is {instead} instead")
    if has_budget and "total_steps" in given:
        raise UserError("--config.total_steps and --gradient_evaluations contradict each other")
    names = list(values.optimizers)
    if repeated := [name for name in names if names.count(name) > 1]:
        raise UserError(f"--optimizers names {repeated[0]!r} twice")
    found = [values.config.config(name) for name in names or [None]]
    return [_prepared(config, given) for config in found]


def _prepared(config: Any, given: Any) -> Any:
    """The sweep's own defaults: a tenth of the examples held out, no TensorBoard."""
    from rkbench.sweep.plan import changed

    fields = {}
    if "tensorboard" not in given:
        fields["tensorboard"] = False
    if "validation_examples" not in given and not config.validation_examples:
        from rkbench import workloads
        from rkbench.workloads import datasets

        try:
            published, _ = datasets.published(workloads.dataset_name(config.workload))
        except UserError as error:
            raise UserError(f"--config.validation_examples is needed: {error}") from error
        fields["validation_examples"] = (config.train_examples or published) // 10
    return changed(config, fields)


def _seeds(name: str, words: Sequence[str]) -> tuple[int, ...]:
    try:
        seeds = tuple(int(word) for word in words)
    except ValueError as error:
        raise UserError(f"--{name}={','.join(words)}: whole numbers are needed") from error
    if len(set(seeds)) < len(seeds):
        raise UserError(f"--{name}={','.join(words)} names a seed twice")
    return seeds


def _shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"--shard={text}: i/n with 1 <= i <= n is needed")
    return int(match[1]) - 1, int(match[2])
