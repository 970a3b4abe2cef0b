"""Backbones: one row each. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Backbone:
    """One backbone: ``function(channels, **arguments) -> nn.Module`` with ``.features``, and its defaults.

    library: a package whose networks it takes by name; it has the arguments `arch` and those of that network.
    """

    function: str
    arguments: Mapping[str, int] = field(default_factory=dict)
    depths: str | None = None  # a rule for people, e.g. "6 n + 2"
    depth_step: tuple[int, int] | None = None  # the same rule as (step, offset)
    library: str | None = None


BACKBONES: dict[str, Backbone] = {
    "resnet": Backbone(
        "ssrob.models.resnet:resnet",
        {"depth": 8, "width": 16, "stem_stride": 1},
        depths="6 n + 2",
        depth_step=(6, 2),
    ),
    "preactresnet18": Backbone("ssrob.models.resnet:preactresnet18", {"width": 64}),
    "wideresnet": Backbone(
        "ssrob.models.resnet:wideresnet",
        {"depth": 34, "width": 10},
        depths="6 n + 4",
        depth_step=(6, 4),
    ),
    "torchvision": Backbone("ssrob.models.torchvision_backbone:torchvision_backbone", library="torchvision"),
    "timm": Backbone("ssrob.models.timm_backbone:timm_backbone", library="timm"),
}
