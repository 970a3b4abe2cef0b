"""Robust accuracy that each preset and each reference leaves, on trained models and on a linear one.

    python benchmarks/strength.py --data results/stages/data/KEY results/stages/finetune/KEY...

`fast` and `standard` beside PGD-50 of foolbox and torchattacks; `strong` (without its black-box attack, which has a row
of its own) beside APGD-CE and APGD-T by AutoAttack's authors; then what FAB-T and Square break of what `strong` left at
the reference eps. The linear model's distances are known in closed form. Needs the extras `dev` and `benchmarks`.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from ssrob.attacks.autoattack import autoattack_sweep
from ssrob.attacks.lp_ball import GEOMETRIES
from ssrob.attacks.result import SweepResult
from ssrob.attacks.sweep import attack_sweep
from ssrob.models.serialization import load_network
from ssrob.registry.presets import PRESETS, AttackPlan
from ssrob.stages.evaluate import load_test
from ssrob.storage.tables import accuracy_table
from torch import Tensor, nn

from peers import pgd_attacks

REFERENCE = 8 / 255
EPS = (4 / 255, REFERENCE, 16 / 255)
WHITE_BOX, BLACK_BOX = AttackPlan(PRESETS["strong"].attacks[:-1]), AttackPlan(PRESETS["strong"].attacks[-1:])


class Data(NamedTuple):
    """Images (N, C, H, W) in [0, 1], labels (N,), and their numbers (N,)."""

    x: Tensor
    y: Tensor
    rows: Tensor

    def of(self, keep: Tensor) -> "Data":
        return Data(*(part[keep] for part in self))


class Measured(NamedTuple):
    """Which images withstand each eps, (E, N) bool, and what it cost: passes per image, processor seconds."""

    robust: Tensor
    gradients: int
    forwards: int
    seconds: float


Sweep = Callable[[Data, list[float]], SweepResult]


def ours(model: nn.Module, preset: str | AttackPlan) -> Sweep:
    return lambda data, eps: attack_sweep(model, data.x, data.y, index=data.rows, eps=eps, preset=preset)


def reference(model: nn.Module, *attacks: str) -> Sweep:
    return lambda data, eps: autoattack_sweep(model, data.x, data.y, eps=eps, attacks=attacks)


def measured(sweep: Sweep, data: Data, eps: tuple[float, ...] = EPS) -> Measured:
    """Run the reference eps and above on all images, and those below only on what broke: balls are nested."""
    began = time.process_time()
    upper = sweep(data, [value for value in eps if value >= REFERENCE])
    found, robust = [upper], upper.robust
    if min(eps) < REFERENCE:
        broken = ~upper.robust[0]
        below = robust.new_ones((sum(value < REFERENCE for value in eps), len(data.x)))
        found.append(sweep(data.of(broken), [value for value in eps if value < REFERENCE]))
        below[:, broken] = found[1].robust
        robust = torch.cat([below, robust])
    spent = [sum(getattr(result, name) for result in found) for name in ("gradients", "forwards")]
    return Measured(robust, *spent, time.process_time() - began)


def peer(model: nn.Module, attack: Callable[..., Tensor], data: Data, steps: int) -> Measured:
    """Run a library's attack at each eps on the images that are classified right; the others are broken anyway."""
    began = time.process_time()
    right = classified_right(model, data)
    robust = torch.zeros((len(EPS), len(data.x)), dtype=torch.bool)
    for row, eps in enumerate(EPS):
        adv = attack(model, data.x[right], data.y[right], eps).detach()
        assert float((adv - data.x[right]).abs().max()) <= eps + 1e-5
        robust[row, right] = classified_right(model, data.of(right)._replace(x=adv.clamp(0, 1)))
    return Measured(robust, steps * len(EPS) * int(right.sum()), 0, time.process_time() - began)


@torch.no_grad()
def classified_right(model: nn.Module, data: Data) -> Tensor:
    return torch.cat([model(x).argmax(1) for x in data.x.split(256)]) == data.y


def show(name: str, found: Measured, data: Data, against: Measured | None = None) -> None:
    """Print accuracy in per cent with its binomial interval at each eps, and the difference to another row."""
    rows = accuracy_table(np.array(EPS), found.robust.numpy()).itertuples()
    cells = [f"{100 * row.accuracy:5.1f} ({100 * row.low:4.1f}-{100 * row.high:4.1f})" for row in rows]
    if against is not None:
        cells = [
            f"{cell} {100 * float(mine - theirs):+.1f}"
            for cell, mine, theirs in zip(
                cells, found.robust.double().mean(1), against.robust.double().mean(1), strict=True
            )
        ]
    cost = f"{found.gradients / len(data.x):8.0f} {found.forwards / len(data.x):8.0f} {found.seconds:7.0f} s"
    print(f"{name:24s}" + "  ".join(cells) + cost, flush=True)


def compare(model: nn.Module, data: Data, black_box: bool) -> None:
    """Print the table of one model."""
    peers = {f"{name} PGD-50": peer(model, run, data, 50) for name, run in pgd_attacks(50).items() if name != "art"}
    for name, found in peers.items():
        show(name, found, data)
    best = min(peers.values(), key=lambda found: int(found.robust.sum()), default=None)
    for name in ("fast", "standard"):
        show(name, measured(ours(model, name), data), data, best)
    theirs = measured(reference(model, "apgd-ce", "apgd-t"), data)
    show("APGD-CE + APGD-T", theirs, data)
    strong = measured(ours(model, WHITE_BOX), data)
    show("strong, white box", strong, data, theirs)
    left = data.of(strong.robust[EPS.index(REFERENCE)])
    further = {"FAB-T": reference(model, "fab-t")} | ({"Square": ours(model, BLACK_BOX)} if black_box else {})
    for name, sweep in further.items():
        found = measured(sweep, left, (REFERENCE,))
        print(
            f"{name} breaks {int((~found.robust).sum())} of the {len(left.x)} that strong left, {found.seconds:.0f} s"
        )


class Linear(nn.Module):
    """A linear classifier in float64, so that distances in closed form hold to the last verdict."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight.double()), nn.Parameter(bias.double())

    def forward(self, x: Tensor) -> Tensor:
        return x.double().flatten(1) @ self.weight.T + self.bias


def linear() -> None:
    """Print the accuracy of each preset beside the closed form, on digits that a linear classifier has not seen.

    Grey levels lie in 0.35..0.65, so that no perturbation up to 0.35 meets the box, which the closed form ignores.
    """
    digits = load_digits()
    images = 0.35 + 0.3 * digits.images / 16
    fitted = LogisticRegression(C=1000, max_iter=1000).fit(images[:1297].reshape(-1, 64), digits.target[:1297])
    model = Linear(torch.from_numpy(fitted.coef_), torch.from_numpy(fitted.intercept_)).eval()
    x, y = torch.tensor(images[1297:, None]).float(), torch.tensor(digits.target[1297:])
    logits, weight = model(x).detach(), model.weight.detach()
    gaps = logits.gather(1, y[:, None]) - logits
    for norm, eps in (("linf", [0.003, 0.01, 0.02, 0.03]), ("l2", [0.02, 0.06, 0.1, 0.15])):
        lengths = torch.stack([GEOMETRIES[norm].dual_norm(weight[label] - weight) for label in y.tolist()])
        distance = (gaps / lengths.clamp_min(1e-12)).scatter(1, y[:, None], torch.inf).amin(1)
        known = (distance > torch.tensor(eps, dtype=torch.float64)[:, None]).double().mean(1)
        print(f"linear, {len(x)} digits, {norm} at {eps}\n{'closed form':24s}{per_cent(known)}")
        for name in ("fast", "standard", "strong"):
            found = attack_sweep(model, x, y, norm=norm, eps=eps, preset=WHITE_BOX if name == "strong" else name)
            print(f"{name:24s}{per_cent(found.accuracy)}", flush=True)


def per_cent(shares: Tensor) -> str:
    return "  ".join(f"{100 * float(share):5.1f}" for share in shares)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path, nargs="*", help="folders of trained networks")
    parser.add_argument("--data", type=Path, help="folder of their data stage")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--black-box", action="store_true", help="Square on what strong left, too (slow)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    linear()
    for folder in options.models:
        model = load_network(folder / "best.safetensors").eval().to(memory_format=torch.channels_last)
        model.requires_grad_(False)
        data = Data(*load_test(options.data, options.images))
        clean = classified_right(model, data).double().mean()
        print(f"\n{folder.name}: {len(data.x)} images, {100 * float(clean):.1f} % clean; linf, eps x 255: 4, 8, 16;")
        print("then differences to the strongest peer, gradients and forwards per image, processor time")
        compare(model, data, options.black_box)


if __name__ == "__main__":
    main()
