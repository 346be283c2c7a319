"""What the JSON files of runs must look like: the types that msgspec checks them against.

A field that is in no type may hold anything, though nothing in a file is nested deeper than
`MOST_LEVELS`. A file is checked where it is read (`records.read_object`), and only there.
"""

from typing import Annotated, Any, Literal, Required, TypedDict

from msgspec import Meta

MOST_LEVELS = 12
LARGEST = 1e100  # of any number; what is computed of several stays finite

Whole = Annotated[int, Meta(ge=0, le=2**53)]
Amount = Annotated[float, Meta(ge=0, le=LARGEST)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Number = Annotated[float, Meta(ge=-LARGEST, le=LARGEST)]
Name = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"\A[^\x00-\x1f\x7f-\x9f]*\Z")]

Object = dict[str, Any]


class Optimizer(TypedDict, total=False):
    """The group `optimizer` of a config; the rates are what curves are drawn against."""

    name: Required[Name]
    learning_rate: Amount | None
    c: Amount | None


class Config(TypedDict, total=False):
    """What is read of a config beside its comparison."""

    workload: Required[Name]
    optimizer: Required[Optimizer]
    total_steps: Whole
    eval_every_steps: Whole
    log_every_steps: Whole
    seeds: list[Whole]


class Data(TypedDict, total=False):
    """The data of a run; `full_...`: of what is published."""

    name: Name
    sha256: str
    subset: bool
    train_examples: Whole
    test_examples: Whole
    validation_examples: Whole
    full_train_examples: Whole
    full_test_examples: Whole


class Subset(Data):
    """The same where they are a part of what is published."""

    name: Required[Name]
    train_examples: Required[Whole]
    test_examples: Required[Whole]
    full_train_examples: Required[Whole]
    full_test_examples: Required[Whole]


class Origin(TypedDict, total=False):
    """Where seeds come from."""

    command: list[str]
    started: str
    host: Object
    devices: list[str]
    commit: str | None
    dirty: bool | None
    versions: dict[str, str | None]


class Part(Origin, total=False):
    """A part of a run, with its seeds; `resumed`: when the same command was started again."""

    seeds: list[Whole]
    resumed: list[str]


class Entry(TypedDict, total=False):
    """What a seed came to; see `summary.of_seed`."""

    seed: Required[Whole]
    status: Required[Literal["done", "diverged"]]
    steps: Required[Whole]
    seconds: Required[Amount]
    grad_evals: Required[Whole]
    best_test_accuracy: Fraction | None
    best_test_step: Whole | None
    final_test_accuracy: Fraction | None


class Fingerprint(TypedDict):
    """See `metrics.Fingerprint`."""

    lines: Whole
    sha256: str


class Plugin(TypedDict):
    """What of a run comes from a plug-in, by kind; see `plugins.used`."""

    name: str
    plugin: str
    version: str


class RunRecord(Origin, total=False):
    """run.json."""

    config: Required[Config]
    config_hash: str
    data: Data | None
    groups: list[list[Whole]]
    numerics: Object
    plugins: dict[str, Plugin]
    logs: dict[str, Fingerprint]
    parts: list[Part]
    seeds: list[Entry]
    status: str
    error: str
    seconds: Amount
    grad_evals: Whole


class RunOfSubset(RunRecord, total=False):
    """run.json of a run on a part of the published data."""

    data: Subset


class SweepChoice(TypedDict, total=False):
    """What sweep.json says of an optimizer, as far as it is read again."""

    compilations: Required[Whole]


class SweepRecord(Origin, total=False):
    """sweep.json."""

    parts: list[Part]
    seeds: list[Whole]
    sweep: Required[Object]
    choices: dict[str, SweepChoice]


class ScoresTable(TypedDict, total=False):
    """scores.json, as far as it says what was compared."""

    metric: Required[Name]
    targets: dict[str, Number] | Number | None
    reference: str | None


class Failure(TypedDict):
    """failed.json: why a run of the paper's could not be trained."""

    error: str


class Made(TypedDict, total=False):
    """An entry of manifest.json: how a table or figure was made."""

    scale: Required[str]
    rows: list[Whole]
    number: Whole
    axis: str
