"""Somebody else's model: made by its factory, with its weights, behind the preprocessing that it expects."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssrob.models.serialization import read_weights

IMAGENET = "0.485,0.456,0.406;0.229,0.224,0.225"  # torchvision's and most of timm's
_PREFIXES = ("module.", "_orig_mod.")


class Normalised(nn.Module):
    """A model that expects (x - mean) / std, made to take images x (B, C, H, W) in [0, 1]."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, mean: list[float], std: list[float]):
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> (B, K)."""
        logits: Tensor = self.model((x - self.mean) / self.std)
        return logits


def load_model(where: str, weights: Path | None = None, arguments: Mapping[str, Any] | None = None) -> nn.Module:
    """Call the factory behind ``package.module:factory`` and load a state dict; returns the model in eval mode."""
    module, colon, name = where.partition(":")
    if not (module and colon and name):
        raise ValueError(f"--model: expected package.module:factory, found {where!r}")
    try:
        factory = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise ValueError(f"--model {where}: cannot import {module!r}: {error}") from None
    except AttributeError:
        raise ValueError(f"--model {where}: {module!r} has no {name!r}") from None
    if isinstance(factory, nn.Module) or not callable(factory):
        raise ValueError(f"--model {where}: expected a function that returns a model, found {type(factory).__name__}")
    try:
        model = factory(**(arguments or {}))
    except TypeError as error:
        raise ValueError(f"--model {where}: {error}") from None
    if not isinstance(model, nn.Module):
        raise ValueError(f"--model {where}: expected a torch.nn.Module, found {type(model).__name__}")
    if weights is not None:
        _load_weights(model, weights)
    return model.eval()


def preprocessed(model: nn.Module, preprocess: str, channels: int) -> nn.Module:
    """Put preprocessing before a model: "none", "imagenet" or "MEAN;STD", a number per channel in either."""
    if preprocess == "none":
        return model
    text = IMAGENET if preprocess == "imagenet" else preprocess
    try:
        mean, std = ([float(value) for value in part.split(",")] for part in text.split(";"))
    except ValueError:
        allowed = "none, imagenet or MEAN;STD such as 0.5,0.5,0.5;0.25,0.25,0.25"
        raise ValueError(f"--preprocess: expected {allowed}, found {preprocess!r}") from None
    if not len(mean) == len(std) == channels or min(std) <= 0:
        found = f"{len(mean)} and {len(std)}, the smallest std {min(std):g}"
        raise ValueError(f"--preprocess: expected {channels} means and stds > 0 (channels of the data), found {found}")
    return Normalised(model, mean, std).eval()


def _load_weights(model: nn.Module, file: Path) -> None:
    """Load every tensor of the model, or say what does not fit: half-loaded weights are no model."""
    weights = {_plain(name): value for name, value in read_weights(file).items()}
    expected = model.state_dict()
    missing, unexpected = sorted(expected.keys() - weights.keys()), sorted(weights.keys() - expected.keys())
    if missing or unexpected:
        lists = " and ".join(
            f"{len(names)} {what} (such as {names[0]!r})"
            for what, names in (("missing", missing), ("not in the model", unexpected))
            if names
        )
        raise ValueError(f"{file}: does not fit the model: {lists} of {len(expected)} tensors")
    for name, value in weights.items():
        if value.shape != expected[name].shape:
            shapes = f"expected shape {tuple(expected[name].shape)}, found {tuple(value.shape)}"
            raise ValueError(f"{file}: does not fit the model: {name}: {shapes}")
    model.load_state_dict(weights)


def _plain(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name
