"""How fast a device runs a network, for estimates of time."""

import time

import torch

from ssrob.config.fields import Precision
from ssrob.hardware.device import device_of, precision
from ssrob.models.network import Architecture, build

SECONDS = 0.5  # that are measured, after one round in which kernels are selected


def passes_per_second(
    architecture: Architecture, *, device: str = "auto", batch_size: int = 128, kind: Precision = "float32"
) -> float:
    """Return the passes of one image a second: rounds of a forward and an input gradient, two passes an image.

    It runs with the process's number of threads, and draws nothing from the global generator.
    """
    place = device_of(device)
    network = build(architecture, 0).to(place).requires_grad_(False).eval()
    x = torch.full((batch_size, *architecture.shape), 0.5, device=place, requires_grad=True)

    def rounds(seconds: float) -> tuple[int, float]:
        count, began = 0, time.perf_counter()
        while count == 0 or time.perf_counter() - began < seconds:
            with precision(kind, place):
                loss = network(x).float().square().sum()
            float(torch.autograd.grad(loss, x)[0].sum())  # waits for the device
            count += 1
        return count, time.perf_counter() - began

    rounds(0.0)
    count, seconds = rounds(SECONDS)
    return 2 * batch_size * count / seconds
