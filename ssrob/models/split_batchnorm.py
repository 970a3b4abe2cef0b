"""Branches of BatchNorm: statistics and affine parameters of its own for each kind of images (Xie et al. 2020)."""

import copy
import re
from collections.abc import Collection
from typing import Any

from torch import Tensor, nn

from ssrob.config.variants import MAIN

_BRANCH = re.compile(r"\.branches\.([^.]+)(?=\.[^.]+$)")  # in the name of a BatchNorm tensor


class _Branched:
    """A BatchNorm layer that is its own main branch and holds others; `active` names the one in use."""

    branches: nn.ModuleDict
    active: str = MAIN

    def forward(self, x: Tensor) -> Tensor:
        layer: Any = super() if self.active == MAIN else self.branches[self.active]
        normed: Tensor = layer.forward(x)
        return normed


def add_branches(network: nn.Module, names: Collection[str]) -> None:
    """Give every BatchNorm layer below the network branches of these names, beside the main one.

    The main branch keeps the names of its tensors, so that weights with and without branches fit each other. Layers of
    a library's own class, such as BatchNorm with an activation, stay what they are. Raises ValueError if there is none.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)]
    if names and not layers:
        raise ValueError(f"batchnorm: the network has no BatchNorm that could have branches, found {', '.join(names)}")
    for layer in layers if names else []:
        branches = {branch: copy.deepcopy(layer) for branch in names}
        kind: Any = type(layer)
        layer.__class__ = type(f"Branched{kind.__name__}", (_Branched, kind), {})
        layer.branches = nn.ModuleDict(branches)


def main_name(name: str) -> str:
    """Return the name that a tensor has in the main branch."""
    return _BRANCH.sub("", name)


def use_branch(network: nn.Module, branch: str) -> None:
    """Let every layer normalise by a branch; raises KeyError if there is none of this name."""
    for layer in network.modules():
        if isinstance(layer, _Branched):
            if branch != MAIN and branch not in layer.branches:
                raise KeyError(f"no branch {branch!r} of BatchNorm; there are {', '.join([MAIN, *layer.branches])}")
            layer.active = branch
