"""What the evaluation attacks have in common: they ask for the loss at a point and get it.

An attack is a frozen setting (`Stepper`) that turns one batched state into the next. It never calls a model:
the sweep can share one forward pass between the attack's gradient and the success check, drop images that
are broken, and put others in their place in the middle of a run, since a row of a state stands for itself.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ssrob.attacks.lp_ball import Geometry
from ssrob.registry.lookup import load
from ssrob.registry.presets import AttackConfig

LossAt = Callable[[Tensor], Tensor]  # images (B, C, H, W) -> one value per image (B,)
State = dict[str, Tensor]  # name -> (B, ...); at least x, eps, keys, adv (the point asked for) and step


@dataclass(frozen=True)
class Stepper(ABC):
    """One attack: `begin` a batch, then `tell` it loss and gradient at `state["adv"]` `steps` times."""

    geometry: Geometry
    steps: int

    def begin(self, x: Tensor, eps: Tensor, keys: Tensor, start: Tensor | None = None) -> State:
        """Return the state before the first step; x (B, C, H, W) in [0, 1], eps (B,), keys (B,) int64.

        Starts from `start` (projected onto the budget), or else from a random point drawn from the keys.
        """
        adv = self.random_start(x, eps, keys) if start is None else self.geometry.project(x, start, eps)
        step = torch.zeros_like(keys)
        return {"x": x, "eps": eps, "keys": keys, "adv": adv, "step": step, **self.memory(adv)}

    def random_start(self, x: Tensor, eps: Tensor, keys: Tensor) -> Tensor:
        """Return a random point of the budget."""
        return self.geometry.start(x, eps, keys)

    def memory(self, adv: Tensor) -> State:
        """Return what else the attack remembers per image."""
        del adv
        return {}

    @abstractmethod
    def tell(self, state: State, loss: Tensor, gradient: Tensor) -> State:
        """Return the next state, given the loss (B,) at `state["adv"]` and its gradient (zeros if not used).

        After the last step `adv` is the point still to be judged.
        """


def build(config: AttackConfig, geometry: Geometry) -> Stepper:
    """Return the attack of a plan's row, in one geometry."""
    stepper: Stepper = load(config.row.function)(geometry, config)
    return stepper


def loss_and_gradient(loss_at: LossAt, adv: Tensor, with_gradient: bool = True) -> tuple[Tensor, Tensor]:
    """Return the loss (B,) at adv and its gradient (B, C, H, W), zeros if the loss does not depend on adv."""
    with torch.set_grad_enabled(with_gradient):
        point = adv.detach().requires_grad_(with_gradient)
        loss = loss_at(point)
        if not loss.requires_grad:
            return loss.detach(), torch.zeros_like(adv)
        (gradient,) = torch.autograd.grad(loss.sum(), point)
    return loss.detach(), gradient


def select(mask: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """Choose whole rows: yes where mask (B,) holds, else no."""
    return torch.where(mask.reshape(-1, *[1] * (yes.ndim - 1)), yes, no)


def take(state: State, rows: Tensor | slice) -> State:
    """Return the given rows of every tensor."""
    return {name: value[rows] for name, value in state.items()}


def join(states: Sequence[State]) -> State:
    """Put states below each other."""
    return {name: torch.cat([state[name] for state in states]) for name in states[0]}
