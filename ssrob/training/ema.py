"""An average of the weights over training, which is validated and saved in their place."""

import copy

import torch
from torch import Tensor

from ssrob.models.network import Network


class WeightAverage:
    """Exponential moving average of a network's parameters and BatchNorm statistics (Polyak and Juditsky 1992).

    After update t = 0, 1, ...: average = d average + (1 - d) network, with d = min(decay, (1 + t) / (10 + t)), so that
    a short training is no average with its random start. Running means and variances are averaged like the weights;
    counts of batches are the network's.
    """

    def __init__(self, network: Network, decay: float):
        self.network = copy.deepcopy(network).requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, network: Network, t: int) -> None:
        """Take in the network after its optimiser step t (0-based)."""
        pairs = zip(self.network.state_dict().values(), network.state_dict().values(), strict=True)
        averaged: list[Tensor] = []
        current: list[Tensor] = []
        for mine, theirs in pairs:
            if mine.is_floating_point():
                averaged.append(mine)
                current.append(theirs)
            else:
                mine.copy_(theirs)
        torch._foreach_lerp_(averaged, current, 1 - min(self._decay, (1 + t) / (10 + t)))
