"""A second look at what an attack claims to have found."""

import torch
from torch import Tensor, nn

from ssrob.attacks.lp_ball import Geometry

Found = tuple[Tensor, Tensor, Tensor, Tensor]  # images, what was found, labels, distances (0: misclassified, inf: none)


@torch.no_grad()
def confirmed(model: nn.Module, geometry: Geometry, found: Found, batch_size: int) -> Tensor:
    """Return, (N,) bool, whether each perturbation has its distance, lies in the box and fools a float32 forward.

    Holds for every image of which nothing was found. The batches are others than those that the attack judged in.
    """
    x, adversarial, labels, distance = found
    agreed = torch.ones_like(labels, dtype=torch.bool)
    rows = ((distance > 0) & distance.isfinite()).nonzero().squeeze(1)
    for part in torch.split(rows, batch_size) if len(rows) else ():
        adv = adversarial[part]
        with torch.autocast(adv.device.type, enabled=False):
            fooled = model(adv).argmax(1) != labels[part]
        agreed[part] = fooled & geometry.contains(x[part], adv, distance[part])
    return agreed
