"""Noise: every channel value is drawn anew. Definitions: Hendrycks & Dietterich (2019).

Every corruption takes a batch `x` (B, C, H, W), float64 in [0, 1] at the grey levels k/255, the severity's
parameters (see `parameters`) and the batch's draws, and returns (B, C, H, W); the caller clips and truncates.
Those with `on_bytes` in the registry take and return uint8 images (B, H, W, C) instead.
"""

from functools import lru_cache

import numpy as np
import torch
from scipy.special import pdtr
from torch import Tensor

from ssrob.corruptions.draws import Draws
from ssrob.corruptions.parameters import Params
from ssrob.corruptions.quantize import Bytes


def gaussian_noise(x: Tensor, params: Params, draws: Draws) -> Tensor:
    """Return x + N(0, sigma)."""
    (sigma,) = params
    return x + sigma * draws.normal("noise", *x.shape[1:])


def shot_noise(x: Tensor, params: Params, draws: Draws) -> Tensor:
    """Return Poisson(photons x) / photons, by inverting the distribution function of each grey level.

    Most draws fall into a cell of the unit interval without a step and are looked up; the others are searched.
    """
    (photons,) = params
    steps, cells = _poisson(photons)
    level = torch.round(x * 255.0).flatten()
    point = level + draws.uniform("noise", *x.shape[1:]).flatten()
    count = cells[(point * _CELLS).to(torch.int64)].to(torch.float64)
    open_cell = (count < 0).nonzero()[:, 0]
    place = torch.searchsorted(steps, point[open_cell], right=True)
    count[open_cell] = place - level[open_cell] * (len(steps) // 256)
    return count.reshape(x.shape) / photons


def impulse_noise(images: Bytes, params: Params, draws: Draws) -> Bytes:
    """Set a share `amount` of the channel values to 0 or 255, with equal chances."""
    (amount,) = params
    height, width, channels = images.shape[1:]
    chance = draws.uniform("noise", channels, height, width).permute(0, 2, 3, 1).numpy()
    return np.where(chance < amount, np.where(chance < amount / 2, np.uint8(255), np.uint8(0)), images)


def speckle_noise(x: Tensor, params: Params, draws: Draws) -> Tensor:
    """Return x + x N(0, sigma)."""
    (sigma,) = params
    return x + x * sigma * draws.normal("noise", *x.shape[1:])


_CELLS = 1024  # that the unit interval of each grey level is cut into


@lru_cache(maxsize=8)
def _poisson(photons: float) -> tuple[Tensor, Tensor]:
    """Return the steps level + P(count <= j), j < J, (256 J,) float64, and each cell's count, (256 _CELLS,) int16.

    A cell that has a step inside counts -1. Counts of J or more have a probability below 2**-24, which is the
    resolution of the draws.
    """
    count = np.arange(int(photons + 6.5 * photons**0.5 + 16))
    level = np.arange(256)[:, None]
    steps = torch.from_numpy(level + pdtr(count, level * photons / 255.0)).flatten()
    edge = torch.arange(256 * _CELLS + 1, dtype=torch.float64) / _CELLS
    first = torch.searchsorted(steps, edge[:-1], right=True)
    last = torch.searchsorted(steps, edge[1:])
    cells = torch.where(first == last, first - edge[:-1].to(torch.int64) * len(count), -1)
    return steps, cells.to(torch.int16)
