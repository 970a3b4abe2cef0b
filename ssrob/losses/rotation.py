"""Rotation prediction (Gidaris et al. 2018): which quarter turn was an image given?"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ssrob.losses.batch import Batch, Model


def draw(batch_size: int, generator: torch.Generator) -> Tensor:
    """Draw one quarter turn k in 0..3 per image, (B,) int64, balanced in the batch."""
    order = torch.randperm(batch_size, generator=generator, device=generator.device)
    return order % 4


def rotate(x: Tensor, k: Tensor) -> Tensor:
    """Turn image i by k[i] quarter turns counter-clockwise, as `torch.rot90`; x (B, C, H, H), k (B,)."""
    if x.shape[-1] != x.shape[-2]:
        raise ValueError(f"rotation needs square images, found {x.shape[-2]} x {x.shape[-1]}")
    turned = torch.stack([torch.rot90(x, turns, dims=(2, 3)) for turns in range(4)])
    return turned[k, torch.arange(len(x), device=x.device)]


def rotation(model: Model, x: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy of the rotation head at the rotated x against the turn."""
    k = batch.views["rotation"]
    return F.cross_entropy(model(rotate(x, k), head="rotation"), k, reduction="none")


def correct(model: Model, x: Tensor, batch: Batch) -> Tensor:
    """(B,) bool: whether the rotation head names the turn."""
    k = batch.views["rotation"]
    return model(rotate(x, k), head="rotation").argmax(dim=1) == k
