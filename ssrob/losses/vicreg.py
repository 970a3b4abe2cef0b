"""VICReg (Bardes, Ponce, LeCun 2022): two views agree, and the outputs neither collapse nor repeat each other."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ssrob.data import views
from ssrob.losses.batch import Batch, Model

# Theirs are 25, 25 and 1. Divided by 5, an untrained network's gradient has about the norm of the cross-entropy's (on
# digits 0.6 and 0.6; rotation 0.4, contrastive 0.8), so that an SSL weight means about as much as for the other tasks.
INVARIANCE, VARIANCE, COVARIANCE = 5.0, 5.0, 0.2
EPSILON = 1e-4  # under the root of the variance


def draw(batch_size: int, generator: torch.Generator) -> Tensor:
    """Draw two views per image, (2, B, 10)."""
    return views.draw(batch_size, generator)


def vicreg(model: Model, x: Tensor, batch: Batch) -> Tensor:
    """A fifth of VICReg's loss at two views of x, one number for the batch, as (B,)."""
    first, second = (model(views.view(x, each), head="vicreg") for each in batch.views["vicreg"])
    with torch.autocast(x.device.type, enabled=False):
        return regularised(first, second).expand(len(x))


def regularised(first: Tensor, second: Tensor) -> Tensor:
    """Weigh invariance, variance and covariance (a fifth of their eq. 6) of outputs (B, D), B >= 2; a scalar.

    As in their code: the invariance is a mean over the D outputs too, the variance a mean over both views.
    """
    if len(first) < 2:
        raise ValueError(f"vicreg compares the images of a batch: expected at least 2, found {len(first)}")
    variance = (_spread(first) + _spread(second)) / 2
    covariance = _redundancy(first) + _redundancy(second)
    return INVARIANCE * F.mse_loss(first, second) + VARIANCE * variance + COVARIANCE * covariance


def _spread(z: Tensor) -> Tensor:
    """Return how far the standard deviations fall short of 1, on average (eq. 1 and 2)."""
    return F.relu(1 - (z.var(dim=0) + EPSILON).sqrt()).mean()


def _redundancy(z: Tensor) -> Tensor:
    """Return the sum of the squared covariances of different outputs, over D (eq. 3 and 4)."""
    centred = z - z.mean(dim=0)
    squares = (centred.T @ centred / (len(z) - 1)).square()
    return (squares.sum() - squares.diagonal().sum()) / z.shape[1]
