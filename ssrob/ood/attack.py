"""An l-inf attack on a score: images outside that pass for the training distribution, images inside that do not."""

from collections.abc import Callable

import torch
from torch import Tensor

from ssrob.attacks.lp_ball import GEOMETRIES
from ssrob.attacks.steppers.pgd import pgd
from ssrob.registry.attacks import STEP_RATIO


def attack_score(
    score: Callable[[Tensor], Tensor], x: Tensor, *, inside: bool, eps: float, steps: int, keys: Tensor
) -> tuple[Tensor, Tensor]:
    """Lower the score of images inside, or raise that of images outside; x (B, C, H, W) in [0, 1] -> same, scores (B,).

    PGD from a random point, drawn by the images' keys (B,) int64 of `ssrob.seeding`; eps in [0, 1] pixel units. An
    image whose score the attack only improves for the detector stays as it is. Freeze the model around the call.
    """
    aim = -1.0 if inside else 1.0
    geometry = GEOMETRIES["linf"]
    adv = pgd(
        lambda at: aim * score(at),
        x,
        geometry=geometry,
        eps=eps,
        steps=steps,
        step_size=STEP_RATIO * eps / max(steps, 1),
        start=geometry.start(x, eps, keys),
    )
    with torch.no_grad():
        attacked, clean = score(adv), score(x)
    better = aim * attacked > aim * clean
    return torch.where(better[:, None, None, None], adv, x), torch.where(better, attacked, clean)
