"""Which pictures a comparison has, and what each of them shows."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from matplotlib.figure import Figure as Canvas

from rkbench.comparison import curves, profile_picture, sensitivity, stability
from rkbench.comparison.contenders import Profiles, contenders, first_metric, profiles
from rkbench.drawing import plotting
from rkbench.drawing.artefact import Artefact
from rkbench.records.names import Namer, file_name
from rkbench.scoring import Robustness, Score, score
from rkbench.scoring.collect import Collection
from rkbench.scoring.tables import ranges


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


def pictures(compared: Compared, name: Namer) -> Iterator[Artefact]:
    """Every picture that there are runs for; `name` is that of a run's folder."""
    found = contenders(compared.scores)
    for task in dict.fromkeys(one.setting.task for one in found):
        figure = curves.figure([one for one in found if one.setting.task == task])
        yield plotting.artefact(figure, file_name("curves", task))
    families = [family for family in compared.varied if family.rates[0].value > 0]
    for task in dict.fromkeys(family.task for family in families):
        own = [family for family in families if family.task == task]
        numbers = sensitivity.numbers(own, name)
        for kind, module in (("sensitivity", sensitivity), ("stability", stability)):
            yield _artefact(file_name(kind, task), numbers, module.picture, own)
    if compared.profiles.contenders:
        numbers = profile_picture.numbers(compared.profiles)
        picture = profile_picture.picture
        yield _artefact("performance-profiles", numbers, picture, compared.profiles)


def _artefact(name: str, numbers: str, picture: Callable[[Any], Canvas], drawn: Any) -> Artefact:
    return Artefact(name, {f"{name}.csv": numbers}, functools.partial(picture, drawn))
