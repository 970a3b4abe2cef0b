"""Timing side by side: everything in turn, many times, so that a busy machine disturbs all alike."""

import statistics
import time
from collections.abc import Callable, Mapping

import torch


def interleaved(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Time all in turn, `rounds` times after one warm-up: processor seconds, on a GPU seconds of the clock."""
    gpu = torch.cuda.is_available()
    clock = time.perf_counter if gpu else time.process_time
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            start = clock()
            run()
            if gpu:
                torch.cuda.synchronize()
            if turn:
                seconds[name].append(clock() - start)
    return seconds


def ratio(seconds: Mapping[str, list[float]], name: str, base: str) -> str:
    """Write the median ratio of two that were timed in the same rounds, with its range."""
    ratios = [a / b for a, b in zip(seconds[name], seconds[base], strict=True)]
    return f"{statistics.median(ratios):5.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def table(seconds: Mapping[str, list[float]], bases: list[str]) -> None:
    """Print median seconds and the ratios to each of `bases`."""
    print(f"{'':26s}{'s':>8s}  " + "".join(f"{'x ' + base:24s}" for base in bases))
    for name, times in seconds.items():
        cells = "".join(f"{ratio(seconds, name, base):24s}" for base in bases)
        print(f"{name:26s}{statistics.median(times):8.3f}  {cells}", flush=True)
