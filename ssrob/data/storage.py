"""Where training images are kept: decoded in one array, or as they are in their files. Imports no torch."""

import math

from ssrob.config.data import Data
from ssrob.registry.sources import SOURCES

LARGEST_ARRAY = 4 * 2**30  # bytes of pixels that are decoded once and lie on the device


def stays_in_files(data: Data, images: int, shape: tuple[int, ...]) -> bool:
    """Whether so many training images of a shape (H, W, C) stay in their files: as the config says, else by size."""
    if data.storage is not None:
        return data.storage == "files"
    return SOURCES[data.source].known is None and images * math.prod(shape) > LARGEST_ARRAY
