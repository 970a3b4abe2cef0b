"""In which order an image is attacked."""

from dataclasses import dataclass
from math import inf

import torch

from ssrob import seeding
from ssrob.attacks.lp_ball import Geometry
from ssrob.registry.presets import AttackConfig


@dataclass(frozen=True)
class Setting:
    """What a sweep does to every block."""

    geometry: Geometry
    eps: tuple[float, ...]  # ascending, each exactly a float32
    attacks: tuple[AttackConfig, ...]
    seed: int
    batch_size: int
    gradients_in: torch.dtype


@dataclass(frozen=True)
class Run:
    """One run of one attack: at eps, inside a ball of radius `budget` (infinite if it minimises the norm)."""

    attack: int
    eps: float
    budget: float
    restart: int
    code: int  # folded into the random draws


def schedule(setting: Setting) -> list[Run]:
    """Return the runs of one image: norm-minimising attacks once, then all others at each eps > 0."""
    budgets = [eps for eps in setting.eps if eps > 0]
    once = [number for number, attack in enumerate(setting.attacks) if attack.row.minimises_norm]
    plan = [(number, eps, inf) for eps in budgets[:1] for number in once]
    plan += [(n, eps, eps) for eps in budgets for n in range(len(setting.attacks)) if n not in once]
    return [
        Run(number, eps, budget, restart, seeding.fold_in(0, setting.attacks[number].name, budget, restart))
        for number, eps, budget in plan
        for restart in range(setting.attacks[number].restarts)
    ]
