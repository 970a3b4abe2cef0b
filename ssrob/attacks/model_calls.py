"""Calls of a model for logits, losses and input gradients, in parts that fit its memory, and counting the images."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ssrob.attacks.auto_batch import Parts
from ssrob.attacks.base import loss_and_gradient


class ModelCalls:
    """A model and how many images it was asked about: `gradients` with an input gradient, `forwards` without."""

    def __init__(self, model: nn.Module, batch_size: int) -> None:
        self._model, self._in_parts = model, Parts(batch_size)
        self.gradients, self.forwards = 0, 0

    @property
    def batch_size(self) -> int:
        """How many images the device takes at once: fewer after its memory ran out."""
        return self._in_parts.size

    def logits(self, x: Tensor) -> Tensor:
        """Return the float32 logits (B, K) of images, which decide whether one is misclassified."""
        self.forwards += len(x)
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            return torch.cat(self._in_parts(lambda rows: self._model(x[rows]).float(), len(x)))

    def loss_and_gradient(
        self, x: Tensor, loss_of: Callable[[Tensor, slice], Tensor], dtype: torch.dtype, *, with_gradient: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits (B, K), a loss (B,) and its gradient at x (B, C, H, W), from one forward pass of each image.

        loss_of: logits (b, K) and the rows of x that they are of -> (b,). dtype: bfloat16 runs the pass under autocast.
        with_gradient: if False, the gradient is zeros.
        """

        def part(rows: slice) -> tuple[Tensor, Tensor, Tensor]:
            kept: list[Tensor] = []

            def loss_at(point: Tensor) -> Tensor:
                with torch.autocast(point.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
                    logits = self._model(point).float()
                kept.append(logits.detach())
                return loss_of(logits, rows)

            loss, gradient = loss_and_gradient(loss_at, x[rows], with_gradient)
            return kept[0], loss, torch.nan_to_num(gradient)

        parts = self._in_parts(part, len(x))
        if with_gradient:
            self.gradients += len(x)
        else:
            self.forwards += len(x)
        logits, loss, gradient = parts[0] if len(parts) == 1 else map(torch.cat, zip(*parts, strict=True))
        return logits, loss, gradient
