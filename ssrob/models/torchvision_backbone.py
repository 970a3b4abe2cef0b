"""torchvision's classifiers as backbones."""

from typing import Any

import torchvision
from torch import Tensor, nn

from ssrob.models.library_backbone import LibraryBackbone, checked_call

COLOURS = 3  # channels that all of them take
_OUTPUTS = 997  # classes by which the classifier is recognised: no layer has so many channels


class GreyAsColour(nn.Module):
    """A network of colour images that takes grey ones: their channel is given three times."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Any:
        """(B, 1, H, W) -> what the network returns for (B, 3, H, W)."""
        return self.network(x.expand(-1, COLOURS, -1, -1))


def torchvision_backbone(channels: int, *, arch: str, **arguments: Any) -> LibraryBackbone:
    """Make a classifier of `torchvision.models` without its last layer; `arguments` are its constructor's.

    Raises ValueError if these do not fit, and for other images than grey and coloured ones.
    """
    if channels not in (1, COLOURS):
        raise ValueError(f"model: torchvision's {arch} takes images of 1 or {COLOURS} channels, found {channels}")

    def make() -> tuple[nn.Module, int]:
        network = checked_call(
            f"torchvision's {arch}",
            lambda: torchvision.models.get_model(arch, weights=None, num_classes=_OUTPUTS, **arguments),
        )
        features = _take_classifier_off(arch, network)
        return (network if channels == COLOURS else GreyAsColour(network)), features

    return LibraryBackbone(make)


def _take_classifier_off(arch: str, network: nn.Module) -> int:
    """Replace the layer that gives the logits by nothing; return how many features it was given."""
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Linear) and layer.out_features == _OUTPUTS:
            network.set_submodule(name, nn.Identity())
            return layer.in_features
        if isinstance(layer, nn.Conv2d) and layer.out_channels == _OUTPUTS:
            network.set_submodule(name, nn.Identity())
            return layer.in_channels
    raise ValueError(f"model: torchvision's {arch} has no features: no layer at its end gives the logits")
