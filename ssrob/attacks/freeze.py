"""Lending a model to an attack and getting it back unchanged."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


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
