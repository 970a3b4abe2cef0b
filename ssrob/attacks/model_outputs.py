"""The logits (B, K) in whatever a model returns."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

_KEYS = ("logits", "output", "outputs", "out", "scores", "pred", "prediction")


def logits_in(output: Any, rows: int) -> Tensor:
    """Return the logits (rows, K) of what a model returned for so many images: a tensor, an array, one of several.

    Of several it is that under a usual name, else the first that can be logits; a mapping in which others could be
    meant as well is refused. So are numbers of classes, which hold no logits.
    """
    if isinstance(output, Tensor | np.ndarray):
        logits = output if isinstance(output, Tensor) else torch.from_numpy(output)
        if logits.ndim == 1 and not (logits.is_floating_point() or logits.is_complex()):
            raise ValueError("the model must return logits (images, classes), found numbers of classes (an argmax?)")
        return _two_dimensional(logits, rows)
    if isinstance(getattr(output, "logits", None), Tensor):
        return logits_in(output.logits, rows)
    if isinstance(output, Mapping) and (key := next((key for key in _KEYS if key in output), None)):
        return logits_in(output[key], rows)
    candidates = _candidates(output, rows)
    if not candidates:
        allowed = "logits, or a tuple, a dict or an object with .logits that holds them"
        raise ValueError(f"the model must return {allowed}; found {type(output).__name__}")
    if isinstance(output, Mapping) and len({logits.shape[1] for logits in candidates.values()}) > 1:
        widths = ", ".join(f"{name!r} of {logits.shape[1]}" for name, logits in candidates.items())
        raise ValueError(f"the model must say which of its outputs are logits, by the key 'logits'; found {widths}")
    return next(iter(candidates.values()))


def several(output: Any, rows: int) -> str:
    """Say which of a tuple's outputs could be logits, where they differ in width; the first is taken."""
    candidates = {} if isinstance(output, Mapping) or hasattr(output, "logits") else _candidates(output, rows)
    widths = [str(logits.shape[1]) for logits in candidates.values()]
    return f" (the first, of {' and '.join(widths)} outputs)" if len(set(widths)) > 1 else ""


def _candidates(output: Any, rows: int) -> dict[Any, Tensor]:
    """Return what can be logits of a mapping, a list or a tuple, by key or place."""
    items: dict[Any, Any] = dict(output) if isinstance(output, Mapping) else {}
    if isinstance(output, tuple | list):
        items = dict(enumerate(output))
    candidates = {}
    for name, value in items.items():
        if isinstance(value, Tensor | np.ndarray) and value.ndim > 0:
            try:
                candidates[name] = logits_in(value, rows)
            except ValueError:
                continue
    return candidates


def _two_dimensional(logits: Tensor, rows: int) -> Tensor:
    """Return logits (rows, K) of (rows, K, 1, 1), of (rows,) and, for one image, of (K,)."""
    if logits.ndim > 2 and logits.shape[2:].numel() == 1:
        logits = logits.flatten(1)
    if logits.ndim == 1:
        logits = logits[:, None] if len(logits) == rows else logits[None]
    if logits.ndim != 2 or len(logits) != rows:
        found = f"for {rows} images shape {tuple(logits.shape)}"
        raise ValueError(f"the model must return logits (images, classes), found {found}")
    return logits


def with_no_answer(logits: Tensor) -> Tensor:
    """Append an output, (B, K) -> (B, K + 1): the largest where there is NaN, far below the others elsewhere."""
    bad = logits.isnan().any(dim=1, keepdim=True)
    numbers = torch.where(bad, torch.zeros_like(logits), logits)
    below = numbers.detach().amin(dim=1, keepdim=True) - 100
    return torch.cat([numbers, torch.where(bad, torch.ones_like(below), below)], dim=1)
