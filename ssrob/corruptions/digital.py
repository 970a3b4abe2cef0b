"""Digital corruptions. Definitions: Hendrycks & Dietterich (2019). For the arguments see `noise`."""

from collections.abc import Callable
from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssrob.corruptions import filters
from ssrob.corruptions.draws import Draws
from ssrob.corruptions.levels import from_bytes, luma, to_bytes
from ssrob.corruptions.parameters import Params


def contrast(x: Tensor, params: Params, draws: Draws) -> Tensor:
    """Draw every channel towards its mean over the image."""
    (factor,) = params
    mean = x.mean((2, 3), keepdim=True)
    return (x - mean) * factor + mean


def elastic_transform(x: Tensor, params: Params, draws: Draws) -> Tensor:
    """Apply a random affine map, then a smooth random displacement of the pixels."""
    height, width = x.shape[-2:]
    displacement, smoothness, jitter = (share * min(height, width) for share in params)
    row, column = torch.meshgrid(
        torch.arange(height, dtype=x.dtype), torch.arange(width, dtype=x.dtype), indexing="ij"
    )
    back = _affine(height, width, draws.between("corners", -jitter, jitter, 3, 2))
    grid = torch.stack([column, row, torch.ones_like(row)], dim=-1)
    source = grid @ back[:, None]  # (B, H, W, 2)
    moved = filters.resample(x, source[..., 0], source[..., 1], border="mirror")
    field = filters.gaussian(draws.between("field", -1.0, 1.0, 2, height, width), smoothness, "reflect", 3.0)
    right, down = (displacement * field).unbind(1)
    return filters.resample(moved, column + right, row + down, border="reflect")


def pixelate(x: Tensor, params: Params, draws: Draws) -> Tensor:
    """Shrink and enlarge again with a box filter (Pillow's, which rounds to grey levels after each pass)."""
    (kept,) = params
    height, width = x.shape[-2:]
    small = max(1, int(width * kept)), max(1, int(height * kept))

    def through(image: Image.Image) -> Image.Image:
        return image.resize(small, Image.Resampling.BOX).resize((width, height), Image.Resampling.BOX)

    return _each(x, through)


def jpeg_compression(x: Tensor, params: Params, draws: Draws) -> Tensor:
    """Encode as JPEG with Pillow's default chroma subsampling (4:2:0) and decode."""
    (quality,) = params

    def through(image: Image.Image) -> Image.Image:
        file = BytesIO()
        image.save(file, "JPEG", quality=int(quality))
        return Image.open(file)

    return _each(x, through)


def saturate(x: Tensor, params: Params, draws: Draws) -> Tensor:
    """Scale and shift the saturation of HSV; grey has hue 0, so that a positive shift turns it red.

    One-channel images become the luma of that: unchanged without a shift.
    """
    factor, shift = params
    value, low = x.amax(1, keepdim=True), x.amin(1, keepdim=True)
    depth = value - low
    saturation = depth / value.clamp(min=1e-9)
    wanted = (saturation * factor + shift).clamp(0.0, 1.0)
    red = torch.tensor([0.0, 1.0, 1.0], dtype=x.dtype).reshape(1, 3, 1, 1)
    below_value = torch.where(depth > 0.0, (value - x) / depth.clamp(min=1e-9), red)
    changed = value * (1.0 - wanted * below_value)
    return luma(changed) if x.shape[1] == 1 else changed


def _affine(height: int, width: int, jitter: Tensor) -> Tensor:
    """Return maps (B, 3, 2) from (column, row, 1) in the output to (column, row) in the input.

    Three corners of a square about the centre, a third of the shorter side out, move by `jitter` (B, 3, 2).
    """
    out = min(height, width) // 3
    across, down = width // 2, height // 2
    corners = jitter.new_tensor(
        [[across + out, down + out], [across + out, down - out], [across - out, down - out]]
    )
    moved = corners + jitter
    ones = torch.ones_like(moved[..., :1])
    back: Tensor = torch.linalg.solve(torch.cat([moved, ones], dim=-1), corners.expand_as(moved))
    return back


def _each(x: Tensor, change: Callable[[Image.Image], Image.Image]) -> Tensor:
    """Put every image (grey ones as mode L) through a function of Pillow images."""
    images = to_bytes(x)
    planes = images[..., 0] if images.shape[-1] == 1 else images
    changed = np.stack([np.asarray(change(Image.fromarray(plane))) for plane in planes])
    return from_bytes(changed.reshape(images.shape))
