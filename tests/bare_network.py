"""A plugin of the tests: a network without BatchNorm, in which images of a batch do not touch one another."""

import torch.nn.functional as F
from ssrob.registry.backbones import BACKBONES, Backbone
from torch import Tensor, nn


class Bare(nn.Module):
    """One smooth convolution and average pooling."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3, padding=1)
        self.features = width * 16

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W), normalised -> (B, 16 width)."""
        return F.adaptive_avg_pool2d(F.softplus(self.conv(x)), 4).flatten(1)


def bare(channels: int, *, width: int) -> Bare:
    """Make the network."""
    return Bare(channels, width)


BACKBONES["bare"] = Backbone("tests.bare_network:bare", {"width": 8})
