"""Digital corruptions. Definitions: Hendrycks & Dietterich (2019). For the arguments see `noise`."""

from functools import lru_cache

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ssrob.corruptions import filters
from ssrob.corruptions.draws import Draws
from ssrob.corruptions.parameters import Params
from ssrob.corruptions.quantize import Bytes, luma


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


def pixelate(images: Bytes, params: Params, draws: Draws) -> Bytes:
    """Shrink and enlarge again with a box filter (Pillow's, which rounds to grey levels after each pass)."""
    (kept,) = params
    height, width, channels = images.shape[1:]
    small = max(1, int(width * kept)), max(1, int(height * kept))
    rows, _ = _enlarged(small[1], height)
    blocky = np.empty_like(images)
    for plane, into in zip(_planes(images), blocky, strict=True):
        shrunk = np.asarray(Image.fromarray(plane).resize(small, Image.Resampling.BOX))
        wide = _widened(shrunk, width).reshape(small[1], width, channels)
        wide.take(rows, axis=0, out=into, mode="clip")  # the mode that needs no buffer
    return blocky


def jpeg_compression(images: Bytes, params: Params, draws: Draws) -> Bytes:
    """Encode as JPEG with chroma subsampling 4:2:0 and decode.

    By OpenCV: the original's Pillow rests on the same library, gives the same bytes and takes twice as long.
    """
    (quality,) = params
    chroma = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420
    settings = [cv2.IMWRITE_JPEG_QUALITY, int(quality), cv2.IMWRITE_JPEG_SAMPLING_FACTOR, chroma]
    decoded = []
    for plane in _planes(images):
        colour = plane.ndim == 3
        code = cv2.imencode(".jpg", cv2.cvtColor(plane, cv2.COLOR_RGB2BGR) if colour else plane, settings)[1]
        lossy = np.asarray(cv2.imdecode(code, cv2.IMREAD_UNCHANGED), np.uint8)
        decoded.append(cv2.cvtColor(lossy, cv2.COLOR_BGR2RGB) if colour else lossy)
    return np.stack(decoded).astype(np.uint8, copy=False).reshape(images.shape)


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


def _widened(pixels: Bytes, width: int) -> Bytes:
    """Enlarge an image to `width` columns as Pillow's box filter does."""
    columns, as_cv2 = _enlarged(pixels.shape[1], width)
    if as_cv2:
        return np.asarray(cv2.resize(pixels, (width, len(pixels)), interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)
    return pixels.take(columns, axis=1)


@lru_cache(maxsize=32)
def _enlarged(small: int, size: int) -> tuple[NDArray[np.intp], bool]:
    """Return which of `small` pixels each of `size` copies under Pillow's box filter, (size,); none is a mixture.

    And whether OpenCV copies the same, in half the time: rounding decides about a centre between two pixels.
    """
    ramp = np.arange(small, dtype=np.int32)[None]
    copied = np.asarray(Image.fromarray(ramp).resize((size, 1), Image.Resampling.BOX), np.intp)
    by_cv2 = cv2.resize(ramp.astype(np.float32), (size, 1), interpolation=cv2.INTER_NEAREST_EXACT)
    return copied[0], np.array_equal(copied, by_cv2)


def _planes(images: Bytes) -> Bytes:
    """Return images as libraries of single images take them: colour (B, H, W, 3), grey (B, H, W)."""
    return images[..., 0] if images.shape[-1] == 1 else images
