"""Signs that a robustness number is not to be trusted; after the flags of AutoAttack (Croce & Hein 2020)."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from ssrob.attacks.freeze import frozen
from ssrob.attacks.logit_losses import UNTARGETED
from ssrob.attacks.presets import AttackConfig, AttackPlan
from ssrob.attacks.stepper import loss_and_gradient
from ssrob.attacks.sweep import SweepResult, attack_sweep

CHECKS = (
    "randomised",
    "softmax",
    "zero_gradient",
    "square_stronger",
    "not_monotone",
    "sweep_weaker",
    "constant",
    "large_eps",
)
FORWARDS = 5  # of the same images, to see whether the model draws at random
SQUARE_AHEAD = 0.002  # share of images that only Square may break
NOISE = 2.0  # standard errors of a paired difference that count as noise


@dataclass(frozen=True)
class Flag:
    """One thing that looks wrong: a name to filter by, and a sentence with the numbers."""

    name: str
    message: str


@dataclass(frozen=True)
class _Audit:
    """A subset of what a sweep attacked, with what it found there."""

    model: nn.Module
    images: Tensor
    labels: Tensor
    rows: Tensor
    result: SweepResult
    plan: str | AttackPlan
    seed: int

    def attack(self, eps: list[float], plan: str | AttackPlan) -> Tensor:
        """Attack the subset by itself; return robust, (E, N) bool."""
        found = attack_sweep(
            self.model,
            self.images,
            self.labels,
            norm=self.result.norm,
            eps=eps,
            preset=plan,
            seed=self.seed,
            index=self.rows,
        )
        return found.robust


def check(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    result: SweepResult,
    *,
    preset: str | AttackPlan = "standard",
    seed: int = 0,
    audit: int = 200,
    queries: int = 1000,
) -> list[Flag]:
    """Return what speaks against `result`, a sweep of these images; an empty list is good.

    images (N, C, H, W) in [0, 1], labels (N,). Attacks `audit` of them again, evenly spread: at each eps by
    itself with the preset, with `queries` of Square at one eps, and in l-inf at eps = 1.
    """
    rows = torch.arange(len(images))[:: max(1, len(images) // audit)]
    device = next(model.parameters(), images).device
    with frozen(model):
        subset = _Audit(model, images[rows].to(device), labels[rows].to(device), rows, result, preset, seed)
        return [
            *_outputs(subset),
            *_gradients(subset),
            *_black_box(subset, queries),
            *_independent(subset),
            *_large_eps(subset),
        ]


def _outputs(audit: _Audit) -> Iterator[Flag]:
    with torch.no_grad():
        first, *others = (audit.model(audit.images) for _ in range(FORWARDS))
    spread = max(float((other - first).abs().max()) for other in others)
    if spread > 0:
        yield Flag("randomised", f"logits of the same images differ by up to {spread:.2g}")
    if bool((first >= 0).all()) and bool(((first.sum(1) - 1).abs() < 1e-3).all()):
        yield Flag("softmax", "the outputs are probabilities, not logits: gradients of cross-entropy vanish")


def _gradients(audit: _Audit) -> Iterator[Flag]:
    for name in ("cross_entropy", "margin"):

        def loss_at(x: Tensor, name: str = name) -> Tensor:
            return UNTARGETED[name](audit.model(x).float(), audit.labels)

        _, gradient = loss_and_gradient(loss_at, audit.images)
        zero = float((gradient.flatten(1) == 0).all(1).double().mean())
        if zero > 0:
            yield Flag("zero_gradient", f"the {name} gradient is exactly 0 at {zero:.1%} of the clean images")


def _black_box(audit: _Audit, queries: int) -> Iterator[Flag]:
    """Square must not break what the attacks before it left, at the largest eps that leaves half or more."""
    result = audit.result
    half = result.clean_correct.double().mean() / 2
    where = max(0, int((result.accuracy >= half).sum()) - 1)
    eps, robust = float(result.eps[where]), result.robust[where, audit.rows]
    square = audit.attack([eps], AttackPlan((AttackConfig("square", "margin", queries),)))[0]
    more = int((robust & ~square).sum())
    if more > max(1.0, SQUARE_AHEAD * len(robust)):
        yield Flag("square_stronger", f"Square breaks {more} of {len(robust)} images more at eps {eps:.4g}")
    alone = sum(name.startswith("square") for name in result.attack)
    if alone > max(1.0, SQUARE_AHEAD * len(result.attack)):
        yield Flag("square_stronger", f"only Square broke {alone} of {len(result.attack)} images")


def _independent(audit: _Audit) -> Iterator[Flag]:
    """Attack each eps without knowing the others: the raw curve must fall, and not lie below the sweep's."""
    eps = audit.result.eps.tolist()
    raw = torch.cat([audit.attack([value], audit.plan) for value in eps])
    for (low, before), (high, after) in pairwise(zip(eps, raw, strict=True)):
        if _beyond_noise(after, before):
            rise = int(after.sum() - before.sum())
            yield Flag("not_monotone", f"{rise} images more withstand eps {high:.4g} than {low:.4g}: weak attack")
    for value, alone, swept in zip(eps, raw, audit.result.robust[:, audit.rows], strict=True):
        if _beyond_noise(swept, alone):
            more = int(swept.sum() - alone.sum())
            yield Flag("sweep_weaker", f"an attack at eps {value:.4g} alone breaks {more} images more")


def _large_eps(audit: _Audit) -> Iterator[Flag]:
    """In l-inf every image can be reached with eps = 1, so only a constant classifier can withstand it."""
    if audit.result.norm != "linf":
        return
    left = int(audit.attack([1.0], audit.plan).sum())
    if left == 0:
        return
    with torch.no_grad():
        classes = audit.model(audit.images).argmax(1).unique()
    if len(classes) == 1:
        yield Flag("constant", f"the model predicts class {int(classes)} for every image")
    else:
        yield Flag("large_eps", f"{left} of {len(audit.labels)} images withstand eps 1: weak attack")


def _beyond_noise(more: Tensor, less: Tensor) -> bool:
    """Whether `more` holds for more examples than `less`, (N,) bool each, by more than paired noise (McNemar)."""
    gained, lost = int((more & ~less).sum()), int((~more & less).sum())
    return gained - lost > NOISE * math.sqrt(gained + lost)
