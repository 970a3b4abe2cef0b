"""Small image data sets on disk, for tests."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from ssrob.config.data import Data

CLASSES = ("ant", "bee", "cow")


def pixels(count: int, seed: int = 0, size: int = 8, channels: int = 3) -> np.ndarray:
    shape = (count, size, size, channels) if channels == 3 else (count, size, size)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(image: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    return file.getvalue()


def write_parquet(file: Path, images: list[bytes], labels: list, *, classes=CLASSES, metadata=None, struct=True):
    image = pa.array(images, pa.binary())
    if struct:
        image = pa.StructArray.from_arrays([image, pa.nulls(len(images), pa.string())], ["bytes", "path"])
    table = pa.table({"image": image, "label": pa.array(labels)})
    stated = {"classes": ",".join(classes)} if classes else {}
    pq.write_table(table.replace_schema_metadata(metadata or stated), file, row_group_size=7)


def parquet_data(path: Path, train: int = 60, test: int = 30, *, pixel_size: int = 8, **settings) -> Data:
    """Write train.parquet and test.parquet with labels 0, 1, 2, 0, ... and return their config."""
    for seed, (name, count) in enumerate({"train": train, "test": test}.items()):
        images = [encoded(image) for image in pixels(count, seed, pixel_size)]
        write_parquet(path / f"{name}.parquet", images, [i % 3 for i in range(count)])
    return Data(name="tiny", source="parquet", path=path, **settings)


def folder_data(path: Path, counts: dict[str, int], **settings) -> Data:
    """Write counts["train/ant"] images into path/train/ant and so on, and return their config."""
    for seed, (inside, count) in enumerate(counts.items()):
        (path / inside).mkdir(parents=True)
        for i, image in enumerate(pixels(count, seed)):
            (path / inside / f"{i:03}.png").write_bytes(encoded(image))
    return Data(name="tiny", source="folder", path=path, **settings)
