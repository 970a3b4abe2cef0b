"""Weather. Definitions: Hendrycks & Dietterich (2019). For the arguments see `noise`.

A one-channel image becomes the luma, before clipping, of what the same grey in three channels would become.
"""

from pathlib import Path

import torch
from torch import Tensor

from ssrob.corruptions import filters, ice
from ssrob.corruptions.draws import Draws
from ssrob.corruptions.drops import lit_drops
from ssrob.corruptions.parameters import Params
from ssrob.corruptions.quantize import luma, truncate


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


def fog(x: Tensor, params: Params, draws: Draws) -> Tensor:
    """Add one random height field to all channels and rescale to the image's own maximum."""
    amount, decay = params
    height, width = x.shape[-2:]
    size = 1 << (max(height, width) - 1).bit_length()
    field = plasma(draws.between("field", -1.0, 1.0, size, size), decay)[:, None, :height, :width]
    peak = x.amax((1, 2, 3), keepdim=True)
    return (x + amount * field) * peak / (peak + amount)


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
    drops = lit_drops(torch.where(layer < threshold, 0.0, layer))
    return x + strength * drops * _colour(_WATER, x)


_WATER = (175, 238, 238)  # pale turquoise
_MUD = (63, 42, 20)


def _colour(rgb: tuple[int, int, int], x: Tensor) -> Tensor:
    """Return a colour as (1, C, 1, 1) for images with 3 channels, and its luma for images with 1."""
    colour = torch.tensor(rgb, dtype=x.dtype).reshape(1, 3, 1, 1) / 255.0
    return luma(colour) if x.shape[1] == 1 else colour


def plasma(noise: Tensor, decay: float) -> Tensor:
    """Turn U(-1, 1) noise (B, S, S), S a power of two, into height fields in [0, 1] by diamond-square.

    Fields are periodic. Roughness falls by decay squared per octave, because the original scales U(-w, w)
    by w once more.
    """
    size = noise.shape[-1]
    field = torch.zeros_like(noise)
    rough, step = 1.0, size
    while step >= 2:
        half = step // 2
        corners = field[:, ::step, ::step]
        pairs = corners + corners.roll(-1, 1)
        centres = (pairs + pairs.roll(-1, 2)) / 4 + rough * noise[:, half::step, half::step]
        above_below = centres + centres.roll(1, 1) + corners + corners.roll(-1, 2)
        left_right = centres + centres.roll(1, 2) + corners + corners.roll(-1, 1)
        field[:, half::step, half::step] = centres
        field[:, ::step, half::step] = above_below / 4 + rough * noise[:, ::step, half::step]
        field[:, half::step, ::step] = left_right / 4 + rough * noise[:, half::step, ::step]
        rough, step = rough / decay**2, half
    low, high = field.amin((1, 2), keepdim=True), field.amax((1, 2), keepdim=True)
    return (field - low) / (high - low)
