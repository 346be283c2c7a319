"""`rkbench convert --dataset=imagenet2012 --data_dir=DIR`: a dataset made fit for random access.

TFDS prepares datasets as TFRecords, which can only be read in order; this writes the same dataset
as ArrayRecords, beside it or in a folder of your choice, once. It takes as much space again, and it
can be interrupted: started again, it goes on with the split it was at. At the end the number of
examples and a checksum over labels and images must be those of the source.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

import tqdm

from rkbench import errors, paths
from rkbench.commands.command_line import Parser, folder_path

_DATASETS = ("imagenet2012",)
_SECONDS_BETWEEN_LINES = 10.0  # where stderr is not a terminal


def run(argv: list[str]) -> None:
    """Converts, showing progress and the remaining time, and prints where the result is."""
    from rkbench.workloads.imagenet import convert, records

    parser = Parser(prog=argv[0], description=__doc__)
    parser.add_argument("--dataset", required=True, help=", ".join(_DATASETS))
    parser.add_argument(
        "--data_dir", help="the TFDS folder; default: $TFDS_DATA_DIR, or TFDS's own"
    )
    parser.add_argument(
        "--output_dir",
        type=folder_path,
        help="the TFDS folder to write to; default: array_record in --data_dir, where the "
        "workload looks for it",
    )
    arguments = parser.parse_args(argv[1:])
    if arguments.dataset not in _DATASETS:
        raise errors.unknown("dataset", arguments.dataset, _DATASETS)
    root = paths.data_folder(arguments.data_dir)
    output = arguments.output_dir or root / records.CONVERTED
    dataset = Path(records.NAME, records.VERSION)
    try:
        done = convert.convert(root / dataset, output / dataset, _watch)
    except OSError as error:  # no space, no permission
        raise errors.UserError(f"cannot convert {root / dataset}: {error}") from error
    for split, entry in done.items():
        print(f"{split}: {entry['examples']} examples, SHA-256 {entry['sha256']}")
    print(f"{output / dataset}; train with --config.data_dir={arguments.output_dir or root}")


def _watch(what: str, total: int, examples: Iterable) -> Iterable:
    seconds = 0.1 if sys.stderr.isatty() else _SECONDS_BETWEEN_LINES
    return tqdm.tqdm(examples, desc=what, total=total, unit=" images", mininterval=seconds)
