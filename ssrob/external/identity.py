"""Which model an evaluation is of: the name of its code, and a hash of its weights."""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ssrob.external.request import Request
from ssrob.storage.store import sha256

SHORT = 12  # digits of a hash that people are shown


def identity(model: nn.Module, request: Request) -> dict[str, Any]:
    """Return what identifies a model: its factory with arguments, its class, its size and hashes of its weights.

    `weights_sha256` is over names, types, shapes and values of the state, whatever file it came from; `file_sha256` is
    what ``sha256sum`` says of the file, null without one.
    """
    return {
        "name": request.title,
        "factory": request.model,
        "arguments": dict(request.arguments),
        "class": type(model).__name__,
        "parameters": sum(each.numel() for each in model.parameters()),
        "weights_sha256": weights_sha256(model),
        "file": None if request.weights is None else str(request.weights),
        "file_sha256": None if request.weights is None else sha256(request.weights),
    }


def weights_sha256(model: nn.Module) -> str:
    """Return a hash of a model's state that changes with any bit, name, type or shape in it, and with nothing else."""
    digest = hashlib.sha256()
    state = model.state_dict()
    for name in sorted(state):
        digest.update(f"{name}\n".encode())
        _add(digest, state[name])
    return digest.hexdigest()


def _add(digest: "hashlib._Hash", value: object) -> None:
    """Add a value of a state dict; quantised layers keep tuples of tensors and settings in theirs."""
    if isinstance(value, Tensor):
        plain = value.detach().cpu()
        whole = (plain.dequantize() if plain.is_quantized else plain).contiguous()
        digest.update(f"{value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(whole.reshape(-1).view(torch.uint8).numpy().data)
    elif isinstance(value, list | tuple):
        for each in value:
            _add(digest, each)
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            _add(digest, (key, value[key]))
    else:
        digest.update(f"{value!r}\n".encode())
