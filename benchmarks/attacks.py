"""What an attack and a sweep cost, against their floors and other libraries.

    python benchmarks/attacks.py [--model results/stages/finetune/KEY --data results/stages/data/KEY]

Same loss, steps and restarts for all, one thread, interleaved (`timing.py`), one model as a study trains it: a folder
of its weights and of its data, or else a small network trained on digits for seconds. Five parts: PGD-20 at one eps,
beside its floor (20 forwards and input gradients with frozen parameters, in the layout the model has); PGD-20 over 8
eps, of images classified right; the two searches; a sweep of more and more images; and verdicts that depend on the
batch size. The extra `benchmarks` has the other libraries.
"""

import argparse
import itertools
import resource
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from ssrob.attacks.frozen import frozen
from ssrob.attacks.lp_ball import GEOMETRIES
from ssrob.attacks.steppers.pgd import pgd
from ssrob.attacks.sweep import attack_sweep
from ssrob.models.serialization import load_network
from ssrob.registry.presets import AttackConfig, AttackPlan
from ssrob.seeding import generator
from ssrob.stages.evaluate import load_test
from torch import Tensor, nn

from peers import pgd_attacks
from timing import interleaved, table

STEPS = 20
PLAN = AttackPlan((AttackConfig("pgd", "cross_entropy", STEPS),))
PARTS = ("one", "sweep", "search", "scaling", "batches")
Model = tuple[nn.Module, Tensor, Tensor, float]  # in eval mode, images it has not seen, labels, reference eps


def floor(model: nn.Module, x: Tensor, y: Tensor, dtype: torch.dtype) -> None:
    """STEPS forwards and input gradients, nothing else."""
    with frozen(model):
        for _ in range(STEPS):
            point = x.clone().requires_grad_()
            with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
                logits = model(point)
            torch.autograd.grad(F.cross_entropy(logits.float(), y, reduction="sum"), point)


def one_eps(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> dict[str, Callable[[], object]]:
    """PGD at one eps by everybody."""

    def ours(eps: float, gradients_in: str = "float32") -> Callable[[], object]:
        return lambda: attack_sweep(model, x, y, eps=[eps], preset=PLAN, batch_size=len(x), gradients_in=gradients_in)

    theirs = {name: lambda run=run: run(model, x, y, eps) for name, run in pgd_attacks(STEPS).items()}
    return {
        "floor": lambda: floor(model, x, y, torch.float32),
        "floor bfloat16": lambda: floor(model, x, y, torch.bfloat16),
        "ssrob": ours(eps),
        "ssrob bfloat16": ours(eps, "bfloat16"),
        "ssrob, none breaks": ours(1e-7),
        "ssrob bf16, none breaks": ours(1e-7, "bfloat16"),
        **theirs,
    }


def sweeps(model: nn.Module, x: Tensor, y: Tensor, eps: list[float]) -> None:
    """Time a sweep beside a run per eps by each library, and count gradients."""

    def whole(run: Callable[..., Tensor]) -> Callable[[], object]:
        return lambda: [run(model, x, y, value) for value in eps]

    settings = {"eps": eps, "preset": PLAN}
    runs: dict[str, Callable[[], object]] = {
        "ssrob": lambda: attack_sweep(model, x, y, **settings),
        "ssrob bfloat16": lambda: attack_sweep(model, x, y, **settings, gradients_in="bfloat16"),
        "ssrob ascending": lambda: attack_sweep(model, x, y, **settings, search="ascending"),
    }
    theirs = pgd_attacks(STEPS)
    runs |= {name: whole(theirs[name]) for name in theirs if name != "art"}
    rounds = 3
    print(f"\nPGD-{STEPS} over {len(eps)} eps, {len(x)} images, n = {rounds} rounds")
    table(interleaved(runs, rounds), [name for name in theirs if name != "art"])
    together = attack_sweep(model, x, y, **settings)
    apart = [attack_sweep(model, x, y, eps=[value], preset=PLAN) for value in eps]
    correct = int(together.clean_correct.sum())
    counts = {
        "one sweep": together.gradients,
        "a sweep per eps": sum(result.gradients for result in apart),
        "whole runs per eps, of images classified right": STEPS * len(eps) * correct,
        "whole runs per eps, of all images": STEPS * len(eps) * len(x),
    }
    for name, spent in counts.items():
        print(f"{name:48s}{spent:8d} gradients, one sweep is {together.gradients / spent:.2f} of it")
    for name, curve in (("one sweep", together.accuracy.tolist()), ("single", [float(r.accuracy[0]) for r in apart])):
        print(f"{name:12s}" + " ".join(f"{100 * value:5.1f}" for value in curve))
    for name, run in theirs.items():
        left = [robust(model, run(model, x, y, value), y) for value in eps]
        print(f"{name:12s}" + " ".join(f"{100 * value:5.1f}" for value in left), flush=True)


@torch.no_grad()
def robust(model: nn.Module, adv: Tensor, y: Tensor) -> float:
    return float((model(adv.detach()).argmax(1) == y).double().mean())


def searches(model: nn.Module, x: Tensor, y: Tensor, eps: list[float]) -> None:
    """Count gradients and processor seconds of both searches, and how far apart their curves are."""
    print(
        f"\nbracket against ascending, {len(eps)} eps, {len(x)} images: gradients, processor time, accuracy in points"
    )
    for norm, preset in itertools.product(("linf", "l2"), ("fast", "standard")):
        grid = eps if norm == "linf" else [value * 4 for value in eps]
        found, seconds = {}, {}
        for search in ("ascending", "bracket"):
            began = time.process_time()
            found[search] = attack_sweep(model, x, y, norm=norm, eps=grid, preset=preset, search=search)
            seconds[search] = time.process_time() - began
        spent = found["bracket"].gradients / found["ascending"].gradients
        points = 100 * (found["bracket"].accuracy - found["ascending"].accuracy)
        print(
            f"{norm:5s}{preset:10s}{spent:6.2f} x{seconds['bracket'] / seconds['ascending']:6.2f} x   "
            + " ".join(f"{value:+5.1f}" for value in points.tolist()),
            flush=True,
        )


def scaling(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> None:
    """Sweep more and more images; the small ones first, since a process never gives its peak memory back."""
    plan = AttackPlan((AttackConfig("pgd", "cross_entropy", 2),))
    print("\nsweep of PGD-2, batches of 256: images, processor ms per image, peak memory beyond the images (MB)")
    attack_sweep(model, x[:256], y[:256], eps=[eps], preset=plan)
    for count in (100, 1000, 10_000):
        images = x.repeat(1 + count // len(x), 1, 1, 1)[:count]
        labels = y.repeat(1 + count // len(x))[:count]
        began = time.process_time()
        attack_sweep(model, images, labels, eps=[eps], preset=plan)
        each = 1e3 * (time.process_time() - began) / count
        held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - images.nbytes / 2**20
        print(f"{count:6d}{each:8.2f}{held:10.0f}", flush=True)


def batches(model: nn.Module, x: Tensor, y: Tensor, eps: list[float]) -> None:
    """Count the verdicts that depend on the batch size, which changes how logits are rounded."""
    found = {size: attack_sweep(model, x, y, eps=eps, preset="fast", batch_size=size).robust for size in (256, 64, 17)}
    again = attack_sweep(model, x, y, eps=eps, preset="fast", batch_size=256).robust
    first = found.pop(256)
    print(
        f"\nverdicts of {first.numel()} that differ from those with batches of 256: again {int((again != first).sum())}"
    )
    for size, robust in found.items():
        print(f"batches of {size:3d}: {int((robust != first).sum())}", flush=True)


def trained(model: Path, data: Path, count: int) -> Model:
    """A network of a study, with its test images."""
    test = load_test(data, count)
    return load_network(model / "best.safetensors").eval(), test.x, test.y, 8 / 255


def robust_digits_cnn(epochs: int = 6) -> Model:
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
    return model.eval(), x[-200:], y[-200:], 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="folder of a trained network")
    parser.add_argument("--data", type=Path, help="folder of its data stage")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    given = options.model is not None and options.data is not None
    model, x, y, eps = trained(options.model, options.data, 512) if given else robust_digits_cnn()
    if "one" in options.parts:
        right = (right_rows(model, x, y))[: options.images]
        print(
            f"PGD-{STEPS}, {len(right)} images classified right, n = {options.rounds} rounds, torch {torch.__version__}"
        )
        timed = interleaved(one_eps(model, x[right], y[right], eps), options.rounds)
        table(timed, [name for name in ("floor", "torchattacks", "foolbox") if name in timed])
    if "sweep" in options.parts:
        right = right_rows(model, x, y)[: options.images]  # the libraries attack misclassified images, too
        sweeps(model, x[right], y[right], [eps * k / 4 for k in range(1, 9)])
    if "search" in options.parts:
        searches(model, x, y, [eps * k / 4 for k in range(1, 9)])
    if "scaling" in options.parts:
        scaling(model, x, y, eps)
    if "batches" in options.parts:
        batches(model, x, y, [eps * k / 4 for k in range(1, 9)])


@torch.no_grad()
def right_rows(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return (model(x).argmax(1) == y).nonzero().squeeze(1)


if __name__ == "__main__":
    main()
