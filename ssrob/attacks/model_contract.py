"""What a model must be to be attacked: images (B, C, H, W) float32 in [0, 1] -> logits (B, K) float32.

Models from elsewhere come with other interfaces. `adapt` looks at one once, and returns it behind this contract with
notes on what was found, or refuses it with a remedy. Every way into an attack goes through it: `attack_sweep`, the
reference's code, the checks, studies and `ssrob evaluate`.
"""

import itertools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ssrob.attacks.frozen import frozen
from ssrob.attacks.model_outputs import logits_in, several, with_no_answer
from ssrob.formatting import first_line

LOOK = 64  # images that a look takes
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 3, 5, 10, 20, 50, 100)  # that a model may have been exported with
_SIZES = (224, 32, 28, 64, 96, 128, 256, 299, 384)  # that models are usually made for, to name the right one
NO_GRADIENT = "no gradient reaches the images (quantised, exported without one, or numpy inside?)"


@dataclass(frozen=True)
class Interface:
    """How a model differs from the contract.

    dtype: what its images must be; batch: the one number of images that it takes; single: its one output is
    the "logit" or "probability" of class 1; gradient: whether one reaches the images; outputs: those that count;
    no_answer: NaN becomes an output of its own, one more, so that it is wrong for every label.
    """

    dtype: torch.dtype = torch.float32
    batch: int | None = None
    single: str | None = None
    gradient: bool = True
    outputs: tuple[int, ...] | None = None
    no_answer: bool = False


class Adapted(nn.Module):
    """A model behind the contract. It is given copies, so that what it does to its input changes nothing elsewhere.

    Modules that refuse `train()` or have no mode (`torch.export`, frozen scripts) are kept out of sight of nn.Module;
    their mode is part of them.
    """

    def __init__(
        self, model: Callable[..., Any], interface: Interface | None = None, notes: tuple[str, ...] = ()
    ) -> None:
        super().__init__()
        self.interface, self.notes = interface or Interface(), notes
        self._hidden = [model]  # a list: nn.Module registers no modules that lie in one
        if isinstance(model, nn.Module) and not _has_fixed_mode(model):
            self.model = model
        self.training = any(module.training for module in self.children())

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> logits (B, K) float32."""
        given = x.clone() if x.dtype == self.interface.dtype else x.to(self.interface.dtype)
        if self.interface.batch is None:
            return self._logits(self._hidden[0](given), len(x)).float()
        parts = [self._padded(part) for part in torch.split(given, self.interface.batch)]
        return torch.cat(parts).float()

    @property
    def plain(self) -> Callable[..., Any]:
        """The model itself."""
        return self._hidden[0]

    def _padded(self, part: Tensor) -> Tensor:
        """Ask for fewer images than the model takes by repeating the last."""
        assert self.interface.batch is not None
        missing = self.interface.batch - len(part)
        full = torch.cat([part, part[-1:].expand(missing, *part.shape[1:])]) if missing else part
        return self._logits(self._hidden[0](full), self.interface.batch)[: len(part)]

    def _logits(self, output: Any, rows: int) -> Tensor:
        logits = logits_in(output, rows)
        if self.interface.single is not None:
            one = torch.logit(logits, eps=1e-7) if self.interface.single == "probability" else logits
            logits = torch.cat([torch.zeros_like(one), one], dim=1)
        if self.interface.outputs is not None:
            logits = logits[:, self.interface.outputs]
        return with_no_answer(logits) if self.interface.no_answer else logits

    def named_parameters(self, *args: Any, **settings: Any) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield those of the model, also where it is out of sight."""
        model = self._hidden[0]
        return model.named_parameters(*args, **settings) if isinstance(model, nn.Module) else iter(())

    def state_dict(self, *_: Any, **__: Any) -> dict[str, Tensor]:  # type: ignore[override]
        """Return the tensors of the model, those of packed weights too; they distinguish one model from another."""
        model = self._hidden[0]
        values = model.state_dict().values() if isinstance(model, nn.Module) else ()
        flat = itertools.chain.from_iterable(value if isinstance(value, tuple) else (value,) for value in values)
        tensors = [value for value in flat if isinstance(value, Tensor)]
        return {str(i): each.dequantize() if each.is_quantized else each for i, each in enumerate(tensors)}


def adapt(model: Callable[..., Any], images: Tensor) -> Adapted:
    """Look at a model once and return it behind the contract; images (N, C, H, W) float32 in [0, 1] on its device.

    Its mode, buffers and flags are given back. One or two images are asked for, all only of a model with one output.
    Raises ValueError that says what was found and what to do.
    """
    if isinstance(model, Adapted):
        return model
    if isinstance(model, nn.Module) and any(each.is_inference() for each in model.parameters()):
        raise ValueError("the model's weights were made under torch.inference_mode, without gradients: load it outside")
    if not callable(model):
        exported = " (of an ExportedProgram take .module())" if hasattr(model, "module") else ""
        raise ValueError(f"the model must be callable{exported}, found {type(model).__name__}")
    plain = Adapted(model)
    with frozen(plain), torch.no_grad():
        interface = _find_interface(model, images)
        seen = Adapted(model, interface).eval()
        notes = list(_notes(model, interface, images))
        if seen(images[:1]).shape[1] == 1:
            outputs = seen(images)
            kind = "probability" if bool(((outputs >= 0) & (outputs <= 1)).all()) else "logit"
            interface = replace(interface, single=kind)
            notes.append(f"the model has one output, taken for the {kind} of class 1 of two")
    with frozen(plain):
        gradient = _has_gradient(Adapted(model, interface).eval(), images[:1])
    if not gradient:
        notes.append(NO_GRADIENT)
    return Adapted(model, replace(interface, gradient=gradient), tuple(notes))


@contextmanager
def borrowed(model: Callable[..., Any], images: Tensor) -> Iterator[Adapted]:
    """Yield a model behind its contract, frozen and in eval mode; images (N, C, H, W) are to look at it with.

    A model in train mode is a mistake to point out, as is what is unusual about it.
    """
    with torch.inference_mode(mode=False):  # under which the caller may be, and no gradient is to be had
        yield from _borrowed(model, images)


def _borrowed(model: Callable[..., Any], images: Tensor) -> Iterator[Adapted]:
    adapted = adapt(model, images.clone())
    if any(module.training for module in adapted.modules()):
        warnings.warn("the model is in train mode: attacked in eval mode, its mode is restored", stacklevel=5)
    for note in adapted.notes if adapted is not model else ():
        warnings.warn(note, stacklevel=5)
    with frozen(adapted):
        yield adapted


def device_of_model(model: Callable[..., Any], images: Tensor) -> torch.device:
    """Return where a model's weights lie; of one without, where the images do."""
    parameters = model.parameters() if isinstance(model, nn.Module) else iter(())
    return next(parameters, images).device


def evaluation_mode(model: nn.Module) -> nn.Module:
    """Put a model into eval mode, and leave parts alone that have no mode, such as exported ones."""
    if not _has_fixed_mode(model):
        return model.eval()
    for module in model.modules():
        if "train" not in vars(module) and hasattr(module, "training"):
            module.training = False
    return model


def _has_fixed_mode(model: nn.Module) -> bool:
    """Return whether a part refuses `train()`, as an exported one does, or has no mode, as a frozen script."""
    return any("train" in vars(module) or not hasattr(module, "training") for module in model.modules())


def _find_interface(model: Callable[..., Any], images: Tensor) -> Interface:
    """Find the precision and the numbers of images that a model takes."""
    parameters = model.parameters() if isinstance(model, nn.Module) else iter(())
    weights_dtype = next((each.dtype for each in parameters if each.is_floating_point()), torch.float32)
    reason = ""
    for dtype in dict.fromkeys((torch.float32, weights_dtype)):
        first = images[:1].to(dtype)
        takes = []
        for batch in _BATCHES:
            error = _refusal(model, first.expand(batch, *first.shape[1:]).clone())
            reason = reason or error
            takes += [] if error else [batch]
            if takes == [1, 2] or (takes and batch > 1):
                break
        if takes:
            return Interface(dtype, None if takes == [1, 2] else takes[0])
    raise ValueError(
        f"the model cannot classify images of shape {tuple(images.shape[1:])} (C, H, W) on {images.device}: {reason}"
        f"{_remedy(model, images, weights_dtype)}"
    )


def _refusal(model: Callable[..., Any], x: Tensor) -> str:
    """Ask a model for the logits of x; return why it has none, empty if it has."""
    try:
        logits_in(model(x), len(x))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        return first_line(error)
    return ""


def _remedy(model: Callable[..., Any], images: Tensor, dtype: torch.dtype) -> str:
    """Say which usual size of images the model takes, if there is one."""
    channels = images.shape[1]
    if images.shape[3] in (1, 3) and not _refusal(model, images[:2].permute(0, 3, 1, 2).to(dtype)):
        return "; it takes channels first: images.permute(0, 3, 1, 2)"
    for count, side in itertools.product((channels, 3, 1), _SIZES):
        if not _refusal(model, torch.zeros(2, count, side, side, dtype=dtype, device=images.device)):
            advice = f"; set `size: {side}` in the data settings" if count == channels else ""
            return f"; it takes {count} x {side} x {side}{advice}"
    return ""


def _has_gradient(model: Adapted, image: Tensor) -> bool:
    """Return whether the gradient of the logits reaches an image (1, C, H, W)."""
    x = image.clone().requires_grad_()
    try:
        with torch.enable_grad():
            logits = model(x)
            return logits.requires_grad and torch.autograd.grad(logits.sum(), x, allow_unused=True)[0] is not None
    except RuntimeError:  # an operation without a derivative
        return False


def _notes(model: Callable[..., Any], interface: Interface, images: Tensor) -> Iterator[str]:
    """Say what is unusual about a model."""
    x = images[: interface.batch or 1].to(interface.dtype, copy=True)
    if len(x) < (interface.batch or 1):
        x = x[:1].expand(interface.batch or 1, *x.shape[1:]).clone()
    before = x.clone()
    output = model(x)
    if not torch.equal(x, before):
        yield "the model writes into its input: it is given copies"
    if interface.dtype != torch.float32:
        yield f"the model computes in {str(interface.dtype).removeprefix('torch.')}"
    if interface.batch is not None:
        yield f"the model takes {interface.batch} images at a time, no other number"
    if not isinstance(output, Tensor):
        yield f"the model returns a {type(output).__name__}, of which its logits are taken{several(output, len(x))}"
    if interface.batch is None and _depends_on_others(model, images[:2].to(interface.dtype)):
        yield "the logits of an image depend on the other images of its batch: numbers change with the batch size"


def _depends_on_others(model: Callable[..., Any], x: Tensor) -> bool:
    """Return whether two images get other logits together than each alone, by more than rounding."""
    together = logits_in(model(x.clone()), len(x)).float()
    alone = torch.cat([logits_in(model(each.clone()), 1).float() for each in torch.tensor_split(x, len(x))])
    again = logits_in(model(x.clone()), len(x)).float()
    random = not torch.allclose(together, again, rtol=1e-5, atol=1e-6, equal_nan=True)  # which is another problem
    return not (random or torch.allclose(together, alone, rtol=1e-2, atol=1e-3, equal_nan=True))
