"""Losses that use the class labels or the class head."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ssrob.losses.batch import Model, Task


def xent(model: Model, x: Tensor, task: Task) -> Tensor:
    """Cross-entropy of the class head at x against the labels."""
    return F.cross_entropy(model(x), task.labels, reduction="none")


def correct(model: Model, x: Tensor, task: Task) -> Tensor:
    """(B,) bool: whether the class head at x predicts the label."""
    return model(x).argmax(dim=1) == task.labels


def kl_to_clean(model: Model, x: Tensor, task: Task) -> Tensor:
    """KL(p(clean) || p(x)) of the class head: the regulariser of TRADES (Zhang et al. 2019, eq. 5)."""
    clean, perturbed = F.log_softmax(model(task.clean), dim=1), F.log_softmax(model(x), dim=1)
    return F.kl_div(perturbed, clean, reduction="none", log_target=True).sum(dim=1)


def views_xent(model: Model, x: Tensor, task: Task) -> Tensor:
    """Cross-entropy of the class head at an SSL task's views of x against the labels; the mean over the views.

    The control for an SSL loss at the same views: they augment, and nothing is learnt but the classes.
    """
    losses = [F.cross_entropy(model(view), task.labels, reduction="none") for view in task.views]
    return torch.stack(losses).mean(dim=0)
