"""Scores of an image by a model: the higher, the more it looks like the training distribution.

All are pure functions of a batch's outputs, differentiable in them, and return (B,). Logits are (B, K).
"""

import math

import torch.nn.functional as F
from torch import Tensor

TURNS = 4


def max_softmax(logits: Tensor) -> Tensor:
    """Largest class probability, 1/K to 1 (Hendrycks & Gimpel 2017)."""
    return logits.softmax(dim=1).amax(dim=1)


def max_logit(logits: Tensor) -> Tensor:
    """Largest logit (Hendrycks et al. 2022)."""
    return logits.amax(dim=1)


def energy(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Negative free energy, T logsumexp(logits / T) (Liu et al. 2020, eq. 4 with the sign turned)."""
    return temperature * (logits / temperature).logsumexp(dim=1)


def nearest_neighbour(features: Tensor, bank: Tensor, k: int) -> Tensor:
    """Minus the distance to the k-th nearest of the training features (Sun et al. 2022), -2 to 0.

    features (B, D) and bank (N, D) are scaled to length 1 here; 1 <= k <= N.
    """
    if not 1 <= k <= len(bank):
        raise ValueError(f"k must be 1..{len(bank)} (the features in the bank), found {k}")
    similarity = F.normalize(features, dim=1) @ F.normalize(bank, dim=1).T
    kth = similarity.topk(k, dim=1).values[:, -1]
    return -(2 - 2 * kth).clamp(min=0).sqrt()


def rotation_loss(turned: Tensor) -> Tensor:
    """Minus the rotation head's mean cross-entropy over all four quarter turns of an image (Hendrycks et al. 2019).

    turned (4, B, 4): the head's logits at the images turned 0, 1, 2 and 3 times, as `losses.rotation.all_views` does.
    """
    if turned.ndim != 3 or turned.shape[0] != TURNS or turned.shape[2] != TURNS:
        raise ValueError(f"the rotation head's logits must be (4, B, 4), found {tuple(turned.shape)}")
    return turned.log_softmax(dim=2).diagonal(dim1=0, dim2=2).mean(dim=1)


def rotation(logits: Tensor, turned: Tensor) -> Tensor:
    """`rotation_loss` plus KL(uniform || class probabilities): the multi-class detector of Hendrycks et al. (2019).

    The paper's anomaly score is minus this.
    """
    from_uniform = -logits.log_softmax(dim=1).mean(dim=1) - math.log(logits.shape[1])
    return from_uniform + rotation_loss(turned)
