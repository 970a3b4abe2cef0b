"""How many numbers a network's weights file holds, without building it but for a library's. Imports no torch."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ssrob.planning.stage import canonical
from ssrob.registry.architectures import architectures
from ssrob.registry.backbones import BACKBONES
from ssrob.registry.lookup import load
from ssrob.registry.losses import Widths

NORM = 4  # numbers of a BatchNorm per channel: scale, shift, running mean and variance


def network_numbers(backbone: str, arguments: Mapping[str, Any], channels: int, heads: Iterable[Widths]) -> int | None:
    """Return parameters and running statistics of a network; None where its backbone's are not known."""
    library = BACKBONES[backbone].library if backbone in BACKBONES else None
    if library and architectures(library):
        numbers, features = load("ssrob.models.dry_run:size")(backbone, canonical(arguments), channels)
    elif backbone in SIZES:
        numbers, features = SIZES[backbone](channels, **{**BACKBONES[backbone].arguments, **arguments})
    else:
        return None
    return int(numbers) + sum(_head(features, widths) for widths in heads)


def resnet(channels: int, *, depth: int, width: int, stem_stride: int) -> tuple[int, int]:
    """Return numbers and features of `models.resnet.resnet`; the stride of its stem changes none."""
    return _preact(channels, width, (width, 2 * width, 4 * width), (depth - 2) // 6)


def preactresnet18(channels: int, *, width: int) -> tuple[int, int]:
    """Return numbers and features of `models.resnet.preactresnet18`."""
    return _preact(channels, width, (width, 2 * width, 4 * width, 8 * width), 2)


def wideresnet(channels: int, *, depth: int, width: int) -> tuple[int, int]:
    """Return numbers and features of `models.resnet.wideresnet`."""
    return _preact(channels, 16, (16 * width, 32 * width, 64 * width), (depth - 4) // 6)


SIZES: dict[str, Callable[..., tuple[int, int]]] = {
    "resnet": resnet,
    "preactresnet18": preactresnet18,
    "wideresnet": wideresnet,
}


def _preact(channels: int, stem: int, widths: Sequence[int], blocks: int) -> tuple[int, int]:
    numbers, inputs = 9 * channels * stem, stem
    for stage, width in enumerate(widths):
        for block in range(blocks):
            changes = inputs != width or (stage > 0 and block == 0)
            numbers += NORM * (inputs + width) + 9 * (inputs + width) * width + (inputs * width if changes else 0)
            inputs = width
    return numbers + NORM * inputs, inputs


def _head(features: int, widths: Widths) -> int:
    *hidden, outputs = (widths,) if isinstance(widths, int) else widths
    numbers = 0
    for width in hidden:
        numbers += (features + NORM) * width
        features = width
    return numbers + (features + 1) * outputs
