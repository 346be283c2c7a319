"""What is published of a comparison, computed again from the records beside it."""

import pathlib

from rkbench.comparison.pictures import Compared, pictures
from rkbench.drawing.artefact import Artefact
from rkbench.records import read_object, schemas
from rkbench.records.names import namer
from rkbench.scoring import collect, output, tabulate

RECORDS, SCORES = "records", "scores.json"


def artefacts(folder: pathlib.Path) -> list[Artefact]:
    """The tables and pictures in the folder, as `rkbench score` and `rkbench compare` wrote them.

    They are made from its `records/` by the metric, targets and reference that its `scores.json`
    names.

    Raises:
      UserError: there is no such file, or no run.
    """
    told = read_object(folder / SCORES, "a table of scores", schemas.ScoresTable)
    collection, name = collect([folder / RECORDS]), namer([folder / RECORDS])
    metric, targets, reference = told["metric"], told.get("targets"), told.get("reference")
    scores = output.files(tabulate(collection, metric, targets, reference, name))
    tables = [Artefact(file, {file: text}) for file, text in scores.items()]
    return [*tables, *pictures(Compared.of(collection, metric, targets), name)]
