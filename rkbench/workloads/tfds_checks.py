"""What a TFDS folder says of itself, checked before TFDS reads it: such a folder may be anybody's.

TFDS imports the module of every class that `features.json` names, and TensorFlow aborts the process
where `dataset_info.json` has lengths that cannot be. So both files must say what the dataset is.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rkbench.errors import UserError
from rkbench.records import read_object

INFO = "dataset_info.json"
FEATURES = "features.json"

_PACKAGE = "tensorflow_datasets.core.features."
_DICT = f"{_PACKAGE}features_dict.FeaturesDict"
_CLASSES = {  # what a feature can be: its class, and the field with its content
    f"{_PACKAGE}image_feature.Image": "image",
    f"{_PACKAGE}class_label_feature.ClassLabel": "classLabel",
    f"{_PACKAGE}text_feature.Text": "text",
}
_IMAGE, _LABEL, _ = _CLASSES
_TEMPLATE = re.compile(r"(\{DATASET\}-\{SPLIT\}\.\{FILEFORMAT\}-\{SHARD_[A-Z_]+\})?")
ANY = -1  # of an image's height and width


def check(folder: Path, name: str, image_shape: Sequence[int], sizes: Mapping[str, int]) -> None:
    """Raises a UserError where `folder` does not hold images with labels as they must be.

    Args:
      folder: `<data_dir>/<name>/<version>`; nothing is read but its two JSON files.
      name: of the dataset.
      image_shape: height, width, channels; `ANY` for any.
      sizes: the most examples that each split can have, those of the published dataset.
    """
    _check_info(folder / INFO, name, sizes)
    _check_features(folder / FEATURES, image_shape)


def _check_info(path: Path, name: str, sizes: Mapping[str, int]) -> None:
    info = read_object(path, "the description of a dataset")
    if info.get("name") != name:
        raise UserError(f"{path}: describes {info.get('name')!r}, not {name}")
    splits = info.get("splits")
    if not isinstance(splits, list) or not all(isinstance(split, dict) for split in splits):
        raise UserError(f"{path}: has no list of splits")
    for split in splits:
        template = str(split.get("filepathTemplate", ""))
        if not _TEMPLATE.fullmatch(template):
            raise UserError(f"{path}: cannot have files called {template!r}")
        if aliases := [field for field in split if "_" in field]:  # protobuf would read them too
            raise UserError(f"{path}: a split has the unknown field {aliases[0]!r}")
        lengths = split.get("shardLengths", [])
        most = sizes.get(str(split.get("name")), 0)
        whole = isinstance(lengths, list) and all(_is_number(length) for length in lengths)
        if not whole or len(lengths) > most or sum(map(int, lengths)) > most:
            raise UserError(
                f"{path}: split {split.get('name')!r} cannot be: {name} has at most {most} such "
                "examples"
            )


def _is_number(value: Any) -> bool:
    """Whether it is a length as protobuf writes one in JSON."""
    return (type(value) is int and value >= 0) or (
        isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value) is not None
    )


def _check_features(path: Path, image_shape: Sequence[int]) -> None:
    features = _features(path)
    for feature, (python_class, _) in features.items():
        if python_class not in _CLASSES:
            raise UserError(f"{path}: feature {feature!r} is a {python_class!r}, which none can be")
    for feature, python_class in (("image", _IMAGE), ("label", _LABEL)):
        if features.get(feature, ("", {}))[0] != python_class:
            raise UserError(f"{path}: has no feature {feature!r} of {python_class}")
    image = features["image"][1]
    shape = image.get("shape")
    dimensions = shape.get("dimensions") if isinstance(shape, dict) else shape
    found = [str(ANY if n is None else n) for n in dimensions or []]
    if found != [str(n) for n in image_shape] or image.get("dtype") != "uint8":
        raise UserError(
            f"{path}: images are {image.get('dtype')} of shape {found}, not uint8 of shape "
            f"{list(image_shape)}"
        )


def _features(path: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    """Class and content of each feature; no key is left that TFDS would read and this does not.

    TFDS before 4.5 wrote "type" and "content".
    """
    found = read_object(path, "a description of features")
    try:
        if found.keys() == {"type", "content"}:
            _expect(found["type"] == _DICT)
            return {name: _old_feature(feature) for name, feature in found["content"].items()}
        _expect(found.keys() == {"pythonClassName", "featuresDict"})
        _expect(found["pythonClassName"] == _DICT)
        _expect(found["featuresDict"].keys() == {"features"})
        features = found["featuresDict"]["features"]
        return {name: _feature(feature) for name, feature in features.items()}
    except (TypeError, AttributeError, KeyError, ValueError) as error:
        raise UserError(f"{path}: is no description of images with labels") from error


def _feature(feature: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    python_class = feature["pythonClassName"]
    field = _CLASSES.get(python_class)
    if field is None:
        return python_class, {}
    _expect(feature.keys() <= {"pythonClassName", "description", "valueRange", field})
    return python_class, dict(feature.get(field, {}))


def _old_feature(feature: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    _expect(feature.keys() == {"type", "content"})
    return feature["type"], dict(feature["content"])


def _expect(condition: bool) -> None:
    if not condition:
        raise ValueError
