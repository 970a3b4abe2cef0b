"""`corrupt`: one corruption of many images."""

from collections.abc import Callable
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ssrob.corruptions.draws import Draws
from ssrob.corruptions.parameters import Params, parameters, table_for
from ssrob.corruptions.quantize import Bytes, from_bytes, to_bytes
from ssrob.registry.corruptions import CORRUPTIONS
from ssrob.registry.lookup import load

MIN_SIZE = 8
_CHUNK_PIXELS = 2**15  # of one channel: temporaries below a megabyte, which stay in a processor cache


def corrupt(
    images: Bytes,
    name: str,
    severity: int,
    *,
    seed: int = 0,
    index: ArrayLike | None = None,
    table: str | None = None,
    frost: Path | None = None,
) -> Bytes:
    """Corrupt uint8 images (N, H, W, C), C 1 or 3 -> new array of the same shape and type.

    What an image becomes depends on (seed, name, severity) and its number in `index` (N,), by default 0..N-1,
    and not on the others: a subset with its index gives the same images. `table` names the severity table, by
    default `table_for` the longer side. `frost` is a folder of photographs for the corruption of that name,
    which paints a procedural ice texture without one. Raises TypeError or ValueError for any other input.
    """
    _check_images(images)
    if isinstance(seed, bool) or not isinstance(seed, Integral):
        raise TypeError(f"seed must be an integer, found {seed!r}")
    table = table_for(max(images.shape[1:3])) if table is None else table
    params = parameters(name, severity, table)
    numbers = _numbers(index, len(images))
    change = _on_bytes(name, frost)
    out = np.empty(images.shape, np.uint8)
    chunk = max(1, _CHUNK_PIXELS // (images.shape[1] * images.shape[2]))
    for start in range(0, len(images), chunk):
        part = slice(start, start + chunk)
        draws = Draws(seed=int(seed), name=name, severity=int(severity), index=numbers[part])
        out[part] = change(np.ascontiguousarray(images[part]), params, draws)
    return out


def _on_bytes(name: str, frost: Path | None) -> Callable[[Bytes, Params, Draws], Bytes]:
    """Return a corruption as a function of uint8 images (B, H, W, C), whatever it works on itself."""
    row = CORRUPTIONS[name]
    function = load(row.function)
    if name == "frost":
        function = partial(function, photographs=frost)
    if row.on_bytes:
        return cast(Callable[[Bytes, Params, Draws], Bytes], function)
    return lambda images, params, draws: to_bytes(function(from_bytes(images), params, draws))


def _check_images(images: object) -> None:
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        description = " ".join([type(images).__name__, str(getattr(images, "dtype", ""))]).strip()
        remedy = "turn values in [0, 1] into (255 * x).round().astype(uint8), a list into one array by numpy.stack"
        raise TypeError(f"images must be a uint8 numpy array (N, H, W, C), found {description}: {remedy}")
    if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[3] not in (1, 3):
        raise ValueError(f"images must be (N, H, W, C), found {images.shape}: move axis 1, the channels, to the end")
    if images.ndim != 4 or images.shape[3] not in (1, 3) or min(images.shape[1:3]) < MIN_SIZE:
        rule = f"images must be (N, H, W, C) with C 1 or 3 and H, W >= {MIN_SIZE}, found {images.shape}"
        raise ValueError(rule + _remedy(images.shape))
    if isinstance(images, np.ma.MaskedArray):
        raise TypeError("images must be a plain array, found a masked one: say by filled() what its masked pixels are")
    if images.size and images.max() == 1:
        raise ValueError("images must have grey levels 0..255, found none above 1: were values in [0, 1] cast?")


def _remedy(shape: tuple[int, ...]) -> str:
    """Say how images of another usual shape become what is asked for."""
    match shape:
        case (_, _, 1 | 3):
            return ": of one image take images[None]"
        case (_, _):
            return ": of one grey image take images[None, ..., None]"
        case (_, _, _):
            return ": of grey images take images[..., None]"
        case (_, _, _, 4):
            return ": put what is transparent before a background, and take images[..., :3]"
    return ""


def _numbers(index: ArrayLike | None, count: int) -> Tensor:
    numbers = np.arange(count) if index is None else np.asarray(index)
    if numbers.shape != (count,) or (count and numbers.dtype.kind not in "iu"):
        raise ValueError(f"index must be {count} integers, one for each image, found {numbers.dtype} {numbers.shape}")
    return torch.from_numpy(numbers.astype(np.int64))
