"""Contrastive learning (SimCLR, Chen et al. 2020): which two of the batch's views show the same image?"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ssrob.data import views
from ssrob.losses.batch import Batch, Model

TEMPERATURE = 0.5  # the best of their appendix B.9 for CIFAR-10


def draw(batch_size: int, generator: torch.Generator) -> Tensor:
    """Draw two views per image, (2, B, 10)."""
    return views.draw(batch_size, generator)


def contrastive(model: Model, x: Tensor, batch: Batch) -> Tensor:
    """NT-Xent of two views of x, one number for the batch, as (B,)."""
    return nt_xent(_similarities(model, x, batch) / TEMPERATURE).expand(len(x))


def correct(model: Model, x: Tensor, batch: Batch) -> Tensor:
    """(B,) bool: whether the most similar of the batch's 2B - 1 other views is the image's own second view."""
    partner = torch.arange(len(x), 2 * len(x), device=x.device)
    return _without_self(_similarities(model, x, batch))[: len(x)].argmax(dim=1) == partner


def nt_xent(logits: Tensor) -> Tensor:
    """Mean cross-entropy of every view's partner against all other views (eq. 1), a scalar.

    logits (2B, 2B): similarities over the temperature; rows i and i + B are the views of image i.
    """
    views_ = torch.arange(len(logits), device=logits.device)
    return F.cross_entropy(_without_self(logits), views_.roll(len(logits) // 2))


def _similarities(model: Model, x: Tensor, batch: Batch) -> Tensor:
    """Return the cosine similarities (2B, 2B) of all views; float32 also under autocast."""
    embedded = [model(views.view(x, each), head="contrastive") for each in batch.views["contrastive"]]
    with torch.autocast(x.device.type, enabled=False):
        z = F.normalize(torch.cat(embedded), dim=1)
        return z @ z.T


def _without_self(similarities: Tensor) -> Tensor:
    itself = torch.eye(len(similarities), dtype=torch.bool, device=similarities.device)
    return similarities.masked_fill(itself, -torch.inf)
