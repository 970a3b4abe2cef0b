"""Signs that a robustness number is not to be trusted; after the flags of AutoAttack (Croce & Hein 2020)."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from ssrob.attacks.frozen import frozen
from ssrob.attacks.gradient_masking import Flag, model_flags
from ssrob.attacks.input_checks import find_plan
from ssrob.attacks.model_contract import LOOK, NO_GRADIENT, adapt, device_of_model
from ssrob.attacks.per_eps import attack_each_eps
from ssrob.attacks.result import SweepResult
from ssrob.attacks.sweep import digest
from ssrob.registry.presets import AttackConfig, AttackPlan

SQUARE_AHEAD = 0.002  # share of images that only Square may break
SETTLED = 0.05  # share of the robust images that twice the steps may break; two of few images say nothing
ROUNDING = 0.001  # share of verdicts that another batch size may change
NOISE = 2.0  # standard errors of a paired difference that count as noise
SINGLE_STEP = AttackPlan((AttackConfig("pgd", "cross_entropy", 1, start="clean", step_ratio=1.0),))


@dataclass(frozen=True)
class _Audit:
    """A subset of what a sweep attacked, with what it found there."""

    model: nn.Module
    images: Tensor
    labels: Tensor
    rows: Tensor
    result: SweepResult
    plan: AttackPlan
    seed: int

    @property
    def robust(self) -> Tensor:
        """What the sweep left, (E, N) bool."""
        return self.result.robust[:, self.rows]

    def attack(self, eps: list[float], plan: AttackPlan, keep: Tensor | None = None) -> Tensor:
        """Attack the subset, or the images of `keep` (N,) bool alone, at each eps by itself; return robust (E, N)."""
        keep = torch.ones_like(self.rows, dtype=torch.bool) if keep is None else keep
        robust = torch.zeros((len(eps), len(keep)), dtype=torch.bool)
        here = keep.to(self.images.device)
        data = self.images[here], self.labels[here], self.rows.to(here.device)[here]
        robust[:, keep] = attack_each_eps(self.model, data, norm=self.result.norm, eps=eps, preset=plan, seed=self.seed)
        return robust


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

    images (N, C, H, W) in [0, 1], labels (N,). Attacks `audit` of them again, evenly spread: at each eps by itself
    with the preset, with a single step, and in l-inf at eps = 1; and what is robust at one eps with twice the
    preset's steps and with `queries` of Square.
    """
    rows = torch.arange(len(images))[:: max(1, len(images) // audit)]
    device = device_of_model(model, images)
    lent = adapt(model, images[:LOOK].to(device))
    with frozen(lent):
        x, y = images[rows].to(device), labels[rows].to(device)
        before = digest("", *lent.parameters(), *lent.buffers())
        subset = _Audit(lent, x, y, rows, result, find_plan(preset), seed)
        flags = [*model_flags(lent, x, y), *_recorded(subset)]
        if lent.interface.gradient:
            flags += [*_stronger(subset, queries), *_independent(subset)]
        else:
            flags.append(Flag("zero_gradient", NO_GRADIENT))
        if digest("", *lent.parameters(), *lent.buffers()) != before:
            flags.insert(0, Flag("changed", "forward passes changed the model's parameters or buffers"))
    return flags


def _recorded(audit: _Audit) -> Iterator[Flag]:
    """The model must agree with what the sweep says of clean images and of the perturbations it found."""
    result = audit.result
    with torch.no_grad():
        correct = (audit.model(audit.images).argmax(1) == audit.labels).cpu()
    other = int((correct != result.clean_correct[audit.rows]).sum())
    at_zero = result.robust[0].equal(result.clean_correct) if float(result.eps[0]) == 0 else True
    if other > max(1.0, ROUNDING * len(correct)) or not at_zero:
        also = "" if at_zero else ", and the accuracy at eps 0 is not the clean one"
        yield Flag("clean_differs", f"{other} of {len(correct)} clean images are now classified otherwise{also}")
    wrong = int((~result.confirmed).sum())
    if wrong > max(1.0, ROUNDING * len(result.confirmed)):
        problem = "perturbations that were found do not fool a fresh forward, or leave their ball"
        yield Flag("unconfirmed", f"{wrong} of {len(result.confirmed)} {problem}")


def _stronger(audit: _Audit, queries: int) -> Iterator[Flag]:
    """Neither Square nor more steps must break what is robust at the largest eps that leaves half or more."""
    result = audit.result
    half = result.clean_correct.double().mean() / 2
    where = max(0, int((result.accuracy >= half).sum()) - 1)
    eps, robust = float(result.eps[where]), audit.robust[where]
    square = AttackPlan((AttackConfig("square", "margin", queries),))
    more = int((robust & ~audit.attack([eps], square, robust)[0]).sum())
    if more > max(1.0, SQUARE_AHEAD * len(robust)):
        yield Flag("square_stronger", f"Square breaks {more} of {len(robust)} images more at eps {eps:.4g}")
    alone = sum(name.startswith("square") for name in result.attack)
    if alone > max(1.0, SQUARE_AHEAD * len(result.attack)):
        yield Flag("square_stronger", f"only Square broke {alone} of {len(result.attack)} images")
    more = int((robust & ~audit.attack([eps], audit.plan.with_more_steps(2), robust)[0]).sum())
    if more > max(2.0, SETTLED * int(robust.sum())):
        broken = f"{more} of {int(robust.sum())} images that are robust at eps {eps:.4g}"
        yield Flag("more_steps_stronger", f"twice the steps break {broken}: weak attack")


def _independent(audit: _Audit) -> Iterator[Flag]:
    """Attack each eps without knowing the others: the raw curve must fall, and not lie below the sweep's."""
    eps = audit.result.eps.tolist()
    beyond = [1.0] if audit.result.norm == "linf" and eps[-1] < 1 else []
    raw = audit.attack([*eps, *beyond], audit.plan)
    for (low, before), (high, after) in pairwise(zip(eps, raw, strict=False)):
        if _beyond_noise(after, before):
            rise = int(after.sum() - before.sum())
            yield Flag("not_monotone", f"{rise} images more withstand eps {high:.4g} than {low:.4g}: weak attack")
    single = audit.attack(eps, SINGLE_STEP)
    for name, what, alone in (("sweep_weaker", "an attack", raw), ("single_step_stronger", "a single step", single)):
        for value, left, swept in zip(eps, alone, audit.robust, strict=False):
            if _beyond_noise(swept, left):
                more = int(swept.sum() - left.sum())
                yield Flag(name, f"{what} at eps {value:.4g} alone breaks {more} images more")
    if audit.result.norm == "linf":
        yield from _large_eps(audit, int(raw[-1].sum()))


def _large_eps(audit: _Audit, left: int) -> Iterator[Flag]:
    """In l-inf every image can be reached with eps = 1, so only a constant classifier can withstand it."""
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
