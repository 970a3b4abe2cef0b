"""Attacking every image at every eps without knowing the other eps, which audits a sweep; in shared batches."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssrob.attacks.engine import Block, Data
from ssrob.attacks.frozen import channels_last
from ssrob.attacks.input_checks import check_eps, find_plan, float32_below
from ssrob.attacks.lp_ball import GEOMETRIES
from ssrob.attacks.model_contract import LOOK, borrowed
from ssrob.attacks.run_order import SweepSettings
from ssrob.attacks.sweep import plan_for
from ssrob.registry.presets import AttackPlan

ROWS = 1024  # (image, eps) pairs held at once, as the images of a sweep's block


def attack_each_eps(
    model: nn.Module,
    data: Data,
    *,
    norm: str,
    eps: Sequence[float],
    preset: str | AttackPlan,
    seed: int = 0,
    batch_size: int = 256,
) -> Tensor:
    """Return which images withstand a separate attack at each eps (ascending), (E, N) bool on the CPU.

    data: images (N, C, H, W) in [0, 1], labels and example numbers (N,) int64, on the model's device. Gradients are
    in float32. The same as a sweep of each eps by itself, but for how a batch is rounded.
    """
    if not len(data[0]):
        return torch.ones((len(eps), 0), dtype=torch.bool)
    budgets = float32_below(check_eps(eps, norm))
    with borrowed(model, data[0][:LOOK]) as lent, channels_last(lent, data[0][:1]):
        plan = plan_for(find_plan(preset), lent, data[0][:1])
        settings = SweepSettings(GEOMETRIES[norm], budgets, plan.attacks, seed, batch_size, torch.float32, "ascending")
        per_block = max(1, ROWS // len(budgets))
        parts = zip(*(torch.split(part, per_block) for part in data), strict=True)
        return torch.cat([_robust(lent, settings, (x, labels, index)) for x, labels, index in parts], dim=1)


def _robust(model: nn.Module, settings: SweepSettings, data: Data) -> Tensor:
    count = len(settings.eps)
    x, labels, index = (part.repeat(count, *[1] * (part.ndim - 1)) for part in data)
    only_eps = [eps for eps in settings.eps for _ in range(len(data[0]))]
    block = Block(model, settings, (x, labels, index), only_eps)
    block.attack(lambda _: None)
    return (block.distance > torch.tensor(only_eps)).reshape(count, -1)
