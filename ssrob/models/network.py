"""Network = normalisation + backbone + named heads; its initialisation is a function of the seed and of names alone."""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ssrob.config.variants import MAIN
from ssrob.models.library_backbone import LibraryBackbone
from ssrob.models.split_batchnorm import add_branches, use_branch
from ssrob.registry.backbones import BACKBONES
from ssrob.registry.lookup import load
from ssrob.seeding import generator

CLASS_HEAD = "class"


@dataclass(frozen=True)
class Architecture:
    """What rebuilds a network: written as JSON beside its weights."""

    backbone: str
    arguments: Mapping[str, Any]
    shape: tuple[int, int, int]  # C, H, W
    mean: Sequence[float]
    std: Sequence[float]
    heads: Mapping[str, int | Sequence[int]]  # name -> outputs, or the widths of an MLP: (hidden, ..., outputs)
    classes: Sequence[str] = field(default_factory=tuple)
    branches: Sequence[str] = field(default_factory=tuple)  # of BatchNorm, beside the main one


class Network(nn.Module):
    """Images in [0, 1] to the outputs of a named head."""

    mean: Tensor
    std: Tensor

    def __init__(self, architecture: Architecture):
        super().__init__()
        row = BACKBONES[architecture.backbone]
        self.architecture = architecture
        self.backbone = load(row.function)(architecture.shape[0], **{**row.arguments, **architecture.arguments})
        features = getattr(self.backbone, "features", None)
        if not isinstance(features, int):
            raise ValueError(f"model: {architecture.backbone} must have `features`, their number; found {features}")
        self.heads = nn.ModuleDict({name: _head(features, widths) for name, widths in architecture.heads.items()})
        self.branch = MAIN
        add_branches(self, architecture.branches)
        self.register_buffer("mean", torch.empty(1, architecture.shape[0], 1, 1), persistent=False)
        self.register_buffer("std", torch.empty(1, architecture.shape[0], 1, 1), persistent=False)

    def features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> (B, D)."""
        features: Tensor = self.backbone((x - self.mean) / self.std)
        return features

    def forward(self, x: Tensor, head: str = CLASS_HEAD) -> Tensor:
        """(B, C, H, W) in [0, 1] -> (B, outputs of the head), float32 also under autocast."""
        outputs: Tensor = self.heads[head](self.features(x))
        return outputs.float()

    @contextlib.contextmanager
    def in_branch(self, branch: str) -> Iterator[None]:
        """Normalise by a branch of BatchNorm within the context; outside it, by the main one or the one chosen."""
        before = self.branch
        if branch == before:
            yield
            return
        self.choose_branch(branch)
        try:
            yield
        finally:
            self.choose_branch(before)

    def choose_branch(self, branch: str) -> None:
        """Normalise by a branch of BatchNorm from now on; raises KeyError if there is none of this name."""
        use_branch(self, branch)
        self.branch = branch


def build(architecture: Architecture, seed: int) -> Network:
    """Make a network whose every tensor depends on the seed and on the tensor's own name: heads change no backbone."""
    with torch.device("meta"):  # the constructors would draw from the global generator
        network = Network(architecture)
    network.to_empty(device="cpu")
    network.mean.copy_(torch.tensor(architecture.mean).view(1, -1, 1, 1))
    network.std.copy_(torch.tensor(architecture.std).view(1, -1, 1, 1))
    whole: tuple[str, ...] = ()  # prefixes of the names below a module that has filled all of its tensors
    with torch.no_grad():
        for name, module in network.named_modules():
            if not name.startswith(whole):
                _initialise(module, seed, name)
            if isinstance(module, LibraryBackbone):
                whole += (f"{name}.",)
    return network


def _head(features: int, widths: int | Sequence[int]) -> nn.Module:
    """Make a linear head, or an MLP with BatchNorm and ReLU after each hidden layer (the projectors of SSL tasks)."""
    if isinstance(widths, int):
        return nn.Linear(features, widths)
    *hidden, outputs = widths
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(features, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()]
        features = width
    return nn.Sequential(*layers, nn.Linear(features, outputs))


def _initialise(module: nn.Module, seed: int, name: str) -> None:
    """Draw U(-b, b), b = 1 / sqrt(fan in): PyTorch's own default, which the learning rates of published recipes expect.

    Normalised layers do not feel the scale of their weights, but the step does: weights k times as large learn k^2
    times as slowly, which a short schedule cannot make up for. A layer with a method `initialise(generator)` of its own
    is left to that.
    """
    own = getattr(module, "initialise", None)
    if callable(own):
        own(generator(seed, "init", name))
    elif isinstance(module, nn.Conv2d | nn.Linear):
        bound = 1 / math.sqrt(module.weight[0].numel())
        draw = generator(seed, "init", name)
        for tensor in module.parameters():
            nn.init.uniform_(tensor, -bound, bound, generator=draw)
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.GroupNorm | nn.LayerNorm):
        module.reset_parameters()
    elif next(module.parameters(recurse=False), None) is not None:
        kind = type(module).__name__
        raise TypeError(f"{name}: no initialisation for a {kind}; give it a method initialise(generator)")
