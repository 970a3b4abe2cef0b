"""`corrupt`: one corruption of many images."""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ssrob.corruptions.draws import Draws
from ssrob.corruptions.parameters import parameters, table_for
from ssrob.corruptions.quantize import from_bytes, to_bytes
from ssrob.registry.corruptions import CORRUPTIONS
from ssrob.registry.lookup import load

MIN_SIZE = 8
_CHUNK_PIXELS = 2**15  # of one channel: temporaries below a megabyte, which stay in a processor cache


def corrupt(
    images: NDArray[np.uint8],
    name: str,
    severity: int,
    *,
    seed: int = 0,
    index: ArrayLike | None = None,
    table: str | None = None,
    frost: Path | None = None,
) -> NDArray[np.uint8]:
    """Corrupt uint8 images (N, H, W, C), C 1 or 3 -> new array of the same shape and type.

    What an image becomes depends on (seed, name, severity) and its number in `index` (N,), by default 0..N-1,
    and not on the others: a subset with its index gives the same images. `table` names the severity table, by
    default `table_for` the longer side. `frost` is a folder of photographs for the corruption of that name,
    which paints a procedural ice texture without one.
    """
    _check_images(images)
    table = table_for(max(images.shape[1:3])) if table is None else table
    params = parameters(name, severity, table)
    numbers = _numbers(index, len(images))
    function = load(CORRUPTIONS[name].function)
    if name == "frost":
        function = partial(function, photographs=frost)
    out = np.empty_like(images)
    chunk = max(1, _CHUNK_PIXELS // (images.shape[1] * images.shape[2]))
    for start in range(0, len(images), chunk):
        part = slice(start, start + chunk)
        draws = Draws(seed=seed, name=name, severity=int(severity), index=numbers[part])
        out[part] = to_bytes(function(from_bytes(images[part]), params, draws))
    return out


def _check_images(images: NDArray[np.uint8]) -> None:
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        found = getattr(images, "dtype", type(images).__name__)
        raise TypeError(f"images must be a uint8 numpy array, found {found}")
    if images.ndim != 4 or images.shape[3] not in (1, 3) or min(images.shape[1:3]) < MIN_SIZE:
        raise ValueError(f"images must be (N, H, W, C) with C 1 or 3 and H, W >= {MIN_SIZE}, found {images.shape}")


def _numbers(index: ArrayLike | None, count: int) -> Tensor:
    numbers = np.arange(count) if index is None else np.asarray(index)
    if numbers.shape != (count,) or (count and numbers.dtype.kind not in "iu"):
        raise ValueError(f"index must be {count} integers, one for each image, found {numbers.dtype} {numbers.shape}")
    return torch.from_numpy(numbers.astype(np.int64))
