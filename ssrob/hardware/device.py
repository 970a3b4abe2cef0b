"""How a kind of device computes: precision, determinism, memory layout. On a CPU nothing is changed.

float32 means float32: TensorFloat-32 is off, since verdicts are decided in float32. Deterministic kernels are the
default on a GPU, because a training that was killed must end with the same bits.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ssrob.config.fields import Precision
from ssrob.hardware import gpu_lease

WORKSPACE = ":4096:8"  # the one of cuBLAS's two reproducible settings that costs memory (24 MB) rather than speed

_SETTINGS: list[tuple[Any, str]] = [
    (torch.backends.cudnn.conv, "fp32_precision"),  # type: ignore[attr-defined]
    (torch.backends.cuda.matmul, "fp32_precision"),
    (torch.backends.cudnn, "benchmark"),
    (torch.utils.deterministic, "fill_uninitialized_memory"),  # costs a write of every new tensor
]


def device_of(name: str) -> torch.device:
    """Return the device of this name: auto (a GPU if there is one), cpu, cuda or cuda:N.

    Raises ValueError for another name, and for a GPU that is not there: nothing runs on a CPU unasked.
    """
    available, kind = torch.cuda.is_available(), gpu_lease.device_name(name)
    if kind == "auto":
        return torch.device("cuda" if available else "cpu")
    device = torch.device(kind)
    if device.type == "cuda" and not (available and (device.index or 0) < torch.cuda.device_count()):
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "not set")
        gpus = f"{torch.cuda.device_count()} GPUs" if available else "no GPU"
        usable = f"{gpus} that PyTorch {torch.__version__} can use (CUDA_VISIBLE_DEVICES: {visible})"
        raise ValueError(f"device {name!r} was asked for, found {usable}; ask for auto or cpu to run without one")
    return device


@contextlib.contextmanager
def numerics(device: torch.device, *, deterministic: bool = True, strict: bool = True) -> Iterator[None]:
    """Set the process to compute as documented on a device, and give the old settings back.

    deterministic: the same bits at every run; if False, cuDNN tries which kernels are fastest and sums may run in any
    order. strict: an operation that has no deterministic kernel raises; otherwise it warns.
    """
    if device.type != "cuda":
        yield
        return
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", WORKSPACE)  # read when cuBLAS starts
    algorithms = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    with _set("ieee", "ieee", not deterministic, False):
        try:
            torch.use_deterministic_algorithms(deterministic, warn_only=not strict)
            yield
        finally:
            torch.use_deterministic_algorithms(algorithms[0], warn_only=algorithms[1])


def exact_float32(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Return the context in which float32 means float32 on a GPU, as `numerics` does, and nothing else is changed."""
    return _set("ieee", "ieee") if device.type == "cuda" else contextlib.nullcontext()


def kernel_settings() -> tuple[object, ...]:
    """Return the process-wide settings by which a GPU's kernels are chosen."""
    return torch.are_deterministic_algorithms_enabled(), *(getattr(owner, name) for owner, name in _SETTINGS)


def precision(kind: Precision, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Return the context in which networks run: autocast for bfloat16, nothing for float32.

    On a GPU weights are cast at each use, so that a captured step casts them as they are at its replay, and the
    gradients of several forwards add up in float32.
    """
    if kind == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=device.type != "cuda")


def memory_format(device: torch.device) -> torch.memory_format:
    """Return the layout of images and kernels: channels last on a GPU, whose bf16 convolutions are faster so.

    On a CPU nothing that differentiates weights may use channels last. Measured with torch 2.15.0: on a processor with
    AVX2 but without AVX-512 (or with ONEDNN_MAX_CPU_ISA=AVX2) the weight gradient of a 1 x 1 convolution with stride 2
    and 2 to 6 input channels writes past its buffer there. Outputs, input gradients and all other shapes are right, in
    bfloat16 too: `attack_sweep`, which differentiates frozen networks, may use it.
    """
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format


def to_memory_format(x: Tensor) -> Tensor:
    """Return images (B, C, H, W) in the layout of their device; the same tensor on a CPU."""
    return x.contiguous(memory_format=torch.channels_last) if x.device.type == "cuda" else x


@contextlib.contextmanager
def _set(*values: object) -> Iterator[None]:
    """Give the first of `_SETTINGS` these values, and give the old ones back."""
    before = [getattr(owner, name) for owner, name in _SETTINGS]
    try:
        for (owner, name), value in zip(_SETTINGS, values, strict=False):
            setattr(owner, name, value)
        yield
    finally:
        for (owner, name), value in zip(_SETTINGS, before[: len(values)], strict=False):
            setattr(owner, name, value)
