"""Rotation prediction (Gidaris et al. 2018): which quarter turn was an image given?"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ssrob.losses.batch import Model, Task

TURNS = 4


def draw(batch_size: int, generator: torch.Generator) -> Tensor:
    """Draw one quarter turn k in 0..3 per image, (B,) int64, balanced in the batch."""
    order = torch.randperm(batch_size, generator=generator, device=generator.device)
    return order % TURNS


def rotate(x: Tensor, k: Tensor) -> Tensor:
    """Turn image i by k[i] quarter turns counter-clockwise, as `torch.rot90`; x (B, C, H, H), k (B,)."""
    turned = torch.stack(all_views(x))
    return turned[k, torch.arange(len(x), device=x.device)]


def views(x: Tensor, k: Tensor) -> tuple[Tensor]:
    """Return the images, each by its own turn."""
    return (rotate(x, k),)


def all_views(x: Tensor, _: None = None) -> tuple[Tensor, ...]:
    """Return the images by no, one, two and three quarter turns."""
    if x.shape[-1] != x.shape[-2]:
        raise ValueError(f"rotation needs square images, found {x.shape[-2]} x {x.shape[-1]}")
    return tuple(torch.rot90(x, turns, dims=(2, 3)) for turns in range(TURNS))


def rotation(model: Model, x: Tensor, task: Task) -> Tensor:
    """Cross-entropy of the rotation head at the rotated x against the turn."""
    (rotated,) = task.views
    return F.cross_entropy(model(rotated, head=task.head), task.drawn, reduction="none")


def correct(model: Model, x: Tensor, task: Task) -> Tensor:
    """(B,) bool: whether the rotation head predicts the turn."""
    (rotated,) = task.views
    return model(rotated, head=task.head).argmax(dim=1) == task.drawn


def rotation_all(model: Model, x: Tensor, task: Task) -> Tensor:
    """Mean over all four turns of every image (Hendrycks et al. 2019), (B,)."""
    losses = [F.cross_entropy(logits, turn, reduction="none") for logits, turn in _all_turns(model, x, task)]
    return torch.stack(losses).mean(dim=0)


def correct_all(model: Model, x: Tensor, task: Task) -> Tensor:
    """(B,) bool: whether the rotation head predicts all four turns of the image."""
    return torch.stack([logits.argmax(dim=1) == turn for logits, turn in _all_turns(model, x, task)]).all(dim=0)


def _all_turns(model: Model, x: Tensor, task: Task) -> list[tuple[Tensor, Tensor]]:
    """Return the rotation head's outputs (B, 4) at each turn, and the turn (B,)."""
    zero = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    return [(model(view, head=task.head), zero + turn) for turn, view in enumerate(task.views)]
