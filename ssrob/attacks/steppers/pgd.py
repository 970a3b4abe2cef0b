"""Projected gradient ascent, as a plain loop for training and as a `Stepper` for evaluation."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ssrob.attacks.base import State, Stepper
from ssrob.attacks.lp_ball import Amount, Geometry
from ssrob.registry.attacks import STEP_RATIO
from ssrob.registry.presets import AttackConfig


def pgd(
    loss_at: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    geometry: Geometry,
    eps: Amount,
    steps: int,
    step_size: Amount,
    generator: torch.Generator | None = None,
    start: Tensor | None = None,
) -> Tensor:
    """Maximise loss_at: (B, C, H, W) -> (B,) inside the budget; x (B, C, H, W) in [0, 1] -> same.

    eps and step_size are in [0, 1] pixel units, floats or one value per image (B,). Starts at `start`, at a
    random point when given a generator, else at x. Freeze the model's parameters around the call (`frozen`).
    Madry et al. 2018.
    """
    if generator is not None and start is not None:
        raise ValueError("pgd starts at a random point or at `start`: give a generator or a start, not both")
    x = x.detach()
    adv = geometry.start(x, eps, generator) if generator is not None else x if start is None else start
    adv = geometry.project(x, adv.detach(), eps)
    for _ in range(steps):
        with torch.enable_grad():
            adv.requires_grad_()
            (gradient,) = torch.autograd.grad(loss_at(adv).sum(), adv)
        adv = geometry.project(x, geometry.step(adv.detach(), gradient, step_size), eps)
    return adv


@dataclass(frozen=True)
class PGD(Stepper):
    """PGD of constant step size step_ratio * eps / steps. Madry et al. 2018."""

    step_ratio: float = 2.5

    def tell(self, state: State, loss: Tensor, gradient: Tensor) -> State:
        """Take one projected step."""
        size = self.step_ratio / self.steps * state["eps"]
        moved = self.geometry.step(state["adv"], gradient, size)
        adv = self.geometry.project(state["x"], moved, state["eps"])
        return {**state, "adv": adv, "step": state["step"] + 1}


def stepper(geometry: Geometry, config: AttackConfig) -> PGD:
    """Make the attack of a plan's row."""
    return PGD(geometry, config.steps, step_ratio=config.step_ratio or STEP_RATIO)
