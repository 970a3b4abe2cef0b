"""Resumable checkpoints: one file, written atomically, with its own checksum; never unpickled code."""

import contextlib
import hashlib
import io
import pickle
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from ssrob.storage.files import replacing

SHORTEST = 20.0  # seconds between two checkpoints
SHARE = 0.02  # of the time that checkpoints may take


class Interval:
    """Decides when a checkpoint is due: often enough to lose little, rarely enough to take at most 2 % of the time.

    Every checkpoint that took c seconds is followed by at least c / 2 % seconds of work. A kill loses the work since
    the last checkpoint: at most one interval and the step that was under way.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._ended, self._seconds = clock(), 0.0

    def due(self) -> bool:
        """Whether it is time for a checkpoint."""
        return self._clock() - self._ended >= max(SHORTEST, self._seconds / SHARE)

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """Measure what a checkpoint takes, around its writing."""
        began = self._clock()
        yield
        self._ended = self._clock()
        self._seconds = self._ended - began


class DamagedCheckpoint(ValueError):
    """A checkpoint whose content does not have the checksum that it was written with."""


def save(state: dict[str, Any], path: Path) -> None:
    """Write tensors, numbers and strings; a kill leaves the old file or the new one."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    with replacing(path) as file:
        file.write(hashlib.sha256(payload).hexdigest().encode() + b"\n")
        file.write(payload)


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint after verifying its checksum; raises DamagedCheckpoint. Pickled code is refused, never run."""
    written, _, payload = path.read_bytes().partition(b"\n")
    if hashlib.sha256(payload).hexdigest().encode() != written:
        raise DamagedCheckpoint(f"{path}: truncated or altered")
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(payload), map_location=device, weights_only=True)
    except pickle.UnpicklingError:
        raise DamagedCheckpoint(f"{path}: holds more than tensors, numbers and strings, and was not opened") from None
    return state
