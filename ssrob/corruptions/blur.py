"""Blurs. Definitions: Hendrycks & Dietterich (2019). For the arguments see `noise`."""

import math
from functools import lru_cache

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from ssrob.corruptions import filters
from ssrob.corruptions.draws import Draws
from ssrob.corruptions.parameters import Params
from ssrob.corruptions.quantize import Bytes, to_levels, truncate


def defocus_blur(images: Bytes, params: Params, draws: Draws) -> Bytes:
    """Convolve with a disk whose edge a Gaussian softens; below radius 1 only the Gaussian is left.

    In float64 and mirrored at the border.
    """
    kernel = _soft_disk(*params)
    levels = np.stack([cv2.filter2D(image, cv2.CV_64F, kernel) for image in images])
    return to_levels(torch.from_numpy(levels)).numpy().reshape(images.shape)  # cv2 drops a single channel


def glass_blur(x: Tensor, params: Params, draws: Draws) -> Tensor:
    """Blur, let every pixel take the value of one nearby, in turn, for some rounds, and blur again."""
    sigma, reach, rounds = params
    height, width = x.shape[-2:]
    pixels = truncate(filters.gaussian(x, sigma)).flatten(2)
    for turn in range(int(rounds)):
        steps = draws.between(f"steps {turn}", -reach, reach, 2, height, width).floor().to(torch.int64)
        source = _copied_from(steps, int(reach))
        pixels = pixels.gather(2, source[:, None].expand_as(pixels))
    return filters.gaussian(pixels.reshape(x.shape), sigma)


def motion_blur(x: Tensor, params: Params, draws: Draws) -> Tensor:
    """Smear along a line at a random angle of up to 45 degrees from the horizontal."""
    radius, sigma = params
    return filters.smear(x, radius, sigma, draws.between("angle", -45.0, 45.0))


def zoom_blur(x: Tensor, params: Params, draws: Draws) -> Tensor:
    """Average the image with its magnifications about the centre."""
    operator = _zoom_operator(*x.shape[-2:], *params)
    pixels = x.flatten(0, 1).flatten(1).T.contiguous()
    return torch.from_numpy(operator @ pixels.numpy()).T.reshape(x.shape)


def gaussian_blur(x: Tensor, params: Params, draws: Draws) -> Tensor:
    """Convolve with a Gaussian; the edge pixels continue the image."""
    (sigma,) = params
    return filters.gaussian(x, sigma)


@lru_cache(maxsize=16)
def _soft_disk(radius: float, softness: float) -> NDArray[np.float32]:
    """Return the kernel, (K, K) with K = 17, or 2 radius + 1 where that is more; zero margins are cut off."""
    reach, width = (8, 3) if radius <= 8 else (math.ceil(radius), 5)
    offset = np.arange(-reach, reach + 1)
    disk = (offset[:, None] ** 2 + offset**2 <= radius**2).astype(np.float32)
    kernel = cv2.GaussianBlur(disk / disk.sum(), (width, width), softness)
    margin = int(np.flatnonzero(kernel.any(0))[0])
    return np.asarray(kernel[margin : len(kernel) - margin, margin : len(kernel) - margin], np.float32)


def _copied_from(steps: Tensor, reach: int) -> Tensor:
    """Return which pixel each pixel holds after one round, (B, H W), from steps (y, x) (B, 2, H, W).

    Pixels are visited from the bottom right to the top left, a margin left out, and each *copies* its
    neighbour (the original means to swap the two, but its views alias). A neighbour further on in memory has
    been overwritten by then: the chain of copies is followed to its end, in doubling strides.
    """
    height, width = steps.shape[-2:]
    place = torch.arange(height * width).reshape(height, width)
    visited = torch.zeros(height, width, dtype=torch.bool)
    visited[reach + 1 : height - reach + 1, reach + 1 : width - reach + 1] = True
    source = torch.where(visited, place + steps[:, 0] * width + steps[:, 1], place).flatten(1)
    stale = (source > place.flatten()) & visited.flatten()[source]
    while stale.any():
        source, stale = (torch.where(stale, source.gather(1, source), source), stale & stale.gather(1, source))
    return source


@lru_cache(maxsize=8)
def _zoom_operator(height: int, width: int, stop: float, step: float) -> sparse.csr_array:
    """Return the mean of the image and its zooms as one sparse (H W, H W) matrix.

    numpy.arange includes its end point at 1.06 and 1.11, by rounding; so did the original.
    """
    factors = np.arange(1.0, stop, step).tolist()
    total = sparse.eye_array(height * width, format="csr")
    for factor in factors:
        rows = sparse.csr_array(filters.zoom_matrix(height, factor).numpy())
        columns = sparse.csr_array(filters.zoom_matrix(width, factor).numpy())
        total = total + sparse.kron(rows, columns, format="csr")
    return sparse.csr_array(total / (len(factors) + 1))
