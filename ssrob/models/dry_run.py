"""A look at a network before anything trains: whether it can be made, takes the images, and fits its weights."""

import functools
import json
from pathlib import Path

import torch

from ssrob.formatting import one_line
from ssrob.models.network import CLASS_HEAD, Architecture, Network, build
from ssrob.models.serialization import load_backbone
from ssrob.models.split_batchnorm import main_name
from ssrob.models.weights import COUNTER, read_weights

GREY = 0.5
UNKNOWN = (3, 32, 32)  # stands for images whose shape is not known yet


def look(
    backbone: str,
    arguments: str,
    shape: tuple[int, int, int] | None,
    *,
    pretrained: tuple[int, int, int] | None = None,
    branches: tuple[str, ...] = (),
    weights: tuple[Path, ...] = (),
) -> None:
    """Make a network for images of a shape (C, H, W), and let two of them through it; not where it is not known yet.

    arguments: as JSON. pretrained: the shape of images that are trained on before, if it is another one. Files of
    weights are read and must fit. Raises ValueError with what does not.
    """
    network = _build_network(backbone, arguments, shape or UNKNOWN, branches)
    if shape is not None:
        check_features(network)
    if pretrained not in (None, shape):
        check_features(_build_network(backbone, arguments, pretrained, ()))
    for file in weights:
        try:
            load_backbone(network, read_weights(file))
        except ValueError as error:
            raise ValueError(f"{error}" if str(file) in str(error) else f"{file}: {error}") from None


def check_features(network: Network) -> None:
    """Give a network two grey images in training mode; raises ValueError unless it returns features (2, D)."""
    name, (_, height, width) = network.architecture.backbone, network.architecture.shape
    expected = (2, network.backbone.features)
    try:
        with torch.no_grad():
            features = network.train().features(torch.full((2, *network.architecture.shape), GREY))
    except (AssertionError, RuntimeError, ValueError, IndexError, TypeError) as error:
        size = f"{height} x {width} pixels"
        raise ValueError(f"model: {name} does not take images of {size}: {one_line(error)}") from error
    if not isinstance(features, torch.Tensor) or features.shape != expected:
        shape = getattr(features, "shape", None)
        what = f"a {type(features).__name__}" if shape is None else f"shape {tuple(shape)}"
        raise ValueError(
            f"model: {name} has no features for heads: expected a tensor of shape {expected}, found {what}"
        )


@functools.cache
def size(backbone: str, arguments: str, channels: int) -> tuple[int, int]:
    """Return how many numbers a backbone's weights file holds, counters left out, and its features."""
    backbone_ = _build_network(backbone, arguments, (channels, *UNKNOWN[1:]), ()).backbone
    state = {name: value for name, value in backbone_.state_dict().items() if not name.endswith(COUNTER)}
    return sum(value.numel() for name, value in state.items() if main_name(name) == name), backbone_.features


def _build_network(backbone: str, arguments: str, shape: tuple[int, int, int], branches: tuple[str, ...]) -> Network:
    mean, std = [0.5] * shape[0], [0.25] * shape[0]
    architecture = Architecture(backbone, json.loads(arguments), shape, mean, std, {CLASS_HEAD: 2}, branches=branches)
    try:
        return build(architecture, seed=0)
    except (AttributeError, TypeError) as error:  # of a plugin
        raise ValueError(f"model: {backbone} cannot be made: {error}") from error
