"""Digital corruptions. Definitions: Hendrycks & Dietterich (2019). For the arguments see `noise`."""

from collections.abc import Callable

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ssrob.corruptions import filters
from ssrob.corruptions.draws import Draws
from ssrob.corruptions.parameters import Params
from ssrob.corruptions.quantize import from_bytes, luma, to_bytes

Bytes = NDArray[np.uint8]


def contrast(x: Tensor, params: Params, draws: Draws) -> Tensor:
    """Draw every channel towards its mean over the image."""
    (factor,) = params
    mean = x.mean((2, 3), keepdim=True)
    return (x - mean) * factor + mean


def elastic_transform(x: Tensor, params: Params, draws: Draws) -> Tensor:
    """Apply a random affine map, then a smooth random displacement of the pixels."""
    height, width = x.shape[-2:]
    displacement, smoothness, jitter = (share * min(height, width) for share in params)
    row, column = torch.meshgrid(torch.arange(height, dtype=x.dtype), torch.arange(width, dtype=x.dtype), indexing="ij")
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

    def through(plane: Bytes) -> Bytes:
        shrunk = Image.fromarray(plane).resize(small, Image.Resampling.BOX)
        return np.asarray(shrunk.resize((width, height), Image.Resampling.BOX))

    return _each(x, through)


def jpeg_compression(x: Tensor, params: Params, draws: Draws) -> Tensor:
    """Encode as JPEG with chroma subsampling 4:2:0 and decode.

    By OpenCV: the original's Pillow rests on the same library, gives the same bytes and takes four times as long.
    """
    (quality,) = params
    chroma = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420
    settings = [cv2.IMWRITE_JPEG_QUALITY, int(quality), cv2.IMWRITE_JPEG_SAMPLING_FACTOR, chroma]

    def through(plane: Bytes) -> Bytes:
        code = cv2.imencode(".jpg", plane[..., ::-1] if plane.ndim == 3 else plane, settings)[1]
        decoded = np.asarray(cv2.imdecode(code, cv2.IMREAD_UNCHANGED), np.uint8)
        return decoded[..., ::-1] if plane.ndim == 3 else decoded

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
    corners = jitter.new_tensor([[across + out, down + out], [across + out, down - out], [across - out, down - out]])
    moved = corners + jitter
    ones = torch.ones_like(moved[..., :1])
    back: Tensor = torch.linalg.solve(torch.cat([moved, ones], dim=-1), corners.expand_as(moved))
    return back


def _each(x: Tensor, change: Callable[[Bytes], Bytes]) -> Tensor:
    """Put every image, uint8 (H, W, 3) or for grey ones (H, W), through a function."""
    images = to_bytes(x)
    planes = images[..., 0] if images.shape[-1] == 1 else images
    return from_bytes(np.stack([change(plane) for plane in planes]).reshape(images.shape))
