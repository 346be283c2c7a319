"""Which pictures a comparison has, and what each of them shows."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from rkbench.comparison import curves, profile_picture, sensitivity, stability
from rkbench.comparison.contenders import Profiles, contenders, first_metric, profiles
from rkbench.drawing import plotting
from rkbench.records.names import Namer, file_name
from rkbench.scoring import Robustness, Score, score
from rkbench.scoring.collect import Collection
from rkbench.scoring.tables import ranges


class Picture(NamedTuple):
    """A picture before it is drawn: its file's name, what it shows as CSV, and how it is drawn."""

    name: str
    numbers: str
    draw: Callable[[pathlib.Path], list[pathlib.Path]]


@dataclasses.dataclass(frozen=True)
class Compared:
    """What pictures are drawn of.

    Attributes:
      scores: of every setting, by one metric.
      varied: the methods whose learning rates were varied.
      profiles: over tasks.
    """

    scores: tuple[Score, ...]
    varied: tuple[Robustness, ...]
    profiles: Profiles

    @classmethod
    def of(
        cls,
        collection: Collection,
        metric: str | None = None,
        goals: Mapping[str, float] | float | None = None,
    ) -> "Compared":
        """Compares the collection by the metric, None for the first there is.

        Raises:
          UserError: no such metric, or a goal is for a task that is not there.
        """
        metric = metric or first_metric(collection)
        scores = score(collection, metric)
        return cls(tuple(scores), tuple(ranges(collection, metric)), profiles(scores, goals))


def pictures(compared: Compared, name: Namer) -> Iterator[Picture]:
    """Every picture that there are runs for; `name` is that of a run's folder."""
    found = contenders(compared.scores)
    for task in dict.fromkeys(one.setting.task for one in found):
        figure = curves.figure([one for one in found if one.setting.task == task])
        numbers, draw = plotting.points(figure), functools.partial(plotting.draw, figure)
        yield Picture(file_name("curves", task), numbers, draw)
    families = [family for family in compared.varied if family.rates[0].value > 0]
    for task in dict.fromkeys(family.task for family in families):
        own = [family for family in families if family.task == task]
        numbers = sensitivity.numbers(own, name)
        for kind, module in (("sensitivity", sensitivity), ("stability", stability)):
            draw = functools.partial(module.draw, own, name=name)
            yield Picture(file_name(kind, task), numbers, draw)
    if compared.profiles.contenders:
        draw = functools.partial(profile_picture.draw, compared.profiles)
        yield Picture("performance-profiles", profile_picture.numbers(compared.profiles), draw)
