"""Between images in [0, 1] and grey levels, and between colour and grey.

CIFAR-10-C was written with `numpy.uint8(value)`, which truncates: a corruption darkens by half a level on
average, and so must this package.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Bytes = NDArray[np.uint8]

# A value that is an integer on paper comes out of float64 arithmetic as 200.0000000001 or 199.9999999999;
# half a millionth of a level keeps it from falling to 199, whatever the batch size or the libraries.
_GUARD = 5e-7

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as cv2.COLOR_RGB2GRAY


def from_bytes(images: Bytes) -> Tensor:
    """Turn uint8 images (B, H, W, C) into a batch (B, C, H, W), float64 in [0, 1]."""
    x = np.empty((len(images), images.shape[3], *images.shape[1:3]))
    return torch.from_numpy(np.divide(images.transpose(0, 3, 1, 2), 255.0, out=x))


def to_bytes(x: Tensor) -> Bytes:
    """Clip a batch (B, C, H, W) to [0, 1] and truncate it to uint8 images (B, H, W, C)."""
    return to_levels(x * 255.0).permute(0, 2, 3, 1).contiguous().numpy()


def truncate(x: Tensor) -> Tensor:
    """Clip to [0, 1] and truncate to the grey levels k/255, as a store into a uint8 image does."""
    return to_levels(x * 255.0).to(torch.float64) / 255.0


def luma(rgb: Tensor) -> Tensor:
    """Return the grey of colour images, (B, 3, H, W) -> (B, 1, H, W); grey images come back as they are."""
    if rgb.shape[1] == 1:
        return rgb
    weights = torch.tensor(_LUMA, dtype=rgb.dtype)
    return (rgb * weights[:, None, None]).sum(1, keepdim=True)


def to_levels(values: Tensor) -> Tensor:
    """Clip grey values, float64 of any shape, to [0, 255] and truncate them to uint8; works in `values`."""
    return values.add_(_GUARD).clamp_(0.0, 255.0).to(torch.uint8)
