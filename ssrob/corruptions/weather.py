"""Weather. Definitions: Hendrycks & Dietterich (2019). For the arguments see `noise`.

A one-channel image becomes the luma, before clipping, of what the same grey in three channels would become.
"""

from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssrob.corruptions import filters, ice
from ssrob.corruptions.draws import Draws
from ssrob.corruptions.parameters import Params
from ssrob.corruptions.quantize import Bytes, luma, to_bytes, to_levels, truncate

Field = NDArray[np.float64]


def snow(x: Tensor, params: Params, draws: Draws) -> Tensor:
    """Whiten the image and add flakes: thresholded, magnified noise, smeared downwards, laid on twice."""
    mean, sigma, factor, threshold, radius, spread, kept = params
    height, width = x.shape[-2:]
    flakes = mean + sigma * draws.normal("flakes", 1, height, width)
    flakes = filters.zoom_matrix(height, factor) @ flakes @ filters.zoom_matrix(width, factor).T
    flakes = truncate(torch.where(flakes < threshold, 0.0, flakes))
    flakes = filters.smear(flakes, radius, spread, draws.between("angle", -135.0, -45.0))
    pale = torch.maximum(x, 1.5 * luma(x) + 0.5)
    return kept * x + (1.0 - kept) * pale + flakes + flakes.rot90(2, (2, 3))


def frost(x: Tensor, params: Params, draws: Draws, photographs: Path | None = None) -> Tensor:
    """Add random crops of photographs of frost, or of a procedural ice texture when no folder is given."""
    weight, ice_weight, scale = params
    height, width = x.shape[-2:]
    plates = ice.plates(height, width) if photographs is None else ice.read(photographs, scale, height, width)
    crops = []
    for choice, down, right in draws.uniform("crop", 3).tolist():
        plate = plates[int(choice * len(plates))]
        top = int(down * (plate.shape[1] - height))
        left = int(right * (plate.shape[2] - width))
        crops.append(plate[:, top : top + height, left : left + width])
    frozen = torch.stack(crops)
    return weight * x + ice_weight * (luma(frozen) if x.shape[1] == 1 else frozen)


def fog(images: Bytes, params: Params, draws: Draws) -> Bytes:
    """Add one random height field to all channels and rescale to the image's own maximum."""
    amount, decay = params
    height, width, channels = images.shape[1:]
    size = 1 << (max(height, width) - 1).bit_length()
    field = plasma(draws.between("field", -1.0, 1.0, size, size).numpy(), decay)
    added = amount * field[:, :height, :width]
    peak = images.max((1, 2, 3))[:, None, None] / 255.0
    foggy = np.empty_like(images)
    for channel in range(channels):  # one at a time stays in a processor cache
        plane = images[..., channel] / 255.0 + added
        plane *= peak
        plane /= peak + amount
        foggy[..., channel] = to_levels(torch.from_numpy(plane).mul_(255.0))
    return foggy


def brightness(x: Tensor, params: Params, draws: Draws) -> Tensor:
    """Raise the value of HSV: at fixed hue and saturation the channels scale with it."""
    (added,) = params
    value = x.amax(1, keepdim=True)
    raised = (value + added).clamp(max=1.0)
    return torch.where(value > 0.0, x * (raised / value.clamp(min=1e-9)), raised)


def spatter(x: Tensor, params: Params, draws: Draws) -> Tensor:
    """Throw drops of water (added, with light at their rims) or of mud (laid over the image) at it."""
    mean, sigma, smoothness, threshold, strength, is_mud = params
    layer = mean + sigma * draws.normal("drops", 1, *x.shape[-2:])
    layer = filters.gaussian(layer, smoothness)
    if is_mud:
        cover = filters.gaussian((layer > threshold).to(x.dtype), strength)
        cover = torch.where(cover < 0.8, 0.0, cover)
        return x * (1.0 - cover) + cover * _colour(_MUD, x)
    drops = _lit_drops(torch.where(layer < threshold, 0.0, layer))
    return x + strength * drops * _colour(_WATER, x)


_WATER = (175, 238, 238)  # pale turquoise
_MUD = (63, 42, 20)
_LIT_FROM = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], dtype=np.float32)


def _colour(rgb: tuple[int, int, int], x: Tensor) -> Tensor:
    """Return a colour as (1, C, 1, 1) for images with 3 channels, and its luma for images with 1."""
    colour = torch.tensor(rgb, dtype=x.dtype).reshape(1, 3, 1, 1) / 255.0
    return luma(colour) if x.shape[1] == 1 else colour


def _lit_drops(layer: Tensor) -> Tensor:
    """Weigh liquid (B, 1, H, W) >= 0 by its distance to a rim, lit from one side; each image's maximum is 1.

    The chain of OpenCV calls is the definition (Hendrycks & Dietterich 2019). An image without liquid stays
    dry. Liquid above 1, which is rare, starts again from 0: the original overflows its bytes.
    """
    lit = np.stack([_lit(liquid) for liquid in to_bytes(layer.remainder(256 / 255))[..., 0]])
    return torch.from_numpy(lit)[:, None].to(torch.float64)


def _lit(liquid: NDArray[np.uint8]) -> NDArray[np.float32]:
    distance = cv2.distanceTransform(255 - cv2.Canny(liquid, 50, 150), cv2.DIST_L2, 5)
    distance = cv2.blur(np.minimum(distance, 20), (3, 3)).astype(np.uint8)
    relief = cv2.filter2D(cv2.equalizeHist(distance), cv2.CV_8U, _LIT_FROM)
    light = np.multiply(liquid, cv2.blur(relief, (3, 3)), dtype=np.float32)
    return np.asarray(light / max(light.max(), np.float32(1.0)), np.float32)


def plasma(noise: Field, decay: float) -> Field:
    """Turn U(-1, 1) noise (B, S, S), S a power of two, into height fields in [0, 1] by diamond-square.

    Fields are periodic. Roughness falls by decay squared per octave, because the original scales U(-w, w)
    by w once more.
    """
    field = np.zeros((len(noise), 1, 1))
    rough, step = 1.0, noise.shape[-1]
    while step >= 2:
        half, corners = step // 2, field
        pairs = _plus_rolled(corners, corners, -1, axis=1)
        centres = _mean(_plus_rolled(pairs, pairs, -1, axis=2), rough * noise[:, half::step, half::step])
        above_below = _plus_rolled(_plus_rolled(centres, centres, 1, axis=1) + corners, corners, -1, axis=2)
        left_right = _plus_rolled(_plus_rolled(centres, centres, 1, axis=2) + corners, corners, -1, axis=1)
        field = np.empty((len(noise), 2 * corners.shape[1], 2 * corners.shape[2]))
        field[:, ::2, ::2] = corners
        field[:, 1::2, 1::2] = centres
        field[:, ::2, 1::2] = _mean(above_below, rough * noise[:, ::step, half::step])
        field[:, 1::2, ::2] = _mean(left_right, rough * noise[:, half::step, ::step])
        rough, step = rough / decay**2, half
    field -= field.min((1, 2), keepdims=True)
    field /= field.max((1, 2), keepdims=True)
    return field


def _mean(four: Field, noise: Field) -> Field:
    """Turn the sum of four neighbours into their mean plus noise, in place."""
    four *= 0.25
    four += noise
    return four


def _plus_rolled(left: Field, right: Field, shift: Literal[-1, 1], axis: int) -> Field:
    """Return left + numpy.roll(right, shift, axis), without the copy that rolling makes."""
    total = left.copy()
    into, rolled = (total, right) if axis == 1 else (total.swapaxes(1, 2), right.swapaxes(1, 2))
    into[:, shift:] += rolled[:, :-shift]
    into[:, :shift] += rolled[:, -shift:]
    return total
