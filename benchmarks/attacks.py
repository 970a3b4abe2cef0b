"""What an attack and a sweep cost, against their floors and against another library. Run: python benchmarks/attacks.py

PGD-20 is timed beside its floor (20 forwards and input gradients with frozen parameters) and foolbox, interleaved
so that a busy machine disturbs all alike. The sweep's gradients are counted, not timed.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import foolbox
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from ssrob.attacks.freeze import frozen
from ssrob.attacks.geometry import GEOMETRIES
from ssrob.attacks.pgd import pgd
from ssrob.attacks.presets import AttackConfig, AttackPlan
from ssrob.attacks.sweep import attack_sweep
from ssrob.seeding import generator
from torch import Tensor, nn

EPS, STEPS = 8 / 255, 20


class Residual(nn.Module):
    """Two 3x3 convolutions with a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()),
            *(nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)),
        )
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


def resnet(width: int) -> nn.Module:
    """A small residual network for 32x32 images with random weights: the time does not depend on them."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        blocks = [Residual(width * i, width * o, s) for i, o, s in ((1, 1, 1), (1, 2, 2), (2, 4, 2), (4, 8, 2))]
        stem = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        return nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8 * width, 10)).eval()


def contestants(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Callable[[], object]]:
    """Return what is timed; all of it attacks the same images with the same number of steps."""

    def loss_at(z: Tensor) -> Tensor:
        return F.cross_entropy(model(z), y, reduction="none")

    def floor() -> None:
        with frozen(model):
            for _ in range(STEPS):
                point = x.clone().requires_grad_()
                torch.autograd.grad(loss_at(point).sum(), point)

    def ours() -> Tensor:
        with frozen(model):
            return pgd(
                loss_at,
                x,
                geometry=GEOMETRIES["linf"],
                eps=EPS,
                steps=STEPS,
                step_size=2.5 * EPS / STEPS,
                generator=generator(0, "benchmark"),
            )

    plan = AttackPlan((AttackConfig("pgd", "cross_entropy", STEPS),))
    theirs = foolbox.attacks.LinfPGD(steps=STEPS, rel_stepsize=2.5 / STEPS)
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=x.device)
    return {
        "floor": floor,
        "ssrob pgd": ours,
        "ssrob sweep": lambda: attack_sweep(model, x, y, eps=[EPS], preset=plan, batch_size=len(x)),
        "foolbox LinfPGD": lambda: theirs(wrapped, x, y, epsilons=EPS),
    }


def interleaved(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Time all in turn, `rounds` times after one warm-up; seconds."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def robust_digits_cnn(epochs: int = 6) -> tuple[nn.Module, Tensor, Tensor]:
    """Train a CNN adversarially for seconds; return it with 200 digits that it has not seen."""
    bunch = load_digits()
    x, y = torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 16, torch.tensor(bunch.target)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        convolutions = nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU()
        model = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(512, 10))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for epoch in range(epochs):
        for rows in torch.randperm(len(x) - 200, generator=generator(0, "order", epoch)).split(64):

            def loss_at(z: Tensor, labels: Tensor = y[rows]) -> Tensor:
                return F.cross_entropy(model(z), labels, reduction="none")

            with frozen(model):
                adv = pgd(loss_at, x[rows], geometry=GEOMETRIES["linf"], eps=0.2, steps=4, step_size=0.1)
            optimizer.zero_grad()
            loss_at(adv).mean().backward()
            optimizer.step()
    return model.eval(), x[-200:], y[-200:]


def count_gradients() -> None:
    """Print the gradients of one sweep, of a sweep per eps, and of whole attacks per eps."""
    model, x, y = robust_digits_cnn()
    eps = [0.04 * k for k in range(1, 9)]
    plan = AttackPlan((AttackConfig("pgd", "cross_entropy", STEPS), AttackConfig("pgd", "margin", STEPS)))
    together = attack_sweep(model, x, y, eps=eps, preset=plan)
    apart = [attack_sweep(model, x, y, eps=[value], preset=plan) for value in eps]
    whole = 2 * STEPS * len(eps) * len(x)
    print(f"sweep of {len(eps)} eps, PGD-{STEPS} on two losses, {len(x)} digits")
    for name, spent in (
        ("one sweep", together.gradients),
        ("a sweep per eps", sum(result.gradients for result in apart)),
        ("whole attacks per eps", whole),
    ):
        print(f"{name:24s}{spent:8d} gradients {spent / whole:6.2f}")
    curve = " ".join(f"{100 * float(value):.1f}" for value in together.accuracy)
    single = " ".join(f"{100 * float(result.accuracy[0]):.1f}" for result in apart)
    print(f"accuracy of the sweep: {curve}\nof single runs:        {single}")


def main() -> None:
    """Time and count on a random network, labelled by itself."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--width", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = resnet(options.width).to(device)
    x = torch.rand(options.images, 3, 32, 32, generator=generator(0, "images")).to(device)
    with torch.no_grad():
        y = model(x).argmax(1)
    seconds = interleaved(contestants(model, x, y), options.rounds)
    print(f"PGD-{STEPS}, {options.images} images, width {options.width}, {device}, n = {options.rounds} rounds")
    for name, times in seconds.items():
        ratios = [a / b for a, b in zip(times, seconds["floor"], strict=True)]
        low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
        print(f"{name:24s}{statistics.median(times):8.3f} s  x floor {middle:5.2f} ({low:.2f} to {high:.2f})")
    count_gradients()


if __name__ == "__main__":
    main()
