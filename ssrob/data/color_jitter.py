"""Changes of colour, per image and differentiable: brightness, contrast, saturation, hue and grey."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def recolour(x: Tensor, changes: Mapping[str, Tensor]) -> Tensor:
    """Change brightness, contrast, saturation and hue, then drop the colours of some, in this order.

    x (B, C, H, W) in [0, 1] -> same; C 1 or 3. changes, (B,) each: the factors `brightness`, `contrast` and
    `saturation` (1: as it is), `hue` in turns (0: as it is), `grey` 0 or 1.
    Each change alone is that of `torchvision.transforms.functional`, but the hue's: a rotation of RGB space about its
    grey axis, the same at thirds of a turn and linear between. As all are linear in a pixel, they are one matrix;
    values are cut to [0, 1] at the end alone.
    """
    brightness, contrast = changes["brightness"], changes["contrast"]
    mean = (brightness[:, None, None, None] * luma(x)).mean(dim=(2, 3), keepdim=True)
    gain, offset = (brightness * contrast)[:, None, None, None], (1 - contrast)[:, None, None, None] * mean
    if x.shape[1] == 3:
        saturation, kept = changes["saturation"][:, None, None], 1 - changes["grey"][:, None, None]
        identity, grey_of = torch.eye(3, dtype=x.dtype, device=x.device), _grey_matrix(x)
        desaturate = saturation * identity + (1 - saturation) * grey_of
        matrix = (kept * identity + (1 - kept) * grey_of) @ _turn(changes["hue"]) @ desaturate
        x = (matrix @ x.flatten(2)).view_as(x)
    return (gain * x + offset).clamp(0, 1)


def luma(x: Tensor) -> Tensor:
    """Return the grey of an image, (B, 1, H, W); one channel is its own."""
    if x.shape[1] == 1:
        return x
    return LUMA[0] * x[:, :1] + LUMA[1] * x[:, 1:2] + LUMA[2] * x[:, 2:]


def _turn(hue: Tensor) -> Tensor:
    """Return the rotations (B, 3, 3) about the grey axis, red towards green (Rodrigues' formula)."""
    angle = 2 * math.pi * hue
    along = (1 - angle.cos()) / 3
    same, up = angle.cos() + along, angle.sin() / math.sqrt(3)
    rows = [[same, along - up, along + up], [along + up, same, along - up], [along - up, along + up, same]]
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


def _grey_matrix(like: Tensor) -> Tensor:
    """Return the matrix (3, 3) that maps a colour to its grey; filled on the device, as a copy waits for a GPU."""
    return torch.stack([torch.full((3,), share, dtype=like.dtype, device=like.device) for share in LUMA], dim=1)
