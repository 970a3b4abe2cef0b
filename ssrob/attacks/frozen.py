"""Lending a model to an attack and getting it back unchanged."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def frozen(model: nn.Module, *, training: bool | None = False) -> Iterator[nn.Module]:
    """Freeze the parameters and set the mode (None: leave it); give every mode and `requires_grad` back.

    With frozen parameters the backward pass of an attack computes input gradients alone.
    """
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        if training is not None:
            model.train(training)
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        yield model
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


@contextmanager
def borrowed(model: nn.Module, image: Tensor) -> Iterator[nn.Module]:
    """Yield the model frozen and in eval mode, guarded against writing into images such as `image` (1, C, H, W).

    A model in train mode is a mistake to point out.
    """
    if any(module.training for module in model.modules()):
        warnings.warn("the model is in train mode: attacked in eval mode, its mode is restored", stacklevel=4)
    with frozen(model):
        yield guarded(model, image)


def guarded(model: nn.Module, image: Tensor) -> nn.Module:
    """Return the model, or one that copies its images first if this one writes into them, seen on a copy of `image`."""
    seen = image.clone()
    version = seen._version
    with torch.no_grad():
        model(seen)
    writes = seen._version != version or not seen.equal(image)  # `.data` is written without a new version
    return _Copying(model) if writes else model


class _Copying(nn.Module):
    """Hands copies of its images to a model that writes into them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.train(model.training)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of x (B, C, H, W), which stays as it is."""
        logits: Tensor = self.model(x.clone())
        return logits


@contextmanager
def channels_last(model: nn.Module, image: Tensor) -> Iterator[None]:
    """Lay the weights of convolutions out with channels last, which is faster; give the very same storage back.

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
