"""Random resized crops, drawn for every image by itself: by its number, the epoch and the seed."""

import math

from torch import Tensor

from ssrob.seeding import example_keys, uniform

TRIES = 10
AREA = (0.08, 1.0)  # of the crop, as a share of the image
LOG_RATIO = math.log(4 / 3)  # width to height is between 3:4 and 4:3
Box = tuple[int, int, int, int]  # left, top, right, bottom


def draw(index: Tensor, seed: int, epoch: int) -> Tensor:
    """Draw what decides the crops of images number `index` (B,) int64 in an epoch: (B, 10, 4) float32 in [0, 1)."""
    return uniform(example_keys(index, seed, "resized crop", epoch), (TRIES, 4))


def box(numbers: Tensor, width: int, height: int) -> Box:
    """Return one image's crop, from its numbers (10, 4): the first that fits, as torchvision's `RandomResizedCrop`.

    Each try takes area, ratio, top and left. Where none fits, it is the largest centred part of an allowed ratio.
    """
    for area, ratio, top, left in numbers.tolist():
        size = width * height * (AREA[0] + (AREA[1] - AREA[0]) * area)
        shape = math.exp(LOG_RATIO * (2 * ratio - 1))
        wide, high = round(math.sqrt(size * shape)), round(math.sqrt(size / shape))
        if 0 < wide <= width and 0 < high <= height:
            x, y = int(left * (width - wide + 1)), int(top * (height - high + 1))
            return x, y, x + wide, y + high
    widest = math.exp(LOG_RATIO)
    wide, high = min(width, round(height * widest)), min(height, round(width * widest))
    x, y = (width - wide) // 2, (height - high) // 2
    return x, y, x + wide, y + high
