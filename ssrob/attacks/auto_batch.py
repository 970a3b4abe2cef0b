"""How many images a device takes at once: as many as its memory holds, and fewer once that was too many."""

import logging
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")
CPU_BATCH = 256  # caches, not memory, decide on a CPU
MOST, PROBE = 2048, 32  # images; beyond some thousand even small networks keep a large card busy
SHARE = 0.4  # of the card's memory: the rest is for what an attack remembers, and for fragments

_log = logging.getLogger(__name__)


class Parts:
    """Calls a function of consecutive rows, in parts of at most `size`; halves the size when memory runs out."""

    def __init__(self, size: int):
        self.size = size

    def __call__(self, function: Callable[[slice], T], rows: int) -> list[T]:
        """Return the function's values of all parts in order; raises what it raises once a single row is too much."""
        values: list[T] = []
        begin = 0
        while begin < rows:
            value = self._tried(function, slice(begin, min(begin + self.size, rows)))
            if value is None:
                self.size = (self.size + 1) // 2
                _log.warning("out of memory: going on with %d images at a time", self.size)
            else:
                begin += min(self.size, rows - begin)
                values.append(value)
        return values

    def _tried(self, function: Callable[[slice], T], part: slice) -> T | None:
        """Return None where memory ran out; the error is let go first, since it keeps tensors alive."""
        try:
            return function(part)
        except torch.OutOfMemoryError:
            if self.size == 1:
                raise
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None


def batch_for(model: nn.Module, image: Tensor) -> int:
    """Return a batch size for gradients of images like `image` (1, C, H, W): a power of two; on a CPU always the same.

    It depends on the network and the kind of card alone, so that a killed evaluation finds its blocks again; jobs that
    share a card go on with less where that is too much (`Parts`).
    """
    if image.device.type != "cuda":
        return CPU_BATCH
    total = torch.cuda.get_device_properties(image.device).total_memory
    return fitting(SHARE * total, bytes_per_image(model, image))


def fitting(memory: float, per_image: float) -> int:
    """Return the largest power of two of images that fit into so many bytes, 1 to 2048."""
    most = min(MOST, max(1, int(memory / max(1.0, per_image))))
    return 1 << (most.bit_length() - 1)


def bytes_per_image(model: nn.Module, image: Tensor) -> float:
    """Measure on a GPU what a float32 gradient of one image takes, by that of a few copies of it."""
    device = image.device
    batch = image.expand(PROBE, -1, -1, -1).contiguous().requires_grad_()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    with torch.enable_grad():
        torch.autograd.grad(model(batch).sum(), batch)
    return (torch.cuda.max_memory_allocated(device) - before) / PROBE
