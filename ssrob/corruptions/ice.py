"""What frost is made of: photographs that the user has, or a procedural texture of ice crystals."""

import math
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from ssrob import seeding

PLATES = 5  # as many as photographs that the original draws from
_SUFFIXES = (".jpg", ".jpeg", ".png")
_NEVER_DRAWN = "frost6"  # the original lists this photograph and then draws among the first five

_CRYSTALS = 24
_BRANCHES = 24  # of a stem as long as the plate
_SLANT = math.tan(math.radians(30.0))  # ice branches at 60 degrees from the stem
_DARK, _LIGHT = (0.10, 0.17, 0.29), (0.92, 0.97, 1.0)


def read(folder: Path, scale: float, height: int, width: int) -> list[Tensor]:
    """Return the photographs (JPEG, PNG) of a folder, sorted by name and shrunk, each (3, H', W') in [0, 1].

    Every one must leave room for random crops of height x width.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of frost photographs at {folder}")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
    paths = [path for path in paths if path.stem != _NEVER_DRAWN]
    if not paths:
        raise FileNotFoundError(f"no frost photographs ({', '.join(_SUFFIXES)}) in {folder}")
    plates = [_photograph(path, scale, path.stat().st_mtime_ns) for path in paths]
    for path, plate in zip(paths, plates, strict=True):
        if plate.shape[1] <= height or plate.shape[2] <= width:
            found = f"{plate.shape[1]} x {plate.shape[2]}"
            raise ValueError(f"{path} must exceed {height} x {width} once scaled by {scale}, found {found}")
    return plates


@lru_cache(maxsize=16)
def _photograph(path: Path, scale: float, written: int) -> Tensor:
    """Read one photograph, (3, H, W) in [0, 1]; when it was written is part of what the cache goes by."""
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if pixels is None:
        raise ValueError(f"{path} cannot be decoded as an image")
    if scale != 1:
        pixels = cv2.resize(pixels, (0, 0), fx=scale, fy=scale)
    rgb = np.ascontiguousarray(pixels[..., ::-1].transpose(2, 0, 1))
    return torch.from_numpy(rgb).to(torch.float64) / 255.0


def plates(height: int, width: int) -> list[Tensor]:
    """Return the procedural plates for images of height x width, each (3, S, S), S four longer sides."""
    return [_plate(number, 4 * max(height, width)) for number in range(PLATES)]


@lru_cache(maxsize=2 * PLATES)
def _plate(number: int, size: int) -> Tensor:
    """Grow one plate: fern-like crystals over a grain, thicker in some places, from dark blue to white."""
    generator = seeding.generator(0, "ice", number)
    thickness = _cloud(size, 1.8, generator)
    grain = _cloud(size, 0.9, generator)
    ice = 0.45 * _ferns(size, generator) + 0.35 * thickness + 0.2 * grain
    ice = (0.42 + 0.24 * (ice - ice.mean()) / ice.std()).clamp(0.0, 1.0)
    dark, light = (torch.tensor(colour, dtype=ice.dtype)[:, None, None] for colour in (_DARK, _LIGHT))
    return torch.lerp(dark.expand(3, size, size), light.expand(3, size, size), ice)


def _cloud(size: int, slope: float, generator: torch.Generator) -> Tensor:
    """Return periodic noise (S, S) in [0, 1] whose amplitude falls as frequency ** -slope."""
    white = torch.randn(size, size, generator=generator, dtype=torch.float64)
    frequency = torch.hypot(torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)).to(torch.float64)
    frequency[0, 0] = math.inf
    field = torch.fft.irfft2(torch.fft.rfft2(white) * frequency.pow(-slope), s=(size, size))
    scaled: Tensor = (field - field.min()) / (field.max() - field.min())
    return scaled


def _ferns(size: int, generator: torch.Generator) -> Tensor:
    """Return crystals (S, S) in [0, 1]: stems at random places and angles, each with slanted branches."""
    row, column, turn = torch.rand(3, _CRYSTALS, generator=generator, dtype=torch.float64)
    bend = 0.25 * _cloud(size, 2.0, generator)
    axis = torch.arange(size, dtype=torch.float64) / size
    down, right = axis[:, None] + bend, axis + bend.T
    cos, sin = torch.cos(math.pi * turn), torch.sin(math.pi * turn)
    nearest = torch.full((size, size), math.inf, dtype=torch.float64)
    along, aside = torch.zeros_like(nearest), torch.zeros_like(nearest)
    for i in range(_CRYSTALS):
        here = (right - column[i]) * cos[i] + (down - row[i]) * sin[i]
        off = (down - row[i]) * cos[i] - (right - column[i]) * sin[i]
        distance = (here / 1.6) ** 2 + off**2
        closer = distance < nearest
        along, aside = torch.where(closer, here, along), torch.where(closer, off, aside)
        nearest = torch.minimum(distance, nearest)
    along, aside = along.abs(), aside.abs()
    branch = 0.5 + 0.5 * torch.cos(2 * math.pi * _BRANCHES * (along - _SLANT * aside))
    return torch.maximum(torch.exp(-((aside / 0.012) ** 2)), branch**3 * torch.exp(-aside / 0.09))
