"""Resumable checkpoints: one file, written atomically, with its own checksum; never unpickled code."""

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import torch


class DamagedCheckpoint(ValueError):
    """A checkpoint whose content does not have the checksum that it was written with."""


def save(state: dict[str, Any], path: Path) -> None:
    """Write tensors, numbers and strings; a kill leaves the old file or the new one."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(hashlib.sha256(payload).hexdigest().encode() + b"\n")
        file.write(payload)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint after verifying its checksum; raises DamagedCheckpoint."""
    told, _, payload = path.read_bytes().partition(b"\n")
    if hashlib.sha256(payload).hexdigest().encode() != told:
        raise DamagedCheckpoint(f"{path}: truncated or altered")
    state: dict[str, Any] = torch.load(io.BytesIO(payload), map_location=device, weights_only=True)
    return state
