"""Lending a model to an attack, which leaves it unchanged."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ssrob.data.loader import as_tensor, unit
from ssrob.data.types import Pixels

BATCH_PIXELS = 2**18  # of a batch, 256 images of 32 x 32


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """Freeze the parameters and set eval mode; restore every mode and `requires_grad` afterwards.

    With frozen parameters the backward pass of an attack computes input gradients alone.
    """
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.eval()
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        yield model
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


@contextmanager
def channels_last(model: nn.Module, image: Tensor) -> Iterator[None]:
    """Lay the weights of convolutions out with channels last, which is faster, and restore the same storage afterwards.

    A model that cannot take `image` (1, C, H, W) in that layout (a `view` after a convolution) stays as it is.
    """
    kept = [(weight, weight.data) for weight in model.parameters() if weight.ndim == 4]
    try:
        for weight, data in kept:
            weight.data = data.contiguous(memory_format=torch.channels_last)
        if not _takes(model, image.contiguous(memory_format=memory_format(model))):
            _restore(kept)
        yield
    finally:
        _restore(kept)


@contextmanager
def lent(model: nn.Module, images: Pixels) -> Iterator[Iterator[tuple[Tensor, slice]]]:
    """Lend a model, frozen and with channels last, for images (N, H, W, C) uint8.

    What it is for comes in batches: x (B, C, H, W) in [0, 1] on the model's device, and which images these are.
    """
    device = next(model.parameters(), torch.empty(0)).device
    with frozen(model), channels_last(model, unit(as_tensor(images[:1], device))):
        yield _batches(images, device, memory_format(model))


def _batches(images: Pixels, device: torch.device, layout: torch.memory_format) -> Iterator[tuple[Tensor, slice]]:
    size = max(1, BATCH_PIXELS // (images.shape[1] * images.shape[2]))
    for start in range(0, len(images), size):
        part = slice(start, min(start + size, len(images)))
        yield unit(as_tensor(images[part], device)).contiguous(memory_format=layout), part


def memory_format(model: nn.Module) -> torch.memory_format:
    """Return channels_last for a model whose convolutions were put into it, since images must match."""
    kernels = [weight for weight in model.parameters() if weight.ndim == 4 and not weight.is_contiguous()]
    last = any(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)
    return torch.channels_last if last else torch.contiguous_format


@torch.no_grad()
def _takes(model: nn.Module, image: Tensor) -> bool:
    try:
        model(image)
    except RuntimeError:
        return False
    return True


def _restore(kept: list[tuple[nn.Parameter, Tensor]]) -> None:
    for weight, data in kept:
        weight.data = data
