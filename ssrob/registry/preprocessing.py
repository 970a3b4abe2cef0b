"""How models expect their images, by name: one row each. Imports no torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Normalisation:
    """Images x in [0, 1] become (x - mean) / std before the model; a number per channel, or one for all of them."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    used_by: str


PREPROCESSING: dict[str, Normalisation | None] = {
    "none": None,
    "imagenet": Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "torchvision and most of timm"),
    "cifar10": Normalisation((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), "most CIFAR-10 models"),
    "cifar100": Normalisation((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761), "most CIFAR-100 models"),
    "half": Normalisation((0.5,), (0.5,), "images in [-1, 1]: Inception, many vision transformers"),
    "clip": Normalisation(
        (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711), "CLIP and models made from it"
    ),
    "mnist": Normalisation((0.1307,), (0.3081,), "most MNIST models, of one channel"),
}
"""Means and standard deviations of a data set's training pixels, as its models use them."""
