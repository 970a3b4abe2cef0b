"""The random numbers of a batch of images."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ssrob import seeding


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Numbers that are functions of (seed, name, severity, image number, purpose) and of nothing else."""

    seed: int
    name: str
    severity: int
    index: Tensor  # (B,) int64, the images' numbers in their data set

    def uniform(self, purpose: str, *shape: int) -> Tensor:
        """Draw U[0, 1), (B, *shape) float64; every purpose has numbers of its own."""
        return seeding.uniform(self._keys(purpose), shape).to(torch.float64)

    def normal(self, purpose: str, *shape: int) -> Tensor:
        """Draw N(0, 1), (B, *shape) float64; every purpose has numbers of its own."""
        return seeding.normal(self._keys(purpose), shape).to(torch.float64)

    def between(self, purpose: str, low: float, high: float, *shape: int) -> Tensor:
        """Draw U[low, high), (B, *shape) float64."""
        return low + (high - low) * self.uniform(purpose, *shape)

    def _keys(self, purpose: str) -> Tensor:
        return seeding.example_keys(self.index, self.seed, "corrupt", self.name, self.severity, purpose)
