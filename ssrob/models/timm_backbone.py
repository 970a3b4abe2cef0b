"""timm's networks as backbones."""

from typing import Any

from torch import nn

from ssrob.models.library_backbone import LibraryBackbone, checked_call
from ssrob.registry.architectures import check_installed


def timm_backbone(channels: int, *, arch: str, **arguments: Any) -> LibraryBackbone:
    """Make a network of timm with its pooling and without its classifier; `arguments` are its constructor's.

    Raises ValueError if these do not fit, or if timm is not installed.
    """
    check_installed("timm")
    import timm

    def make() -> tuple[nn.Module, int]:
        network: Any = checked_call(
            f"timm's {arch}",
            lambda: timm.create_model(arch, pretrained=False, num_classes=0, in_chans=channels, **arguments),
        )
        return network, int(getattr(network, "head_hidden_size", None) or network.num_features)

    return LibraryBackbone(make)
