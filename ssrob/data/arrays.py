"""Writing a split's images into one array, without holding them in memory."""

from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from tqdm import tqdm

from ssrob.data.decode import Crop, decode
from ssrob.data.refused_images import RefusedImages
from ssrob.data.types import DataError, Pixels, Rows, Split

_CHUNK = 4096  # images counted at once
Shape = tuple[int, int, int]


def write_images(
    file: Path, split: Split, rows: Rows, crop: Crop | None, expected: Shape | None = None
) -> tuple[Shape | None, bool, RefusedImages]:
    """Decode rows of a split, in the order given, into an array (N, H, W, 3) uint8.

    Returns (H, W, 3), the same for all images and as `expected`, whether all are grey, and those that cannot be used.
    """
    order, shape, images, grey, refused = np.argsort(rows), expected, None, True, RefusedImages()
    reading = tqdm(split.read(rows[order]), f"decode {file.stem}", len(rows), leave=False, disable=None)
    for position, (where, content) in zip(order, reading, strict=True):
        with refused.gathered():
            pixels, is_grey = decode(content, where, crop)
            shape = shape or (pixels.shape[0], pixels.shape[1], 3)
            check_shape(pixels, shape, where)
            if images is None:
                images = open_memmap(file, "w+", np.uint8, (len(rows), *shape))
            images[position] = pixels
            grey = grey and is_grey
    if images is not None:
        images.flush()
    elif shape is not None:
        np.save(file, np.empty((0, *shape), dtype=np.uint8))
    return shape, grey, refused


def check_shape(pixels: Pixels, shape: tuple[int, ...], where: str) -> None:
    """Refuse an image of another height or width than `shape` (H, W, ...) has."""
    if pixels.shape[:2] != shape[:2]:
        found, before = (f"{width}x{height}" for height, width, *_ in (pixels.shape, shape))
        raise DataError(f"{where}: an image of {found} pixels after others of {before}; set size to resize")


def keep_one_channel(file: Path) -> None:
    """Rewrite grey images, decoded to three equal channels, with one."""
    wide = np.load(file, mmap_mode="r")
    partial = file.with_suffix(".partial")
    with partial.open("wb") as opened:
        np.save(opened, wide[..., :1])
    partial.replace(file)


def count_levels(images: Pixels) -> Rows:
    """Count how often each channel of images (N, H, W, C) uint8 has each level; (C, 256)."""
    channels = images.shape[-1]
    counts = np.zeros((channels, 256), dtype=np.int64)
    for start in range(0, len(images), _CHUNK):
        chunk = images[start : start + _CHUNK]
        counts += [np.bincount(chunk[..., c].ravel(), minlength=256) for c in range(channels)]
    return counts


def moments(counts: Rows) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation per channel of images, in [0, 1] units, from the counts of their levels.

    From counts (C, 256) no rounding depends on the order of summation.
    """
    levels = np.arange(256) / 255
    share = counts / counts.sum(axis=1, keepdims=True)
    mean = share @ levels
    variance = (share * (levels - mean[:, None]) ** 2).sum(axis=1)
    return mean.tolist(), np.sqrt(variance).tolist()
