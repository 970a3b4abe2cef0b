"""Resumable checkpoints: one file, written atomically, with its own checksum; never unpickled code."""

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import torch

from ssrob.durable import replacing


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
    told, _, payload = path.read_bytes().partition(b"\n")
    if hashlib.sha256(payload).hexdigest().encode() != told:
        raise DamagedCheckpoint(f"{path}: truncated or altered")
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(payload), map_location=device, weights_only=True)
    except pickle.UnpicklingError:
        raise DamagedCheckpoint(f"{path}: holds more than tensors, numbers and strings, and was not opened") from None
    return state
