"""What a sweep consists of: trials and rerun as configs and folders, before anything is trained."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from rkbench import errors, optimizers
from rkbench.configs import common
from rkbench.optimizers.baselines import Spending
from rkbench.records import identity
from rkbench.scoring.scores import QUANTITIES
from rkbench.sweep.sampling import Settings, sample
from rkbench.sweep.space import Space
from rkbench.trainer import costs
from rkbench.trainer.optimizer import check_optimizer, learning_rates

CHOSEN = "chosen"


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What all optimizers of a sweep have in common.

    Attributes:
      trials: how many an optimizer, at most.
      sampler: one of `sampling.SAMPLERS`, and `sampler_seed` its seed.
      metric: by which settings are chosen; not of the test set.
      quantity: of the metric, "final" or "best".
      tuning_seeds: with which every trial is trained; the metric is averaged over them.
      seeds: with which the chosen settings are trained again; none of them is a tuning seed.
      gradient_evaluations: the budget of each seed of each run, which no one exceeds; None: the
        config's own.
      evaluations: of each run, at equal shares of its steps; None: the config's `eval_every_steps`.
    """

    trials: int = 15
    sampler: str = "auto"
    sampler_seed: int = 0
    metric: str = "validation/accuracy"
    quantity: str = "final"
    tuning_seeds: tuple[int, ...] = (100,)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    gradient_evaluations: int | None = None
    evaluations: int | None = 40

    def __post_init__(self):
        split = self.metric.split("/")[0]
        if split not in ("validation", "train"):
            raise errors.UserError(
                f"metric={self.metric}: settings are chosen by the validation (or train) split, "
                "never by the test set; nearest: validation/accuracy, validation/loss"
            )
        if self.metric.split("/")[1:] not in (["accuracy"], ["loss"]):
            raise errors.unknown("metric", self.metric, (f"{split}/accuracy", f"{split}/loss"))
        if self.quantity not in QUANTITIES:
            raise errors.unknown("quantity", self.quantity, QUANTITIES)
        if not self.tuning_seeds:
            raise errors.UserError("tuning_seeds is empty: trials need at least one seed")
        if both := sorted(set(self.seeds) & set(self.tuning_seeds)):
            raise errors.UserError(
                f"seeds {both} are tuning seeds and reporting seeds at once: chosen settings are "
                "reported on seeds that had no part in the choice"
            )
        for name in ("gradient_evaluations", "evaluations"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise errors.UserError(f"{name}={value} must be at least 1")


@dataclasses.dataclass(frozen=True)
class Trial:
    """One setting of one optimizer, as an ordinary run.

    Attributes:
      optimizer: its name.
      number: from 0.
      settings: of the space's fields, as they are in the config.
      config: all of it, locked.
      folder: the run's.
    """

    optimizer: str
    number: int
    settings: Settings
    config: Any
    folder: pathlib.Path


@dataclasses.dataclass(frozen=True)
class Tuning:
    """One optimizer's part of a sweep.

    Attributes:
      optimizer: its name.
      space: its own.
      base: the config that trials change.
      trials: all of them.
      folder: of all its runs.
    """

    optimizer: str
    space: Space
    base: Any
    trials: tuple[Trial, ...]
    folder: pathlib.Path

    @property
    def traced(self) -> tuple[str, ...]:
        """The optimizer's numbers in which trials differ, beside the learning rate.

        They are data to the program that all trials share.
        """
        names = [field.partition(".")[2] for field in self.space if field.startswith("optimizer.")]
        values = {n: [t.config.optimizer[n] for t in self.trials] for n in names}
        return tuple(
            name
            for name, own in values.items()
            if name != "learning_rate" and all(isinstance(value, float) for value in own)
        )

    def program(self, trial: Trial) -> str:
        """What decides which compiled program a trial needs: equal for trials that can share one.

        Numbers that are data count only as being there (not zero), schedules not at all.
        """
        data = {"optimizer.learning_rate", *(f"optimizer.{name}" for name in self.traced)}
        parts = {
            field: bool(value) if field in data else value
            for field, value in trial.settings.items()
            if not field.startswith("schedule.")
        }
        return repr((trial.config.total_steps, parts))

    def chosen(self, trial: Trial, protocol: Protocol) -> Trial:
        """The trial's setting trained again: with the reporting seeds, and tested."""
        config = changed(trial.config, {"seeds": protocol.seeds, "eval_test": True})
        return dataclasses.replace(trial, config=config, folder=self.folder / CHOSEN)


def tuning(config: Any, space: Space, protocol: Protocol, workdir: pathlib.Path) -> Tuning:
    """The trials of a config's optimizer.

    Raises:
      UserError: a setting that cannot work, or a budget of less than a step.
    """
    name = config.optimizer.name
    if protocol.metric.startswith("validation/") and not config.validation_examples:
        raise errors.UserError(f"metric={protocol.metric} needs validation_examples > 0")
    base = changed(config, {"seeds": protocol.tuning_seeds, "eval_test": False})
    folder = workdir / name.replace(":", "-")
    sampled = sample(space, protocol.trials, protocol.sampler, protocol.sampler_seed)
    width = max(3, len(str(len(sampled) - 1)))
    within: dict[str, int] = {}
    trials = []
    for number, (settings, trial) in enumerate(_different(base, sampled)):
        try:
            check_optimizer(trial.optimizer, learning_rates(trial))
        except ValueError as error:
            raise errors.UserError(f"the search space of {name!r}: {settings}: {error}") from error
        trial = _with_budget(trial, protocol, within)
        path = folder / f"trial-{number:0{width}d}"
        trials.append(Trial(name, number, settings, trial, path))
    return Tuning(name, space, base, tuple(trials), folder)


def _different(base: Any, sampled: Sequence[Settings]) -> list[tuple[Settings, Any]]:
    """The settings as they run, whole numbers whole, and their configs; none is there twice."""
    found: dict[str, tuple[Settings, Any]] = {}
    for settings in sampled:
        trial = changed(base, settings)
        ran = {field: _ran(value, get(trial, field)) for field, value in settings.items()}
        found.setdefault(repr(ran), (ran, trial))
    return list(found.values())


def _ran(sampled: Any, configured: Any) -> Any:
    """The number that is in the config; of anything else what the space says, which is the same."""
    return configured if isinstance(configured, int | float) else sampled


def _with_budget(config: Any, protocol: Protocol, within: dict[str, int]) -> Any:
    """The config with steps and evaluations of the protocol.

    `within` keeps the steps by what decides them: the optimizer without its real numbers.
    """
    fields, steps, budget = {}, config.total_steps, protocol.gradient_evaluations
    if budget is not None:
        parts = repr([v for v in config.optimizer.values() if not isinstance(v, float)])
        if parts not in within:
            within[parts] = _steps_within(config, budget)
        steps = fields["total_steps"] = within[parts]
        if _spending(config) is Spending.BY_LOSS:
            fields["max_grad_evals"] = budget  # for the others the number of steps says it
    if protocol.evaluations is not None:
        every = -(-steps // protocol.evaluations)
        fields |= {"eval_every_steps": every, "log_every_steps": every}
    return changed(config, fields)


def _spending(config: Any) -> Spending:
    return optimizers.spending(config.optimizer.name, config.optimizer.get("tableau"))


def _steps_within(config: Any, budget: int) -> int:
    """The most steps that can stay within the budget."""
    name = config.optimizer.name
    if _spending(config) is Spending.BY_LOSS:
        if config.schedule.name != "constant":
            raise errors.UserError(
                f"schedule.name={config.schedule.name!r} with gradient_evaluations: how many steps "
                f"{name!r} takes with them is not known before, so only 'constant' can work"
            )
        return budget  # it ends before
    steps = costs.steps_within(config, budget)
    if not steps:
        raise errors.UserError(
            f"gradient_evaluations={budget} are less than the "
            f"{costs.grad_evals_of_step(config)} of one step of {name!r}"
        )
    return steps


def changed(config: Any, settings: Mapping[str, Any]) -> Any:
    """A locked copy of the config with these fields; whole numbers stay whole, as real ones real.

    Raises:
      UserError: a value of the wrong type.
    """
    copy = common.with_real_numbers(config).copy_and_resolve_references()
    with copy.unlocked():
        for field, value in settings.items():
            value = _fitting(field, value, get(copy, field))
            try:
                copy.update_from_flattened_dict({field: value})
            except TypeError as error:
                raise errors.UserError(f"{field}={value!r}: {error}") from error
    return common.with_real_numbers(copy).lock()


def get(config: Any, field: str) -> Any:
    """The value of "group.field"."""
    for name in field.split("."):
        config = config[name]
    return config


def _fitting(field: str, value: Any, old: Any) -> Any:
    """The value as the field can hold it: whole in whole fields, real in an optimizer's others."""
    group, _, name = field.partition(".")
    of_optimizer = group == "optimizer"
    if of_optimizer:
        value = common.number(name, value)
    # Some whole numbers of an optimizer's are None by default.
    whole = type(old) is int or (of_optimizer and common.is_whole(name))
    return round(value) if whole and isinstance(value, float) else value


def description(tunings: Sequence[Tuning], protocol: Protocol) -> dict[str, Any]:
    """What makes a folder this sweep's: plain JSON. The reporting seeds are not part of it."""
    fields = dataclasses.asdict(protocol)
    fields.pop("seeds")
    return {
        "protocol": identity.plain(fields),
        "optimizers": {
            one.optimizer: {
                "space": {field: str(distribution) for field, distribution in one.space.items()},
                "config": identity.of(identity.plain_config(one.base)),
            }
            for one in tunings
        },
    }
