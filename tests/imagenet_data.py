"""Small datasets in ImageNet's form, of synthetic JPEGs, written as `rkbench convert` writes."""

import io
import pathlib

import numpy as np
from PIL import Image

from rkbench.workloads.imagenet import records


def picture(seed: int, width: int = 80, height: int = 60, mode: str = "RGB") -> Image.Image:
    """A smooth picture, so that JPEG and resizing change it little."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def examples(count: int) -> list[dict]:
    """Example i has label i, and sizes differ."""
    return [example(jpeg(picture(i, 80 + i % 7, 60 + i % 5)), i) for i in range(count)]


def example(image: bytes, label: int) -> dict:
    return {"image": image, "label": label, "file_name": f"picture_{label}.jpg"}


def write(data_dir: pathlib.Path, splits: dict[str, list[dict]], per_shard: int) -> pathlib.Path:
    """Writes ArrayRecords, and returns the dataset's folder in `data_dir`."""
    import tensorflow_datasets as tfds

    folder = data_dir / records.NAME / records.VERSION
    folder.mkdir(parents=True)
    identity = tfds.core.dataset_info.DatasetIdentity(
        name=records.NAME, version=records.VERSION, data_dir=str(folder), module_name=""
    )
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(num_classes=2000),  # wrong labels can be written
            "file_name": tfds.features.Text(),
        }
    )
    info = tfds.core.DatasetInfo(builder=identity, features=features)
    writer = tfds.core.SequentialWriter(info, per_shard, file_format="array_record")
    writer.initialize_splits(list(splits))
    for split, written in splits.items():
        stored = [one | {"image": io.BytesIO(one["image"])} for one in written]
        writer.add_examples({split: stored})
    writer.close_all()
    return folder
