"""Images outside a training distribution: synthetic ones, and those of another data set in the model's own shape.

All are uint8 (N, H, W, C), C 1 or 3, as prepared data; the model normalises them itself, as it does its own.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor

from ssrob import seeding
from ssrob.data.content import image_digests
from ssrob.data.types import DataError, Digests, Pixels
from ssrob.registry.lookup import load
from ssrob.registry.ood import SYNTHETIC

Keys = Callable[[str], Tensor]  # purpose -> one key per image, (B,) int64

_BLOB_SHARE, _BLOB_SIGMA, _BLOB_LEAST = 0.7, 1.5, 0.75  # Hendrycks, Mazeika & Dietterich 2019, as in their code
_GRATINGS = 3


def synthetic(name: str, count: int, shape: tuple[int, int, int], *, seed: int = 0) -> Pixels:
    """Make `count` images of shape (C, H, W), as the model's own; image i depends on (seed, name, i) alone."""
    if name not in SYNTHETIC:
        raise ValueError(f"unknown synthetic image set {name!r} (known: {', '.join(SYNTHETIC)})")
    make = load(SYNTHETIC[name])
    images = np.empty((count, *shape[1:], shape[0]), np.uint8)
    step = max(1, 2**20 // int(np.prod(shape)))  # float64 temporaries of 8 MB
    for start in range(0, count, step):
        keys = partial(seeding.example_keys, torch.arange(start, min(start + step, count)), seed, "ood", name)
        x = make(keys, shape)
        images[start : start + step] = (255 * x.clamp(0, 1)).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return images


def gaussian(keys: Keys, shape: tuple[int, int, int]) -> Tensor:
    """Every value 0.5 + N(0, 0.25): N(0, 0.5) around 0 in [-1, 1] in the published code."""
    return 0.5 + 0.25 * seeding.normal(keys("noise"), shape)


def uniform(keys: Keys, shape: tuple[int, int, int]) -> Tensor:
    """Every value U[0, 1)."""
    return seeding.uniform(keys("noise"), shape)


def rademacher(keys: Keys, shape: tuple[int, int, int]) -> Tensor:
    """Every value 0 or 1."""
    return (seeding.uniform(keys("noise"), shape) < 0.5).float()


def blobs(keys: Keys, shape: tuple[int, int, int]) -> Tensor:
    """Draw binary noise, blurred over rows, columns and channels, with all that is dim set to black."""
    noise = (seeding.uniform(keys("noise"), shape) < _BLOB_SHARE).double().numpy()
    blurred = torch.from_numpy(np.stack([gaussian_filter(x, _BLOB_SIGMA, mode="nearest", truncate=4.0) for x in noise]))
    return torch.where(blurred < _BLOB_LEAST, 0.0, blurred)


def textures(keys: Keys, shape: tuple[int, int, int]) -> Tensor:
    """Sum gratings of random wave length, direction and phase, each of a random colour: procedural, no photographs.

    For the Describable Textures Dataset, give its folder as a data source.
    """
    channels, height, width = shape
    frequency, direction, phase = seeding.uniform(keys("waves"), (3, _GRATINGS, 1, 1)).double().unbind(1)
    colour = 2 * seeding.uniform(keys("colours"), (_GRATINGS, channels, 1, 1)).double() - 1
    row = torch.arange(height, dtype=torch.float64)[:, None] / min(height, width)
    column = torch.arange(width, dtype=torch.float64) / min(height, width)
    along = torch.cos(np.pi * direction) * column + torch.sin(np.pi * direction) * row
    waves = torch.sin(2 * np.pi * ((2 + 10 * frequency) * along + phase))  # (B, gratings, H, W), 2 to 12 waves a side
    return 0.5 + (colour * waves[:, :, None]).sum(1) / _GRATINGS


def fitted(images: Pixels, shape: tuple[int, int, int]) -> Pixels:
    """Give images (N, H', W', C') the shape (C, H, W) of a model's own: centre square, bicubic, grey or colour.

    As the data stage does: the largest centred part of the shape's proportions is resized by Pillow's bicubic filter,
    which averages when it shrinks; grey becomes three equal channels and colour its luma.
    """
    channels, height, width = shape
    out = np.empty((len(images), height, width, channels), np.uint8)
    for pixels, into in zip(images, out, strict=True):
        image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        scale = min(image.width / width, image.height / height)
        left, top = (image.width - scale * width) / 2, (image.height - scale * height) / 2
        box = (left, top, image.width - left, image.height - top)
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BICUBIC, box=box)
        into[:] = np.asarray(image.convert("L" if channels == 1 else "RGB")).reshape(into.shape)
    return out


def check_outside(name: str, outside: Pixels, trained: Digests, data: str) -> None:
    """Raise a DataError if images (N, H, W, C) of set `name` are among those that are trained on.

    They have been fitted, and trained holds the hashes of the others (`image_digests`), which are of a data set of the
    name `data`. Copies in another size or quality are not found.
    """
    copies = np.flatnonzero(np.isin(image_digests(outside), trained))
    if len(copies):
        found = f"{len(copies)} of its {len(outside)} images, the first at {copies[0]}"
        raise DataError(f"ood set {name!r}: {found}, are among the training images of {data!r}; take them out")
