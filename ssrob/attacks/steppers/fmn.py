"""Fast minimum-norm attack: the nearest misclassified point. Pintor et al. 2021, alg. 1."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ssrob.attacks.base import State, Stepper, select
from ssrob.attacks.lp_ball import L2, Geometry
from ssrob.registry.presets import AttackConfig

STEP = (1.0, 0.01)  # l2 length of a step, first and last
RATE = (0.05, 0.001)  # relative change of the radius, first and last


@dataclass(frozen=True)
class FMN(Stepper):
    """Maximise inside a ball whose radius grows while the point is classified right and shrinks when it is not.

    The loss must be positive exactly when the point is misclassified (`margin`). The budget is not used: give
    an infinite one.
    """

    def memory(self, adv: Tensor) -> State:
        """Remember the nearest misclassified point and the radius."""
        infinite = adv.new_full((len(adv),), torch.inf)
        return {"radius": infinite, "best": adv, "best_norm": infinite}

    def random_start(self, x: Tensor, eps: Tensor, keys: Tensor) -> Tensor:
        """Start at x: the search goes outwards."""
        del eps, keys
        return x

    def tell(self, state: State, loss: Tensor, gradient: Tensor) -> State:
        """Adapt the radius, take a step and project; after the last step return to the nearest point."""
        x, adv, step = state["x"], state["adv"], state["step"]
        size, rate = (self._decayed(step, *ends) for ends in (STEP, RATE))
        norm = self.geometry.norm(adv - x)
        state = self._note(state, norm, loss)
        boundary = norm + loss.abs() / self.geometry.dual_norm(gradient).clamp_min(1e-12)
        radius = self._radius(state, boundary, loss, rate)
        ahead = L2().step(adv, gradient, size)  # of l2 length also where the ball is another one
        ahead = self.geometry.project(x, ahead, radius)
        ahead = select(step + 1 >= self.steps, state["best"], ahead)
        return {**state, "adv": ahead, "radius": radius, "step": step + 1}

    def _note(self, state: State, norm: Tensor, loss: Tensor) -> State:
        nearer = (loss > 0) & (norm < state["best_norm"])
        return {
            **state,
            "best": select(nearer, state["adv"], state["best"]),
            "best_norm": torch.where(nearer, norm, state["best_norm"]),
        }

    def _radius(self, state: State, boundary: Tensor, loss: Tensor, rate: Tensor) -> Tensor:
        """Until a point is found, where the linearised loss has its boundary; then a search around it."""
        # Unlike the paper, we go a little beyond the boundary: on it, rounding can keep the loss below 0 for ever.
        edge = torch.where(state["best_norm"].isinf(), boundary, state["radius"])
        outside = edge * (1 + rate)
        inside = torch.minimum(state["radius"] * (1 - rate), state["best_norm"])
        return torch.where(loss > 0, inside, outside)

    def _decayed(self, step: Tensor, first: float, last: float) -> Tensor:
        """Cosine decay from first to last over the run, (B,)."""
        return last + (first - last) * (1 + torch.cos(math.pi * step.float() / self.steps)) / 2


def stepper(geometry: Geometry, config: AttackConfig) -> FMN:
    """Make the attack of a plan's row."""
    return FMN(geometry, config.steps)
