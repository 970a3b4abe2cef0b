"""What attacks accept: arrays, numbers such as "8/255"; the rest is one ValueError, with found and allowed."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ssrob.config.fields import parse_number
from ssrob.registry.attacks import NORMS, REFERENCE
from ssrob.registry.lookup import check_choice
from ssrob.registry.presets import PRESETS, AttackPlan


def as_tensor(what: str, given: object) -> Tensor:
    """Return tensors as they are, arrays, lists and columns of a table as tensors; floats of arrays become float32.

    what: "images", or else whole numbers, which become int64. Memory is shared where that can be.
    """
    if isinstance(given, Tensor):
        return given.contiguous() if what == "images" else _int64(given)  # a model may view them as it likes
    if hasattr(given, "__array__") or (isinstance(given, Sequence) and not isinstance(given, str)):
        try:
            array = np.asarray(given)
            tensor = torch.as_tensor(array if array.flags.writeable else array.copy())  # tensors are always writeable
        except (TypeError, ValueError, RuntimeError):
            pass
        else:
            return tensor.float() if tensor.is_floating_point() else tensor if what == "images" else _int64(tensor)
    raise ValueError(f"{what} must be a tensor or an array of numbers, found {type(given).__name__}")


def as_device(device: torch.device | str) -> torch.device:
    """Return a device of PyTorch by its name."""
    try:
        return torch.device(device)
    except RuntimeError:
        raise ValueError(f"device: expected cpu, cuda, cuda:N or another of PyTorch's, found {device!r}") from None


def _int64(numbers: Tensor) -> Tensor:
    whole = not (numbers.is_floating_point() or numbers.is_complex() or numbers.dtype == torch.bool)
    return numbers.long() if whole else numbers


def parse_eps(eps: object) -> list[float]:
    """Return one or more eps as floats: numbers, "8/255", "2/255,8/255", or a list, an array or a tensor of these."""
    many = eps.tolist() if isinstance(eps, Tensor | np.ndarray) else eps
    many = many.split(",") if isinstance(many, str) else many
    values = list(many) if isinstance(many, Sequence) and not isinstance(many, str) else [many]
    try:
        return [float(parse_number(value)) for value in values]  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ValueError(f'eps must be numbers such as 8/255, 0.03 or "8/255", found {eps!r}') from None


def check_eps(eps: object, norm: str) -> list[float]:
    """Return the budgets as floats; they must be finite, >= 0 and strictly ascending."""
    check_choice("norm", norm, NORMS)
    values = parse_eps(eps)
    if not values or not all(math.isfinite(value) and value >= 0 for value in values):
        raise ValueError(f"eps must be one or more finite numbers >= 0, found {values}")
    if any(after <= before for before, after in pairwise(values)):
        raise ValueError(f"eps must be strictly ascending, found {values}")
    if norm == "linf" and values[-1] > 1:
        raise ValueError(f"linf eps is in [0, 1] pixel units, found {values[-1]} (8 grey levels are 8/255)")
    return values


def float32_below(values: Sequence[float]) -> tuple[float, ...]:
    """Round to float32 towards zero, so that a float32 distance <= the result is <= the float64 value too.

    Comparing with either then gives the same answer for every float32 distance.
    """
    near = [np.float32(value) for value in values]
    zero = np.float32(0)
    return tuple(
        float(np.nextafter(single, zero) if float(single) > value else single)
        for single, value in zip(near, values, strict=True)
    )


def find_plan(preset: str | AttackPlan) -> AttackPlan:
    """Return a plan by its preset's name, or the plan itself."""
    if isinstance(preset, AttackPlan):
        return preset
    if preset == REFERENCE:
        raise ValueError(f"preset {preset!r} is other code: call ssrob.attacks.autoattack.autoattack_sweep")
    return PRESETS[check_choice("preset", preset, PRESETS)]


def check_data(images: Tensor, labels: Tensor, index: Tensor | None, batch_size: int, block: int) -> Tensor:
    """Check images (N, C, H, W) in [0, 1], labels and example numbers (N,); return the numbers, int64."""
    if batch_size < 1 or block < 1:
        raise ValueError(f"batch_size and block must be >= 1, found {batch_size} and {block}")
    if images.ndim != 4 or images.numel() == 0:
        raise ValueError(f"images must be (N, C, H, W) and not empty, found shape {tuple(images.shape)}")
    if images.dtype != torch.float32:
        hint = "; divide bytes by 255" if images.dtype == torch.uint8 else ""
        raise ValueError(f"images must be float32 in [0, 1], found dtype {images.dtype}{hint}")
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 1):  # also catches NaN
        hint = "; divide grey levels by 255" if 1 < high <= 255 else ""
        raise ValueError(f"images must lie in [0, 1], found {low:g} to {high:g}{hint}")
    _check_numbers("labels", labels, len(images))
    index = torch.arange(len(images)) if index is None else index
    _check_numbers("index", index, len(images))
    return index.to(torch.int64)


def check_logits(logits: Tensor, labels: Tensor) -> None:
    """Refuse what cannot be judged: no tensor, a wrong shape, fewer classes than the labels use, NaN."""
    if not isinstance(logits, Tensor):
        raise ValueError(f"the model must return logits (B, K) as a tensor, found {type(logits).__name__}")
    if logits.ndim != 2 or len(logits) != len(labels) or logits.shape[1] < 2:
        remedy = "; flatten them" if logits.ndim == 4 else ""
        if logits.ndim == 1 or logits.shape[1:] == (1,):
            remedy = "; for two classes return cat([-z, z], 1)"
        found = f"found shape {tuple(logits.shape)}{remedy}"
        raise ValueError(f"the model must return logits ({len(labels)}, classes >= 2), {found}")
    if int(labels.max()) >= logits.shape[1]:
        raise ValueError(f"labels must be 0..{logits.shape[1] - 1}, found {int(labels.max())}")
    rows = logits.isnan().any(1).nonzero().squeeze(1).tolist()
    if rows:
        raise ValueError(
            f"the model returns NaN logits for {len(rows)} of {len(logits)} images, first at row {rows[0]}"
        )


def _check_numbers(what: str, given: Tensor, count: int) -> None:
    if tuple(given.shape) != (count,) or given.dtype != torch.int64:
        raise ValueError(f"{what} must be int64 of shape ({count},), found {given.dtype} of shape {tuple(given.shape)}")
    if int(given.min()) < 0:
        raise ValueError(f"{what} must be >= 0, found {int(given.min())}")
