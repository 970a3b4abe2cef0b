"""Random views of images: per image, differentiable, all on the images' device.

A view crops and resizes, flips, changes colours and drops them, in this order, as in SimCLR (Chen et al. 2020,
appendix A) without blur. What it does is one row of numbers per image, so that a step draws them once and an attack
maximises one function. Probabilities and strengths are SimCLR's at strength 0.5; the crop keeps at least a fifth of the
image (there: 8 %), because images are small here.
"""

import math

import torch
from torch import Tensor

from ssrob.data.color_jitter import recolour

AREA = (0.2, 1.0)  # of the crop, as a share of the image
LOG_RATIO = math.log(4 / 3)  # the crop is between 3:4 and 4:3, in log units
JITTERED, GREYED, FLIPPED = 0.8, 0.2, 0.5  # probabilities
BRIGHTNESS, CONTRAST, SATURATION, HUE = 0.4, 0.4, 0.4, 0.1  # factors in 1 -+ b; the hue in turns, -+ h

# What a view is, in the order of its numbers. top, left, height, width: shares of the image, 0..1; flip, grey: 0 or 1;
# brightness, contrast, saturation: factors, 1 for none; hue: turns of the colour circle, 0 for none.
PARAMETERS = ("top", "left", "height", "width", "flip", "brightness", "contrast", "saturation", "hue", "grey")


def draw(batch_size: int, generator: torch.Generator, views: int = 2) -> Tensor:
    """Draw the parameters of so many independent views per image, (views, B, 10) float32 (see PARAMETERS)."""
    shape = (len(PARAMETERS) + 1, views, batch_size)
    u = dict(zip((*PARAMETERS, "jitter"), torch.rand(shape, generator=generator, device=generator.device), strict=True))
    area = AREA[0] + (AREA[1] - AREA[0]) * u["height"]
    half = torch.exp(LOG_RATIO / 2 * (2 * u["width"] - 1))  # the root of width : height
    height, width = (area.sqrt() / half).clamp(max=1), (area.sqrt() * half).clamp(max=1)
    jitter = (u["jitter"] < JITTERED).float()
    drawn = {
        "top": (1 - height) * u["top"],
        "left": (1 - width) * u["left"],
        "height": height,
        "width": width,
        "flip": (u["flip"] < FLIPPED).float(),
        "brightness": 1 + jitter * BRIGHTNESS * (2 * u["brightness"] - 1),
        "contrast": 1 + jitter * CONTRAST * (2 * u["contrast"] - 1),
        "saturation": 1 + jitter * SATURATION * (2 * u["saturation"] - 1),
        "hue": jitter * HUE * (2 * u["hue"] - 1),
        "grey": (u["grey"] < GREYED).float(),
    }
    return torch.stack([drawn[name] for name in PARAMETERS], dim=-1)


def view(x: Tensor, parameters: Tensor) -> Tensor:
    """Make one view of every image; x (B, C, H, W) in [0, 1], C 1 or 3, parameters (B, 10) -> same as x.

    Computed in the images' own precision, also under autocast: half precision would coarsen the images.
    """
    if x.shape[1] not in (1, 3):
        raise ValueError(f"views are defined for images with 1 or 3 channels, found {x.shape[1]}")
    p = dict(zip(PARAMETERS, parameters.to(x.dtype).unbind(dim=1), strict=True))
    with torch.autocast(x.device.type, enabled=False):
        rows = _resampling(p["top"], p["height"], torch.zeros_like(p["flip"]), x.shape[2])
        columns = _resampling(p["left"], p["width"], p["flip"], x.shape[3])
        resized = rows[:, None] @ x @ columns[:, None].mT
        return recolour(resized, p)


def _resampling(start: Tensor, size: Tensor, reverse: Tensor, pixels: int) -> Tensor:
    """Return the matrices (B, pixels, pixels) that cut [start, start + size] out of a line and stretch it again.

    Bilinear within the crop, whose borders repeat, as `torchvision.transforms.functional.resized_crop`. As a matrix
    product its backward pass gives the same bits each time; that of `grid_sample` does not on a GPU.
    """
    grid = torch.arange(pixels, dtype=start.dtype, device=start.device)
    length = (size * pixels).clamp(min=1)[:, None]
    first = (start * pixels)[:, None].minimum(pixels - length)
    output = torch.where(reverse[:, None] > 0.5, pixels - 1 - grid, grid)
    place = first + ((output + 0.5) * length / pixels - 0.5).clamp(min=0).minimum(length - 1)
    return (1 - (place[:, :, None] - grid).abs()).clamp(min=0)
