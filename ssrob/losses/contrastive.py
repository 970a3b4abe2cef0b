"""Contrastive learning (SimCLR, Chen et al. 2020): which two of the batch's views show the same image?"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ssrob.data import views
from ssrob.losses.batch import Model, Task


def draw(batch_size: int, generator: torch.Generator, **_: float) -> Tensor:
    """Draw two views per image, (B, 2, 10)."""
    return views.draw(batch_size, generator).transpose(0, 1)


def two_views(x: Tensor, parameters: Tensor, **_: float) -> tuple[Tensor, ...]:
    """Return both views of every image."""
    return tuple(views.view(x, each) for each in parameters.unbind(1))


def three_views(x: Tensor, parameters: Tensor, **_: float) -> tuple[Tensor, ...]:
    """Return both views of every image, and the first again."""
    first, second = two_views(x, parameters)
    return first, second, first.clone()


def contrastive(model: Model, x: Tensor, task: Task) -> Tensor:
    """NT-Xent of two views of x, one number for the batch, as (B,)."""
    return nt_xent(_similarities(model, task.views, task) / _temperature(task)).expand(len(x))


def correct(model: Model, x: Tensor, task: Task) -> Tensor:
    """(B,) bool: whether the most similar of the batch's 2B - 1 other views is the image's own second view."""
    partner = torch.arange(len(x), 2 * len(x), device=x.device)
    return _without_self(_similarities(model, task.views, task))[: len(x)].argmax(dim=1) == partner


def rocl(model: Model, x: Tensor, task: Task) -> Tensor:
    """RoCL's loss of three views of x, of which the third is adversarial (Kim et al. 2020), as (B,).

    As in their code: every ordered pair of an image's views is a positive, and all other views of the batch stand in
    its denominator; the sum over an anchor's two positives, the mean over the 3B anchors.
    """
    logits = _similarities(model, task.views, task) / _temperature(task)
    anchors = torch.arange(len(logits), device=x.device)
    others = _without_self(logits)
    pairs = [F.cross_entropy(others, anchors.roll(each * len(x))) for each in (1, 2)]
    return (pairs[0] + pairs[1]).expand(len(x))


def rocl_attack(model: Model, x: Tensor, task: Task) -> Tensor:
    """NT-Xent of the adversarial view against the second one, which RoCL's attack maximises, as (B,)."""
    _, second, third = task.views
    return nt_xent(_similarities(model, (third, second), task) / _temperature(task)).expand(len(x))


def nt_xent(logits: Tensor) -> Tensor:
    """Mean cross-entropy of every view's partner against all other views (eq. 1), a scalar.

    logits (2B, 2B): similarities over the temperature; rows i and i + B are the views of image i.
    """
    views_ = torch.arange(len(logits), device=logits.device)
    return F.cross_entropy(_without_self(logits), views_.roll(len(logits) // 2))


def _similarities(model: Model, images: tuple[Tensor, ...], task: Task) -> Tensor:
    """Return the cosine similarities (VB, VB) of V batches of images; float32 also under autocast."""
    embedded = [model(each, head=task.head) for each in images]
    with torch.autocast(images[0].device.type, enabled=False):
        z = F.normalize(torch.cat(embedded), dim=1)
        return z @ z.T


def _temperature(task: Task) -> float:
    return float(task.arguments["temperature"])


def _without_self(similarities: Tensor) -> Tensor:
    itself = torch.eye(len(similarities), dtype=torch.bool, device=similarities.device)
    return similarities.masked_fill(itself, -torch.inf)
