"""What is published of a comparison, computed again from the records beside it."""

import pathlib

from rkbench.comparison.pictures import Compared, pictures
from rkbench.records import read_object, schemas
from rkbench.records.names import namer
from rkbench.scoring import collect, output, tabulate

RECORDS, SCORES = "records", "scores.json"


def files(folder: pathlib.Path) -> dict[str, str]:
    """{name: content} of the tables, and of the numbers behind the pictures, in the folder.

    By the metric, targets and reference that its `scores.json` names, as `rkbench score` and
    `rkbench compare` wrote them from its `records/`.

    Raises:
      UserError: there is no such file, or no run.
    """
    told = read_object(folder / SCORES, "a table of scores", schemas.ScoresTable)
    collection, name = collect([folder / RECORDS]), namer([folder / RECORDS])
    metric, targets, reference = told["metric"], told.get("targets"), told.get("reference")
    found = output.files(tabulate(collection, metric, targets, reference, name))
    compared = Compared.of(collection, metric, targets)
    return found | {f"{one.name}.csv": one.numbers for one in pictures(compared, name)}
