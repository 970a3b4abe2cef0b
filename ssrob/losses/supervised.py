"""Losses that use the class labels or the class head."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ssrob.losses.batch import Batch, Model


def xent(model: Model, x: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy of the class head at x against the labels, smoothed as the batch says (Szegedy et al. 2016)."""
    return F.cross_entropy(model(x), batch.y, reduction="none", label_smoothing=batch.smoothing)


def correct(model: Model, x: Tensor, batch: Batch) -> Tensor:
    """(B,) bool: whether the class head at x gives the label."""
    return model(x).argmax(dim=1) == batch.y


def kl_to_clean(model: Model, x: Tensor, batch: Batch) -> Tensor:
    """KL(p(clean) || p(x)) of the class head: the regulariser of TRADES (Zhang et al. 2019, eq. 5)."""
    clean, moved = F.log_softmax(model(batch.x), dim=1), F.log_softmax(model(x), dim=1)
    return F.kl_div(moved, clean, reduction="none", log_target=True).sum(dim=1)


def views_xent(model: Model, x: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy of the class head at a task's views of x against the labels, smoothed; the mean over the views.

    The control for an SSL loss at the same views: they augment, and nothing is learnt but the classes.
    """
    views = batch.seen(str(batch.told("views_xent")["task"]), x)
    losses = [
        F.cross_entropy(model(view), batch.y, reduction="none", label_smoothing=batch.smoothing) for view in views
    ]
    return torch.stack(losses).mean(dim=0)
