"""VICReg (Bardes, Ponce, LeCun 2022): two views agree, and the outputs neither collapse nor repeat each other."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ssrob.losses.batch import Model, Task

EPSILON = 1e-4  # under the root of the variance


def vicreg(model: Model, x: Tensor, task: Task) -> Tensor:
    """VICReg's loss at two views of x, one number for the batch, as (B,)."""
    first, second = (model(view, head=task.head) for view in task.views)
    weights = [float(task.arguments[name]) for name in ("invariance", "variance", "covariance")]
    with torch.autocast(x.device.type, enabled=False):
        return regularised(first, second, weights).expand(len(x))


def regularised(first: Tensor, second: Tensor, weights: Sequence[float]) -> Tensor:
    """Weigh invariance, variance and covariance (their eq. 6) of outputs (B, D), B >= 2; a scalar.

    As in their code: the invariance is a mean over the D outputs too, the variance a mean over both views.
    """
    if len(first) < 2:
        raise ValueError(f"vicreg compares the images of a batch: expected at least 2, found {len(first)}")
    variance = (_spread(first) + _spread(second)) / 2
    covariance = _redundancy(first) + _redundancy(second)
    return weights[0] * F.mse_loss(first, second) + weights[1] * variance + weights[2] * covariance


def _spread(z: Tensor) -> Tensor:
    """Return how far the standard deviations fall short of 1, on average (eq. 1 and 2)."""
    return F.relu(1 - (z.var(dim=0) + EPSILON).sqrt()).mean()


def _redundancy(z: Tensor) -> Tensor:
    """Return the sum of the squared covariances of different outputs, over D (eq. 3 and 4)."""
    centred = z - z.mean(dim=0)
    squares = (centred.T @ centred / (len(z) - 1)).square()
    return (squares.sum() - squares.diagonal().sum()) / z.shape[1]
