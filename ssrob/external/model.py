"""Somebody else's model: made by its factory, with its weights, behind the preprocessing that it expects."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssrob.attacks.model_contract import evaluation_mode
from ssrob.external.factory import make_model
from ssrob.external.zoos import Asked
from ssrob.models.weights import match_weights, read_weights
from ssrob.registry.lookup import check_choice
from ssrob.registry.preprocessing import PREPROCESSING


class Normalised(nn.Module):
    """A model that expects (x - mean) / std, made to take images x (B, C, H, W) in [0, 1]."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, mean: list[float], std: list[float]):
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))
        self._dtype = next((each.dtype for each in model.parameters() if each.is_floating_point()), None)

    def forward(self, x: Tensor) -> Any:
        """(B, C, H, W) float32 in [0, 1] -> what the model returns for them, normalised, in its precision."""
        normalised = (x - self.mean) / self.std
        return self.model(normalised if self._dtype is None else normalised.to(self._dtype))


def load_model(
    where: str,
    weights: Path | None = None,
    arguments: Mapping[str, Any] | None = None,
    *,
    prefix: str | None = None,
    asked: Asked | None = None,
) -> tuple[nn.Module, list[str]]:
    """Make the model of ``package.module:factory`` or ``timm:NAME`` and load a state dict; returns it in eval mode.

    Returns also what of the weights was matched and what was not; `prefix` is taken off the names in the file. `asked`
    is what a zoo may need to know of the evaluation.
    """
    model = make_model(where, arguments or {}, asked)
    notes = [] if weights is None else _load_weights(model, weights, prefix)
    return evaluation_mode(model), notes


def preprocessed(model: nn.Module, preprocess: str, channels: int) -> nn.Module:
    """Put preprocessing before a model: a name of `PREPROCESSING`, or "MEAN;STD" with a number per channel each."""
    if preprocess == "none":
        return model
    mean, std = normalisation(preprocess, channels)
    if not len(mean) == len(std) == channels or min(std) <= 0:
        found = f"{len(mean)} and {len(std)}, the smallest std {min(std):g}"
        raise ValueError(f"--preprocess: expected {channels} means and stds > 0 (channels of the data), found {found}")
    return evaluation_mode(Normalised(model, mean, std))


def normalisation(preprocess: str, channels: int) -> tuple[list[float], list[float]]:
    """Return mean and std per channel of a name of `PREPROCESSING` but "none", or of "MEAN;STD"."""
    if known := PREPROCESSING.get(preprocess):
        times = channels if len(known.mean) == 1 else 1
        return [*known.mean] * times, [*known.std] * times
    if ";" not in preprocess:
        check_choice("--preprocess", preprocess, [*PREPROCESSING, "MEAN;STD"])
    try:
        mean, std = ([float(value) for value in part.split(",")] for part in preprocess.split(";"))
    except ValueError:
        example = "numbers such as 0.5,0.5,0.5;0.25,0.25,0.25"
        raise ValueError(f"--preprocess: expected {example}, found {preprocess!r}") from None
    return mean, std


def _load_weights(model: nn.Module, file: Path, prefix: str | None) -> list[str]:
    """Load every tensor of the model, or say what does not fit: half-loaded weights are no model."""
    tensors = read_weights(file)
    try:
        match = match_weights(model.state_dict(), tensors, prefix)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    model.load_state_dict(match.tensors, strict=False)  # what is absent are counters
    return match.notes
