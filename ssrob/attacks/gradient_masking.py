"""Signs that a model cannot be attacked by its gradients, or is not the function it claims to be."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

import torch
from torch import Tensor, nn

from ssrob.attacks.base import loss_and_gradient
from ssrob.attacks.logit_losses import UNTARGETED
from ssrob.attacks.model_contract import Adapted

FORWARDS = 5  # of the same images, to see whether the model draws at random
BATCH_EFFECT = (
    0.01  # of the largest logit: what another batch may change, far above rounding and below batch statistics
)


@dataclass(frozen=True)
class Flag:
    """One thing that looks wrong: a name to filter by, and a sentence with the numbers."""

    name: str
    message: str


def model_flags(model: nn.Module, images: Tensor, labels: Tensor) -> Iterator[Flag]:
    """Look at a frozen model in eval mode; images (N, C, H, W) in [0, 1], labels (N,), on its device."""
    training = [type(module).__name__ for module in model.modules() if module.training]
    if training:
        yield Flag("train_mode", f"{len(training)} modules stay in train mode after eval(), such as {training[0]}")
    yield from _outputs(model, images)
    yield from _dynamic(model, images[:1])
    if not isinstance(model, Adapted) or model.interface.gradient:
        yield from _gradients(model, images, labels)


@torch.no_grad()
def _outputs(model: nn.Module, images: Tensor) -> Iterator[Flag]:
    first, *others = (model(images) for _ in range(FORWARDS))
    spread = max(float((other - first).abs().max()) for other in others)
    if spread > 0:
        yield Flag("randomised", f"logits of the same images differ by up to {spread:.2g}")
    apart = torch.cat([model(part) for part in torch.split(images, max(1, len(images) // 4))])
    moved, scale = float((apart - first).abs().max()), float(first.abs().max())
    if moved > BATCH_EFFECT * scale:
        yield Flag("batch_dependent", f"logits up to {scale:.2g} change by up to {moved:.2g} in smaller batches")
    if bool((first >= 0).all()) and bool(((first.sum(1) - 1).abs() < 1e-3).all()):
        yield Flag("softmax", "the outputs are probabilities, not logits: gradients of cross-entropy vanish")


def _dynamic(model: nn.Module, images: Tensor) -> Iterator[Flag]:
    """Watch one forward pass for calls of autograd or of an optimiser: such a model adapts to what attacks it."""
    codes = {function.__code__ for function in (torch.autograd.grad, torch.autograd.backward)}
    called: list[str] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        stepped = code.co_name == "step" and str(frame.f_globals.get("__name__")).startswith("torch.optim")
        if event == "call" and (code in codes or stepped):
            called.append(f"{frame.f_globals.get('__name__')}.{code.co_name}")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        with torch.enable_grad():
            model(images)
    finally:
        sys.setprofile(before)
    if called:
        yield Flag("dynamic", f"the forward pass calls {called[0]}: an attack has to take that into account")


def _gradients(model: nn.Module, images: Tensor, labels: Tensor) -> Iterator[Flag]:
    for name in ("cross_entropy", "margin"):

        def loss_at(x: Tensor, name: str = name) -> Tensor:
            return UNTARGETED[name](model(x).float(), labels)

        _, gradient = loss_and_gradient(loss_at, images)
        zero = float((gradient.flatten(1) == 0).all(1).double().mean())
        if zero > 0:
            yield Flag("zero_gradient", f"the {name} gradient is exactly 0 at {zero:.1%} of the clean images")
