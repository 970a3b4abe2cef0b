"""What an evaluation attack maximises: functions of logits (B, K) and labels (B,) int64, one value per image.

The value grows as the image comes nearer to being misclassified. Targeted functions also take the class to
reach, (B,) int64.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the negative log-likelihood of the label, (B,)."""
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the best other logit minus the label's, (B,). Carlini & Wagner 2017, f6 negated."""
    label_logit = _pick(logits, labels)
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.amax(1) - label_logit


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the difference of logits ratio, (B,), K >= 3. Croce & Hein 2020, eq. 6.

    The margin over the distance of the first to the third logit: unlike cross-entropy, it does not depend
    on the scale of the logits.
    """
    top = logits.topk(3, dim=1).values
    return margin(logits, labels) / (top[:, 0] - top[:, 2] + 1e-12)


def targeted_margin(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Return the target's logit minus the label's, (B,)."""
    return _pick(logits, targets) - _pick(logits, labels)


def targeted_dlr(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Return the targeted difference of logits ratio, (B,), K >= 4. Croce & Hein 2020, eq. 7."""
    top = logits.topk(4, dim=1).values
    spread = top[:, 0] - (top[:, 2] + top[:, 3]) / 2
    return targeted_margin(logits, labels, targets) / (spread + 1e-12)


UNTARGETED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": cross_entropy,
    "margin": margin,
    "dlr": dlr,
}
TARGETED: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "targeted_margin": targeted_margin,
    "targeted_dlr": targeted_dlr,
}


def _pick(logits: Tensor, classes: Tensor) -> Tensor:
    return logits.gather(1, classes[:, None]).squeeze(1)
