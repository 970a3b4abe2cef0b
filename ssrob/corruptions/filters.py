"""Linear filters and resampling of batches; separable ones are matrices, which any border suits.

Borders are named as in scipy.ndimage: "nearest" (a a|a b c|c c), "reflect" (b a|a b c|c b) and "mirror"
(c b|a b c|b a, which OpenCV calls BORDER_REFLECT_101).
"""

import math
from functools import lru_cache
from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ssrob.corruptions.quantize import truncate

Border = Literal["nearest", "reflect", "mirror"]
_CV2_BORDERS = {"nearest": cv2.BORDER_REPLICATE, "reflect": cv2.BORDER_REFLECT, "mirror": cv2.BORDER_REFLECT_101}
_SLIDE_FROM = 64  # shorter side in pixels


def inside(position: Tensor, size: int, border: Border) -> Tensor:
    """Map integer positions, any shape, also outside 0..size-1, to the pixels that stand there."""
    if border == "nearest" or size == 1:
        return position.clamp(0, size - 1)
    period = 2 * size if border == "reflect" else 2 * size - 2
    folded = position.remainder(period)
    return torch.minimum(folded, (period - 1 if border == "reflect" else period) - folded)


def _gaussian_kernel(sigma: float, radius: int) -> Tensor:
    """Return the weights of offsets -radius..radius, float64 with sum 1."""
    offset = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weight = torch.exp(-0.5 * (offset / max(sigma, 1e-12)) ** 2)
    return weight / weight.sum()


def _slide(x: Tensor, kernel: Tensor, border: Border) -> Tensor:
    """Correlate the rows and the columns of images (..., H, W) float64 with one kernel, (K,) with K odd."""
    weights = kernel.numpy()
    planes = x.reshape(-1, *x.shape[-2:]).numpy()
    out = np.empty_like(planes)
    for plane, blurred in zip(planes, out, strict=True):
        cv2.sepFilter2D(plane, -1, weights, weights, dst=blurred, borderType=_CV2_BORDERS[border])
    return torch.from_numpy(out).reshape(x.shape)


@lru_cache(maxsize=64)
def gaussian_matrix(size: int, sigma: float, border: Border = "nearest", reach: float = 4.0) -> Tensor:
    """Return the (size, size) float64 matrix that blurs a column; the kernel ends at `reach` sigmas.

    As scipy.ndimage.gaussian_filter1d, on which skimage.filters.gaussian rests; sigma 0 is the identity.
    """
    radius = int(reach * sigma + 0.5)
    source = inside(torch.arange(size)[:, None] + torch.arange(-radius, radius + 1), size, border)
    blank = torch.zeros(size, size, dtype=torch.float64)
    return blank.scatter_add(1, source, _gaussian_kernel(sigma, radius).expand(size, -1))


def gaussian(x: Tensor, sigma: float, border: Border = "nearest", reach: float = 4.0) -> Tensor:
    """Blur images (..., H, W) float64 with a Gaussian of standard deviation `sigma` pixels.

    A kernel that is short beside a large image is slid over it, 2 to 9 times faster there than the matrices.
    """
    radius = int(reach * sigma + 0.5)
    if min(x.shape[-2:]) >= max(_SLIDE_FROM, 12 * radius):
        return _slide(x, _gaussian_kernel(sigma, radius), border)
    rows, columns = (gaussian_matrix(size, sigma, border, reach) for size in x.shape[-2:])
    return rows @ x @ columns.T


@lru_cache(maxsize=128)
def zoom_matrix(size: int, factor: float) -> Tensor:
    """Return the (size, size) float64 matrix that magnifies a column's centre by `factor` >= 1, linearly.

    The crop has ceil(size / factor) pixels; it is stretched end to end (scipy.ndimage.zoom, order 1) to
    round(crop * factor) and the surplus trimmed: `clipped_zoom` of Hendrycks & Dietterich (2019).
    """
    crop = math.ceil(size / factor)
    stretched = round(crop * factor)
    pixel = torch.arange(size) + (stretched - size) // 2
    position = pixel.to(torch.float64) * ((crop - 1) / max(stretched - 1, 1))
    lower = position.floor().to(torch.int64).clamp(0, crop - 1)
    upper = (lower + 1).clamp(max=crop - 1)
    share = (position - lower)[:, None]
    top = (size - crop) // 2
    blank = torch.zeros(size, size, dtype=torch.float64)
    return blank.scatter_add(1, top + lower[:, None], 1 - share).scatter_add(1, top + upper[:, None], share)


def smear(x: Tensor, radius: float, sigma: float, degrees: Tensor) -> Tensor:
    """Blur along a line, as ImageMagick's MotionBlurImage: (B, C, H, W), degrees (B,) -> grey levels k/255.

    Pixel p becomes the mean of p + i (cos, sin), i = 0..2 radius, rounded to whole pixels and weighted by a
    half-Gaussian of i; images are continued by their edge pixels. ImageMagick rounds to 16 bits and its PNG
    writer truncates those to 8, which adds 1/514 of a grey level before truncation.
    """
    planes = np.ascontiguousarray(x.permute(0, 2, 3, 1).to(torch.float32).numpy())
    step = np.arange(2 * math.ceil(radius) + 1)
    weight = np.exp(-0.5 * (step / sigma) ** 2)
    angle = np.radians(degrees.numpy())[:, None]
    right = np.ceil(step * np.cos(angle) - 0.5).astype(np.int64)
    down = np.ceil(step * np.sin(angle) - 0.5).astype(np.int64)
    smeared = np.empty_like(planes)
    for i, plane in enumerate(planes):
        kernel, start = _line(right[i], down[i], weight / weight.sum())
        moved = cv2.filter2D(plane, -1, kernel, anchor=start, borderType=cv2.BORDER_REPLICATE)
        smeared[i] = moved.reshape(plane.shape)
    return truncate(torch.from_numpy(smeared).permute(0, 3, 1, 2).to(torch.float64) + 1 / (514 * 255))


def _line(
    right: NDArray[np.int64], down: NDArray[np.int64], weight: NDArray[np.float64]
) -> tuple[NDArray[np.float32], tuple[int, int]]:
    """Return the smallest kernel that holds points (K,) with their weights, and where (0, 0) is in it, (x, y)."""
    left, top = int(right.min()), int(down.min())
    width, height = int(right.max()) - left + 1, int(down.max()) - top + 1
    flat = np.bincount((down - top) * width + right - left, weight, width * height)
    return flat.reshape(height, width).astype(np.float32), (-left, -top)


def resample(x: Tensor, column: Tensor, row: Tensor, border: Literal["reflect", "mirror"]) -> Tensor:
    """Read images (B, C, H, W) at pixel positions column, row (B, H, W), bilinearly."""
    height, width = x.shape[-2:]
    if border == "mirror":
        place = torch.stack([2 * column / (width - 1), 2 * row / (height - 1)], dim=-1) - 1
    else:
        place = torch.stack([(2 * column + 1) / width, (2 * row + 1) / height], dim=-1) - 1
    return functional.grid_sample(
        x, place, mode="bilinear", padding_mode="reflection", align_corners=border == "mirror"
    )
