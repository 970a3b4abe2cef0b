"""What an evaluation had to assume, and what looks wrong before anything was attacked."""

import math
from pathlib import Path

from ssrob.config.data import Data
from ssrob.data.prepared import Prepared
from ssrob.external.model import normalisation
from ssrob.registry.preprocessing import PREPROCESSING

WARNING = "warning: "


def crop_text(data: Data) -> str:
    """Say how images come to their size, in torchvision's words."""
    if data.size is None:
        return "none"
    if data.resize is None:
        return f"the largest centred square, resized to {data.size} (bicubic)"
    side, name = data.resize.split()
    return f"Resize({side}, {name}), CenterCrop({data.size})"


def assumptions(about: Prepared, preprocess: str, *, crop: str, weights: Path | None) -> list[str]:
    """Say what was not given and what the numbers depend on."""
    channels, height, width = about.shape
    if preprocess == "none":
        before = "no preprocessing: the model is given images in [0, 1], its own normalisation is inside it"
    else:
        mean, std = (",".join(f"{value:g}" for value in part) for part in normalisation(preprocess, channels))
        named = f" ({preprocess})" if preprocess in PREPROCESSING else ""
        before = f"images in [0, 1] are normalised by mean;std {mean};{std}{named} before the model"
    lines = [
        f"assumed: {before}; eps is in [0, 1] pixel units either way",
        f"assumed: {about.name}, {channels} x {height} x {width} pixels, labels 0..{len(about.classes) - 1} "
        f"mean {', '.join(about.classes[:3])}{', ...' if len(about.classes) > 3 else ''}",
        "assumed: the model is evaluated in eval mode",
    ]
    if crop != "none":
        lines.append(f"assumed: images are cropped by {crop}")
    return lines if weights else [*lines, "assumed: the factory's own weights (no --weights)"]


def suspicions(clean: float, n: int, about: Prepared, outputs: int) -> list[str]:
    """Say what looks wrong before anything was attacked."""
    classes, warnings = len(about.classes), []
    if near_chance(clean, n, classes):
        warnings.append(
            f"clean accuracy is {clean:.1%}, near the {1 / classes:.1%} of guessing: wrong preprocessing, "
            "order of classes or weights? Resolve this before you read on"
        )
    if outputs != classes:
        warnings.append(f"the model has {outputs} outputs, the data {classes} classes")
    return warnings


def near_chance(accuracy: float, n: int, classes: int) -> bool:
    """Return whether an accuracy on n images says little more than guessing one of the classes would."""
    chance = 1 / classes
    return accuracy < chance + max(3 * math.sqrt(chance * (1 - chance) / n), 0.05 * (1 - chance))
