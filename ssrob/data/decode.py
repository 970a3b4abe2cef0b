"""From a source's images to pixels of one shape. Imports no torch."""

import io
import struct

import numpy as np
from PIL import Image, UnidentifiedImageError

from ssrob.data.types import DataError, Pixels

# What Pillow raises for files that are cut short or damaged, by format.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
_GREY = ("1", "L", "LA")
_DEEP = ("I", "F")  # more than 8 bits a channel; conversion would clip instead of scale


def decode(content: bytes | Pixels, where: str, size: int | None) -> tuple[Pixels, bool]:
    """Return pixels (H, W, 3) uint8 and whether the image is grey (three equal channels).

    Transparency is dropped. With `size`, the largest centred square is resized to size x size with Pillow's
    bicubic filter, which averages over all source pixels when it shrinks.
    """
    if isinstance(content, np.ndarray) and size is None:
        grey = content.ndim == 2
        return (np.repeat(content[..., None], 3, axis=-1) if grey else content), grey
    try:
        image = Image.fromarray(content) if isinstance(content, np.ndarray) else Image.open(io.BytesIO(content))
        if image.mode.startswith(_DEEP):
            raise DataError(f"{where}: expected an image of 8 bits a channel, found Pillow mode {image.mode!r}")
        pixels = image.convert("RGB")
    except _DAMAGED as error:
        if isinstance(error, DataError):
            raise
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else " ".join(str(error).split())
        raise DataError(f"{where}: cannot be decoded ({reason})") from error
    if size is not None:
        side = min(pixels.size)
        left, top = (pixels.width - side) // 2, (pixels.height - side) // 2
        square = pixels.crop((left, top, left + side, top + side))
        pixels = square.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(pixels), image.mode in _GREY
