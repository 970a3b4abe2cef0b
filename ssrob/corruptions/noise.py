"""Noise: every channel value is drawn anew. Definitions: Hendrycks & Dietterich (2019).

Every corruption takes a batch `x` (B, C, H, W), float64 in [0, 1] at the grey levels k/255, the severity's
parameters (see `parameters`) and the batch's draws, and returns (B, C, H, W); the caller clips and truncates.
"""

from functools import lru_cache

import torch
from scipy.special import pdtr
from torch import Tensor

from ssrob.corruptions.draws import Draws
from ssrob.corruptions.parameters import Params


def gaussian_noise(x: Tensor, params: Params, draws: Draws) -> Tensor:
    """Return x + N(0, sigma)."""
    (sigma,) = params
    return x + sigma * draws.normal("noise", *x.shape[1:])


def shot_noise(x: Tensor, params: Params, draws: Draws) -> Tensor:
    """Return Poisson(photons x) / photons, by inverting the distribution function of each grey level."""
    (photons,) = params
    table = _poisson_table(photons)
    level = torch.round(x * 255.0)
    place = torch.searchsorted(table.flatten(), level + draws.uniform("noise", *x.shape[1:]), right=True)
    return (place - level * table.shape[1]) / photons


def impulse_noise(x: Tensor, params: Params, draws: Draws) -> Tensor:
    """Set a share `amount` of the channel values to 0 or 1, with equal chances."""
    (amount,) = params
    chance = draws.uniform("noise", *x.shape[1:])
    return torch.where(chance < amount, (chance < amount / 2).to(x.dtype), x)


def speckle_noise(x: Tensor, params: Params, draws: Draws) -> Tensor:
    """Return x + x N(0, sigma)."""
    (sigma,) = params
    return x + x * sigma * draws.normal("noise", *x.shape[1:])


@lru_cache(maxsize=8)
def _poisson_table(photons: float) -> Tensor:
    """Return level + P(count <= j | level), (256, J) float64: it rises along its flattened entries.

    J leaves out less than 2**-24, the resolution of the draws.
    """
    count = torch.arange(int(photons + 6.5 * photons**0.5 + 16), dtype=torch.float64)
    level = torch.arange(256, dtype=torch.float64)[:, None]
    return level + torch.from_numpy(pdtr(count.numpy(), (level * photons / 255.0).numpy()))
