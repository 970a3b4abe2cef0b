"""Branches of BatchNorm: statistics and affine parameters of its own for each kind of images (Xie et al. 2020)."""

from collections.abc import Collection
from typing import Any

from torch import Tensor, nn

from ssrob.config.variants import MAIN


class _Branched:
    """A BatchNorm layer that is its own main branch and holds others; `active` names the one in use."""

    branches: nn.ModuleDict
    active: str = MAIN

    def forward(self, x: Tensor) -> Tensor:
        layer: Any = super() if self.active == MAIN else self.branches[self.active]
        normed: Tensor = layer.forward(x)
        return normed


class BranchedNorm1d(_Branched, nn.BatchNorm1d):
    """BatchNorm of features (B, D) in branches."""


class BranchedNorm2d(_Branched, nn.BatchNorm2d):
    """BatchNorm of feature maps (B, C, H, W) in branches."""


def add_branches(network: nn.Module, names: Collection[str]) -> None:
    """Give every BatchNorm layer below the network branches of these names, beside the main one.

    The main branch keeps the names of its tensors, so that weights with and without branches fit each other.
    """
    kinds: dict[Any, Any] = {nn.BatchNorm1d: BranchedNorm1d, nn.BatchNorm2d: BranchedNorm2d}
    for parent in list(network.modules()) if names else []:
        for child, layer in list(parent.named_children()):
            kind: Any = type(layer)
            if kind in kinds:
                settings = {name: getattr(layer, name) for name in ("num_features", "eps", "momentum")}
                branched = kinds[kind](**settings)
                branched.branches = nn.ModuleDict({branch: kind(**settings) for branch in names})
                setattr(parent, child, branched)


def use_branch(network: nn.Module, branch: str) -> None:
    """Let every layer normalise by a branch; raises KeyError if there is none of this name."""
    for layer in network.modules():
        if isinstance(layer, _Branched):
            if branch != MAIN and branch not in layer.branches:
                raise KeyError(f"no branch {branch!r} of BatchNorm; there are {', '.join([MAIN, *layer.branches])}")
            layer.active = branch
