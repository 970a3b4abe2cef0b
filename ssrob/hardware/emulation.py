"""Whether a device computes in bfloat16 natively: measured, since what a processor says of itself is no speed.

A CPU without bfloat16 instructions emulates them, which takes several times as long as float32 instead of half as long.
"""

import functools
import statistics
import time

import torch
from torch import nn

SLOWER = 1.1  # bfloat16 that takes this much longer than float32 gains nothing
BATCH, CHANNELS, SIDE = 16, 32, 16  # of the network that is timed: a fraction of a second, emulated


def emulation_warning(settings: list[str], device: torch.device) -> str:
    """Say in one line that bfloat16 is emulated on a device, by how much, and what to set; empty where it is not.

    settings: names of the settings that ask for bfloat16, such as ``finetune.precision``; empty if none does.
    """
    if not settings or device.type != "cpu" or (times := bfloat16_time()) < SLOWER:
        return ""
    capability, names = torch.backends.cpu.get_cpu_capability(), ", ".join(f"{name}: float32" for name in settings)
    return f"bfloat16 is emulated on this CPU ({capability}) and takes {times:.2g} x as long as float32; set {names}"


@functools.cache
def bfloat16_time() -> float:
    """Return how long bfloat16 takes on this CPU, in times of float32: processor time of a few convolutions.

    The median of three forward and backward passes on one thread, after one that selects kernels.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _seconds(torch.bfloat16) / _seconds(torch.float32)
    finally:
        torch.set_num_threads(threads)


def _seconds(dtype: torch.dtype) -> float:
    layers = [nn.Conv2d(3 if n == 0 else CHANNELS, CHANNELS, 3, padding=1, device="meta") for n in range(3)]
    network = nn.Sequential(*layers).to_empty(device="cpu")
    for parameter in network.parameters():  # no draw: nothing below the stages touches the global generator
        nn.init.constant_(parameter, 0.01)
    x, times = torch.full((BATCH, 3, SIDE, SIDE), 0.5, requires_grad=True), []
    for _ in range(4):
        began = time.thread_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = network(x).float().square().mean()
        torch.autograd.grad(loss, [x, *network.parameters()])
        times.append(time.thread_time() - began)
    return statistics.median(times[1:])
