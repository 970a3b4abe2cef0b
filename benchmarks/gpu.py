"""What a step of adversarial training costs on this device: against its ceilings, its floor and a plain loop.

    python benchmarks/gpu.py                    a few minutes on one GPU
    python benchmarks/gpu.py --small            tiny networks in seconds, on a CPU too
    python benchmarks/gpu.py --compile          torch.compile as well (minutes more)
    python benchmarks/gpu.py --json FILE        the same numbers for programs

Ceilings are measured: copy bandwidth and bf16 matrix products. Model FLOPs per image: 2 forwards for an attack step, 3
for the training step. The floor of a step is those passes alone, timed bare in the same precision and layout. The plain
loop is what is usually written: float32 as torch comes, a DataLoader, `loss.backward()` in the attack too, and a look
at the loss after every step. Needs torch, torchvision, numpy and pydantic alone; images and weights are random.
"""

import argparse
import itertools
import json
import platform
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from ssrob.attacks.frozen import frozen
from ssrob.config.training import Model, Training
from ssrob.data.loader import Batches
from ssrob.hardware.cuda_graphs import CudaGraphs, GraphedStep, Tensors
from ssrob.hardware.device import memory_format, numerics, precision, to_memory_format
from ssrob.models.network import Architecture, Network, build
from ssrob.planning.specs import Objective, Perturbation, TrainSpec
from ssrob.training.train_step import GRADIENT, as_tensors, compute_gradients, from_tensors, sample_batch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms import v2

EPS, STEP = 8 / 255, 2 / 255
Step = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """One network and how it is trained."""

    name: str
    model: Model
    batch: int
    size: int = 32  # pixels
    steps: int = 10  # of the attack
    images: int = 50_000
    repeats: int = 10  # timed steps


FULL = [
    Case("preactresnet18", Model(name="preactresnet18"), 512),
    Case("wideresnet-34-10", Model(name="wideresnet"), 256, repeats=4),
]
SMALL = [
    Case("resnet8", Model(name="resnet", depth=8, width=8), 32, 16, 3, 128, 3),
    Case("wideresnet-10-1", Model(name="wideresnet", depth=10, width=1), 32, 16, 3, 128, 3),
]


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Run, print a table, and return everything that was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args(arguments)
    device = torch.device(asked.device)
    results: dict[str, Any] = about(device) | ceilings(device, 512 if asked.small else 8192)
    results["cases"] = [
        measure(case, device, results["bf16_flops"], asked.compile) for case in (SMALL if asked.small else FULL)
    ]
    print(table(results))
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=2) + "\n")
    return results


def about(device: torch.device) -> dict[str, Any]:
    """Return what this was run on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    date = time.strftime("%Y-%m-%d", time.gmtime())
    return {
        "device": f"{device.type}: {name}",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "date": date,
    }


def ceilings(device: torch.device, size: int) -> dict[str, float]:
    """Measure bytes per second of a copy (read and written) and the rate of size x size bf16 matrix products."""
    source = torch.zeros(2 * size * size, device=device)
    copy = fastest(lambda: torch.empty_like(source).copy_(source), device, 20)
    a, b = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
    product = fastest(lambda: a @ b, device, 20)
    return {"copy_bytes": 2 * 4 * source.numel() / copy, "bf16_flops": 2 * size**3 / product}


def measure(case: Case, device: torch.device, ceiling: float, with_compile: bool) -> dict[str, Any]:
    """Time every way of taking a step of one case."""
    flops = forward_flops(case) * case.batch * (2 * case.steps + 3)
    ways: dict[str, tuple[bool, Callable[[], Step]]] = {"ours": (True, lambda: ours(case, device))}
    if device.type == "cuda":
        ways["not deterministic"] = (False, lambda: ours(case, device))
        ways["launched one by one"] = (True, lambda: ours(case, device, graphs=False))
    if with_compile:
        ways["compiled"] = (True, lambda: ours(case, device, compiled=True))
    rows = {}
    with numerics(device):
        least = floor(case, device)
    for name, (deterministic, make) in ways.items():
        with numerics(device, deterministic=deterministic):
            rows[name] = timed(make(), case, device)
    rows["plain loop"] = timed(plain(case, device), case, device)
    for row in rows.values():
        row |= {"images_per_second": case.batch / row["seconds"], "of_bf16": flops / row["seconds"] / ceiling}
        row |= {"over_floor": row["seconds"] / least, "of_plain": rows["plain loop"]["seconds"] / row["seconds"]}
    sizes = {"batch": case.batch, "attack_steps": case.steps, "pixels": case.size}
    return {"name": case.name, **sizes, "flops": flops, "floor_seconds": least, "rows": rows}


def forward_flops(case: Case) -> int:
    """Count the FLOPs of one image's forward pass, two per multiplication and addition."""
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        network_of(case)(torch.zeros(1, 3, case.size, case.size))
    return counted.get_total_flops()


def network_of(case: Case) -> Network:
    """Return the network of a case with random weights, on the CPU."""
    row, shape = case.model, (3, case.size, case.size)
    return build(Architecture(row.name, row.arguments, shape, [0.5] * 3, [0.25] * 3, {"class": 10}), seed=0)


def data_of(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Return random images (N, H, W, 3) uint8 and labels (N,)."""
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (case.images, case.size, case.size, 3), dtype=np.uint8)
    return pixels, draw.integers(0, 10, case.images)


def ours(case: Case, device: torch.device, *, graphs: bool = True, compiled: bool = False) -> Step:
    """Return the training step of `ssrob.training.train`, without records and validation."""
    attack = Perturbation(maximise={"xent": 1.0}, norm="linf", eps=EPS, steps=case.steps, step_size=STEP)
    objective = Objective(perturb={"adv": attack}, train={"adv": {"xent": 1.0}})
    training = Training(batch_size=case.batch, augment=["crop", "flip"], precision="bfloat16")
    spec = TrainSpec(data="random", variant="at", seed=0, model=case.model, objective=objective, training=training)
    network = network_of(case).to(device=device, memory_format=memory_format(device))  # type: ignore[call-overload]
    if compiled:
        network.backbone.compile(dynamic=False)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, 0.9, nesterov=True, fused=device.type == "cuda" or None)
    batches, numbers = Batches(*data_of(case), case.batch, 0, device), itertools.count()
    compute = GraphedStep(
        lambda tensors: compute_gradients(network, spec, from_tensors(tensors)),
        lambda: [*network.parameters(), *network.buffers()],
        CudaGraphs(device) if graphs and device.type == "cuda" else None,
    )

    def step() -> None:
        number = next(numbers)
        x, y, _ = batches.at(number)
        found = compute(as_tensors(sample_batch(spec, x, y, number)))
        for name, parameter in network.named_parameters():
            parameter.grad = found.get(GRADIENT + name)
        optimizer.step()

    return step


def floor(case: Case, device: torch.device) -> float:
    """Return the seconds of a step's passes alone: so many input gradients and one gradient of the weights."""
    network = network_of(case).to(device=device, memory_format=memory_format(device))  # type: ignore[call-overload]
    x = to_memory_format(torch.rand(case.batch, 3, case.size, case.size, device=device))
    y = torch.zeros(case.batch, dtype=torch.int64, device=device)

    def passes(training: bool) -> Tensors:
        point = x.detach().requires_grad_(not training)
        with precision("bfloat16", device):
            loss = F.cross_entropy(network(point), y)
        over = list(network.parameters()) if training else [point]
        return dict(zip(map(str, range(len(over))), torch.autograd.grad(loss, over), strict=True))

    def seconds(training: bool) -> float:
        backend = CudaGraphs(device) if device.type == "cuda" else None
        compute = GraphedStep(lambda _: passes(training), lambda: [], backend)
        return fastest(lambda: compute({}), device, case.repeats)

    train = seconds(training=True)
    with frozen(network):
        return train + case.steps * seconds(training=False)


class Augmented(Dataset[tuple[Tensor, int]]):
    """Images as a DataLoader takes them: one by one, cropped and flipped on the CPU."""

    def __init__(self, pixels: np.ndarray, labels: np.ndarray):
        self.images, self.labels = torch.from_numpy(pixels).permute(0, 3, 1, 2), labels
        crop = v2.RandomCrop(pixels.shape[1], padding=4)
        self.change = v2.Compose([crop, v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True)])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        return self.change(self.images[row]), int(self.labels[row])


def plain(case: Case, device: torch.device) -> Step:
    """Return the step of a plain loop: see the head of this file."""
    model: nn.Module = network_of(case).to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    workers = 8 if device.type == "cuda" else 0
    loader = DataLoader(
        Augmented(*data_of(case)), case.batch, shuffle=True, num_workers=workers, pin_memory=workers > 0, drop_last=True
    )

    def endless() -> Iterator[Any]:
        while True:
            yield from loader

    source, losses = endless(), []

    def step() -> None:
        x, y = (tensor.to(device) for tensor in next(source))
        adv = (x + torch.empty_like(x).uniform_(-EPS, EPS)).clamp(0, 1)
        for _ in range(case.steps):
            adv.requires_grad_()
            loss = F.cross_entropy(model(adv), y)
            loss.backward()
            losses.append(loss.item())
            assert adv.grad is not None
            moved = adv.detach() + STEP * adv.grad.sign()
            adv = torch.min(torch.max(moved, x - EPS), x + EPS).clamp(0, 1)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(adv), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    return step


def timed(step: Step, case: Case, device: torch.device) -> dict[str, Any]:
    """Return seconds per step, peak memory in bytes, and on a GPU the share of the time in which it was idle."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    for _ in range(4):  # two warm-ups, a recording, a replay
        step()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = elapsed(step, device, case.repeats) / case.repeats
    if device.type != "cuda":
        return {
            "seconds": seconds,
            "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
            "idle": None,
        }
    peak = torch.cuda.max_memory_reserved(device)  # a recording's memory is reserved, not allocated anew
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profiled:
        wall = elapsed(step, device, 3)
    busy = sum(event.self_device_time_total for event in profiled.key_averages()) / 1e6
    return {"seconds": seconds, "peak_bytes": peak, "idle": max(0.0, 1 - busy / wall)}


def fastest(function: Step, device: torch.device, repeats: int) -> float:
    """Return the seconds of the fastest of some calls, after a few untimed ones."""
    for _ in range(4):
        function()
    return min(elapsed(function, device, 1) for _ in range(repeats))


def elapsed(function: Step, device: torch.device, calls: int) -> float:
    """Return the seconds of so many calls, from an idle device to an idle device."""
    synchronise(device)
    began = time.perf_counter()
    for _ in range(calls):
        function()
    synchronise(device)
    return time.perf_counter() - began


def synchronise(device: torch.device) -> None:
    """Wait for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def table(results: dict[str, Any]) -> str:
    """Return the numbers as text."""
    lines = [f"{results['device']}, {results['threads']} threads, torch {results['torch']}, {results['date']}"]
    copy, matrices = results["copy_bytes"] / 1e9, results["bf16_flops"] / 1e12
    lines += [f"ceilings: copy {copy:.4g} GB/s, bf16 matrices {matrices:.4g} TFLOP/s"]
    for case in results["cases"]:
        size = f"batch {case['batch']}, {case['pixels']} pixels, PGD-{case['attack_steps']}"
        lines += [
            "",
            f"{case['name']}, {size}: {case['flops'] / 1e12:.4g} TFLOP, floor {1e3 * case['floor_seconds']:.4g} ms",
        ]
        lines += [f"{'':22}{'ms':>9}{'images/s':>10}{'of bf16':>9}{'/ floor':>9}{'x plain':>9}{'MB':>8}{'idle':>7}"]
        for name, row in case["rows"].items():
            idle = "-" if row["idle"] is None else f"{row['idle']:.1%}"
            ratios = f"{row['of_bf16']:9.1%}{row['over_floor']:9.2f}{row['of_plain']:9.2f}"
            speed = f"{1e3 * row['seconds']:9.4g}{row['images_per_second']:10.4g}"
            lines += [f"{name:22}{speed}{ratios}{row['peak_bytes'] / 1e6:8.0f}{idle:>7}"]
        if free := case["rows"].get("not deterministic"):
            lines += [f"determinism costs {case['rows']['ours']['seconds'] / free['seconds'] - 1:+.1%}"]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
