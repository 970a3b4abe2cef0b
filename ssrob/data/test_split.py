"""The test split. A contract lets evaluation alone import this module: models are selected on validation."""

from pathlib import Path

import numpy as np
import torch

from ssrob.data.prepared import Prepared, load_array
from ssrob.data.splits import balanced
from ssrob.data.types import DataError, Pixels, Rows
from ssrob.seeding import example_keys


def open_test(folder: Path, images: int | None = None) -> tuple[Pixels, Rows, Rows]:
    """Open the test images of a data stage, or a class-balanced subset of them that is the same every time.

    Returns images (N, H, W, C) uint8, labels (N,) int64 and each image's row in the source (N,) int64: in its
    test split, or its only split. The row is the image's identity in every subset. Subsets are nested.
    """
    prepared = Prepared(folder)
    channels, height, width = prepared.shape
    count = prepared.counts["test"]
    pixels = load_array(folder / "test_images.npy", (count, height, width, channels))
    labels, rows = (load_array(folder / f"test_{what}.npy", (count,)) for what in ("labels", "rows"))
    kept = subset(prepared.name, labels, rows, images)
    return (pixels, labels, rows) if kept is None else (pixels[kept], labels[kept], rows[kept])


def subset(name: str, labels: Rows, rows: Rows, images: int | None) -> Rows | None:
    """Choose `images` of the test images, class-balanced, as ascending positions; None: all of them."""
    if images is None or images == len(rows):
        return None
    if not 1 <= images < len(rows):
        raise DataError(f"test images: must be 1..{len(rows)} (those of {name!r}), found {images}")
    keys = example_keys(torch.from_numpy(rows), 0, "test subset").numpy()
    return np.sort(balanced(labels, keys, images))
