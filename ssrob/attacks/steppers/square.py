"""Square attack: random search over square patches, without gradients. Andriushchenko et al. 2020."""

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor

from ssrob import seeding
from ssrob.attacks.base import State, Stepper, select
from ssrob.attacks.lp_ball import Geometry, per_image
from ssrob.registry.presets import AttackConfig

SHARE = 0.8  # share of the pixels that the first square covers
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of that share, after so many of 10000 queries


@dataclass(frozen=True)
class Square(Stepper):
    """Repaint a random square of the best perturbation and keep it if the loss rises; one query per step."""

    smallest: ClassVar[int] = 1  # side of a square; all sides are the smallest plus a multiple of `stride`
    stride: ClassVar[int] = 1

    def memory(self, adv: Tensor) -> State:
        """Remember the best point and its loss."""
        return {"best": adv, "best_loss": adv.new_full((len(adv),), -torch.inf)}

    def tell(self, state: State, loss: Tensor, gradient: Tensor) -> State:
        """Keep the point asked for if it is better, and propose the next."""
        del gradient
        better = loss > state["best_loss"]
        best = select(better, state["adv"], state["best"])
        best_loss = torch.where(better, loss, state["best_loss"])
        step = state["step"] + 1
        table = _sides(self, best.shape[2], best.shape[3], best.device)
        keys = seeding.example_keys(state["keys"] + step, 0, "square")
        adv = self.propose(state["x"], best, state["eps"], table[step], keys)
        return {**state, "adv": adv, "best": best, "best_loss": best_loss, "step": step}

    @abstractmethod
    def propose(self, x: Tensor, best: Tensor, eps: Tensor, side: Tensor, keys: Tensor) -> Tensor:
        """Return best with one square of the given side (B,) int64 changed at random, (B, C, H, W)."""


@dataclass(frozen=True)
class LinfSquare(Square):
    """Squares of +-eps. Alg. 2 of the paper."""

    def random_start(self, x: Tensor, eps: Tensor, keys: Tensor) -> Tensor:
        """Return vertical stripes of +-eps."""
        _, channels, _, width = x.shape
        stripes = _signs(seeding.uniform(keys, (channels, 1, width)))
        return self.geometry.project(x, x + per_image(eps, x) * stripes, eps)

    def propose(self, x: Tensor, best: Tensor, eps: Tensor, side: Tensor, keys: Tensor) -> Tensor:
        """Add +-2 eps, one sign per channel: the projection leaves +-eps in the square."""
        draws = seeding.uniform(keys, (2 + x.shape[1],))
        window = _window(x, side, draws[:, :2])
        change = 2 * per_image(eps, x) * _signs(draws[:, 2:, None, None])
        return self.geometry.project(x, best + window * change, eps)


@dataclass(frozen=True)
class L2Square(Square):
    """Move the budget of one square into a bump in another. Alg. 3 of the paper."""

    smallest: ClassVar[int] = 3
    stride: ClassVar[int] = 2

    def random_start(self, x: Tensor, eps: Tensor, keys: Tensor) -> Tensor:
        """Return a grid of about 5 x 5 bumps of random sign."""
        _, channels, height, width = x.shape
        size = max(1, min(height, width) // 5)
        rows, columns = -(-height // size), -(-width // size)
        signs = _signs(seeding.uniform(keys, (channels, rows, columns)))
        tiles = torch.kron(signs, _bump(size).to(x.device))
        return self._fill(x, tiles[:, :, :height, :width], eps)

    def propose(self, x: Tensor, best: Tensor, eps: Tensor, side: Tensor, keys: Tensor) -> Tensor:
        """Empty one square; add a bump to another, with the budget of both and what is left over."""
        draws = seeding.uniform(keys, (5 + x.shape[1],))
        target, source = (_window(x, side, corner) for corner in (draws[:, 0:2], draws[:, 2:4]))
        delta = best - x
        bump = _placed_bump(x, side, draws[:, 0:2], draws[:, 4] < 0.5) * _signs(draws[:, 5:, None, None])
        old = delta * target
        shape = bump + old / _channel_norm(old)
        unused = (eps.square() - self.geometry.norm(delta).square()).clamp_min(0) / x.shape[1]
        budget = (per_image(unused, x) + _channel_norm(delta * (target | source)).square()).sqrt()
        moved = torch.where(source, 0.0, delta)
        return self._fill(x, torch.where(target, shape / _channel_norm(shape) * budget, moved), eps)

    def _fill(self, x: Tensor, delta: Tensor, eps: Tensor) -> Tensor:
        """Stretch to the whole budget, then clamp to the box."""
        length = self.geometry.norm(delta).clamp_min(1e-12)
        return self.geometry.project(x, x + per_image(eps / length, x) * delta, eps)


@cache
def _sides(square: Square, height: int, width: int, device: torch.device) -> Tensor:
    """Return the side of the square proposed at each step, (steps + 1,) int64."""
    largest, sides = min(height, width), []
    for step in range(square.steps + 1):
        share = SHARE / 2 ** sum(step / square.steps * 10_000 > place for place in HALVINGS)
        side = round(math.sqrt(share * height * width))
        side += (side - square.smallest) % square.stride
        largest_allowed = largest - (largest - square.smallest) % square.stride
        sides.append(min(max(side, square.smallest), largest_allowed))
    return torch.tensor(sides, device=device)


def _corner(x: Tensor, side: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Turn two draws of U[0, 1) (B, 2) into the top and left of a square inside the image, (B,) int64 each."""
    room = torch.stack([x.shape[2] - side + 1, x.shape[3] - side + 1], dim=1)
    top, left = (draws * room).long().unbind(1)
    return top, left


def _window(x: Tensor, side: Tensor, draws: Tensor) -> Tensor:
    """Return the pixels of a randomly placed square, (B, 1, H, W) bool."""
    inside = []
    for first, length in zip(_corner(x, side, draws), x.shape[2:], strict=True):
        place = torch.arange(length, device=x.device)[None] - first[:, None]
        inside.append((place >= 0) & (place < side[:, None]))
    return (inside[0][:, :, None] & inside[1][:, None, :])[:, None]


def _placed_bump(x: Tensor, side: Tensor, draws: Tensor, turned: Tensor) -> Tensor:
    """Return a bump in the square that `_window` places with the same draws, 0 outside it, (B, 1, H, W)."""
    table = _bumps(min(x.shape[2:]), x.device)
    top, left = _corner(x, side, draws)
    row = (torch.arange(x.shape[2], device=x.device)[None] - top[:, None]).clamp(0, table.shape[1] - 1)
    column = (torch.arange(x.shape[3], device=x.device)[None] - left[:, None]).clamp(0, table.shape[1] - 1)
    upright = table[side[:, None, None], row[:, :, None], column[:, None, :]]
    across = table[side[:, None, None], column[:, None, :], row[:, :, None]]
    return (select(turned, across, upright))[:, None] * _window(x, side, draws)


@cache
def _bumps(largest: int, device: torch.device) -> Tensor:
    """Return the bump of every side up to the largest, (largest + 1, largest, largest), padded with zeros."""
    table = torch.zeros(largest + 1, largest, largest)
    for side in range(1, largest + 1):
        table[side, :side, :side] = _bump(side)
    return table.to(device)


def _bump(side: int) -> Tensor:
    """Return a pyramid upwards beside one downwards, of length 1, (side, side). Section 3.3 of the paper."""
    upper = side // 2
    both = torch.cat([_pyramid(upper, side), -_pyramid(side - upper, side)])
    return both / both.square().sum().sqrt()


def _pyramid(height: int, width: int) -> Tensor:
    """Return the sum over d' >= d of 1 / (d' + 1)^2, d being the Chebyshev distance from the centre."""
    rows = (torch.arange(height) - height // 2).abs()
    columns = (torch.arange(width) - width // 2).abs()
    rings = max(height // 2, width // 2) + 1
    heights: Tensor = torch.arange(1, rings + 1).float().pow(-2).flip(0).cumsum(0).flip(0)
    return heights[torch.maximum(rows[:, None], columns[None, :])]


def _channel_norm(delta: Tensor) -> Tensor:
    """Return the l2 norm of each channel, (B, C, 1, 1), not quite 0 so that one can divide by it."""
    return delta.square().sum((2, 3), keepdim=True).sqrt() + 1e-12


def _signs(draws: Tensor) -> Tensor:
    """Turn U[0, 1) into -1 and 1."""
    return (draws < 0.5).float() * 2 - 1


def stepper(geometry: Geometry, config: AttackConfig) -> Square:
    """Make the attack of a plan's row."""
    squares = {"linf": LinfSquare, "l2": L2Square}
    return squares[geometry.name](geometry, config.steps)
