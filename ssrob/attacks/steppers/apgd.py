"""Auto-PGD: gradient ascent with momentum that halves its own step size. Croce & Hein 2020, alg. 1."""

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from ssrob.attacks.base import State, Stepper, select
from ssrob.attacks.lp_ball import Geometry
from ssrob.registry.presets import AttackConfig

RHO = 0.75  # share of steps since the last checkpoint that must have raised the loss
MOMENTUM = 0.75  # weight of the gradient step; the rest continues the previous move


def checkpoints(steps: int) -> list[int]:
    """Return the steps at which the step size is reviewed; periods shrink from 0.22 to 0.06 of the run."""
    shares = [0.0, 0.22]
    while shares[-1] < 1.0:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    places = (max(1, math.ceil(share * steps - 1e-9)) for share in shares[1:])
    return sorted({place for place in places if place <= steps})


@cache
def _periods(steps: int, device: torch.device) -> Tensor:
    """At a checkpoint the number of steps since the last one, else 0; (steps + 1,), for steps 0..steps."""
    places = checkpoints(steps)
    periods = torch.zeros(steps + 1)
    periods[places] = torch.tensor([0, *places], dtype=torch.float32).diff()
    return periods.to(device)


@dataclass(frozen=True)
class APGD(Stepper):
    """APGD on any loss; the step starts at 2 eps and is halved when the loss stops rising."""

    def memory(self, adv: Tensor) -> State:
        """Remember the best point with its gradient and loss, the last point, and how the loss went."""
        loss = adv.new_full((len(adv),), -torch.inf)
        return {
            "size": torch.full_like(loss, 2.0),  # in units of eps
            "previous": adv,
            "best": adv,
            "best_gradient": torch.zeros_like(adv),
            "best_loss": loss,
            "last_loss": -loss,  # so that the first loss is no rise
            "rises": torch.zeros_like(loss),
            "reviewed_best": loss,
            "halved": torch.ones_like(loss, dtype=torch.bool),
        }

    def tell(self, state: State, loss: Tensor, gradient: Tensor) -> State:
        """Review the step size if it is time, then move by gradient and momentum."""
        state = self._note(state, loss, gradient)
        halve = self._halve(state)
        state = self._after_review(state, halve)
        gradient = select(halve, state["best_gradient"], gradient)
        x, eps, adv, geometry = state["x"], state["eps"], state["adv"], self.geometry
        target = geometry.project(x, geometry.step(adv, gradient, state["size"] * eps), eps)
        mixed = adv + MOMENTUM * (target - adv) + (1 - MOMENTUM) * (adv - state["previous"])
        moved = select(state["step"] == 0, target, geometry.project(x, mixed, eps))
        return {**state, "adv": moved, "previous": adv, "step": state["step"] + 1}

    def _note(self, state: State, loss: Tensor, gradient: Tensor) -> State:
        better = loss > state["best_loss"]
        return {
            **state,
            "best": select(better, state["adv"], state["best"]),
            "best_gradient": select(better, gradient, state["best_gradient"]),
            "best_loss": torch.where(better, loss, state["best_loss"]),
            "last_loss": loss,
            "rises": state["rises"] + (loss > state["last_loss"]),
        }

    def _halve(self, state: State) -> Tensor:
        """At a checkpoint: whether the loss rose too rarely, or reached nothing new with an unchanged step."""
        stuck = ~state["halved"] & (state["best_loss"] <= state["reviewed_best"])
        period = self._period(state)
        return (period > 0) & ((state["rises"] <= RHO * period) | stuck)

    def _after_review(self, state: State, halve: Tensor) -> State:
        """Halve the step and go back to the best point; at every checkpoint, start counting again."""
        review = self._period(state) > 0
        return {
            **state,
            "size": torch.where(halve, state["size"] / 2, state["size"]),
            "adv": select(halve, state["best"], state["adv"]),
            "rises": torch.where(review, 0.0, state["rises"]),
            "reviewed_best": torch.where(review, state["best_loss"], state["reviewed_best"]),
            "halved": torch.where(review, halve, state["halved"]),
        }

    def _period(self, state: State) -> Tensor:
        return _periods(self.steps, state["step"].device)[state["step"]]


def stepper(geometry: Geometry, config: AttackConfig) -> APGD:
    """Make the attack of a plan's row."""
    return APGD(geometry, config.steps)
