"""AutoAttack standard (Croce & Hein 2020) by its authors' code, the optional package pyautoattack, as a sweep."""

import importlib
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ssrob.attacks.input_checks import as_device, check_data, check_eps, check_logits, float32_below
from ssrob.attacks.lp_ball import GEOMETRIES
from ssrob.attacks.model_calls import ModelCalls
from ssrob.attacks.model_contract import LOOK, borrowed, device_of_model
from ssrob.attacks.result import SweepResult
from ssrob.attacks.sweep import Outcome, Store, count_classes, digest, merged
from ssrob.attacks.verify import confirmed
from ssrob.hardware.device import exact_float32
from ssrob.progress import Report, shown
from ssrob.registry.attacks import AUTOATTACK_NORMS, REFERENCE, SEARCHES
from ssrob.registry.lookup import check_choice
from ssrob.registry.optional import pip_line

BLACK_BOX = ("square",)
ATTACKS = ("apgd-ce", "apgd-t", "fab-t", "square")
_TARGETS = 9


def autoattack_sweep(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    norm: str = "linf",
    eps: Sequence[float],
    seed: int = 0,
    batch_size: int = 256,
    device: torch.device | str | None = None,
    gradients_in: str = "float32",
    progress: bool | Report | None = None,
    store: Store | None = None,
    block: int = 1024,
    search: str = "bracket",
    attacks: Sequence[str] = ATTACKS,
) -> SweepResult:
    """Attack every example at every eps (ascending) with the reference; arguments and result as of `attack_sweep`.

    The search "bracket" goes from the largest eps down: an image that withstands all attacks at one eps is taken to
    withstand every smaller one. "ascending" goes up and leaves out what a smaller eps broke. A perturbation counts if
    a float32 forward of the projected image agrees. Unlike in our own attacks, draws depend on the batch. Global
    generators are given back.
    """
    if gradients_in != "float32":
        raise ValueError(f"preset {REFERENCE!r} takes gradients in float32, found {gradients_in}")
    budgets, search = check_eps(eps, norm), check_choice("search", search, SEARCHES)
    check_data(images, labels, None, batch_size, block)
    device = device_of_model(model, images) if device is None else as_device(device)
    total, outcomes = len(images), []
    with exact_float32(device), borrowed(model, images[:LOOK].to(device)) as lent, _generators_kept():
        if not lent.interface.gradient:
            attacks = BLACK_BOX
        classes = count_classes(lent, images[:1].to(device))
        if classes < 4 and "apgd-t" in attacks:
            raise ValueError(f"AutoAttack's targeted DLR loss needs >= 4 classes, found {classes}")
        reference = _Reference(lent, norm, seed, batch_size, classes, tuple(attacks), device, search)
        with shown(progress, total, "image", REFERENCE) as report:
            for first in range(0, total, block):
                x, y = images[first : first + block], labels[first : first + block]

                def tell(share: float, first: int = first, count: int = len(x)) -> None:
                    report(first + int(share * count), total)

                outcomes.append(_outcome(reference, budgets, (x, y), store, tell))
    return merged(norm, budgets, tuple(attacks), outcomes)


@dataclass(frozen=True)
class _Reference:
    """The reference's code with its settings."""

    model: nn.Module
    norm: str
    seed: int
    batch_size: int
    classes: int
    attacks: tuple[str, ...]
    device: torch.device
    search: str

    def order(self, budgets: list[float]) -> list[tuple[float, int]]:
        """Return eps > 0 and number of every attack in the order in which they run."""
        eps = [value for value in float32_below(budgets) if value > 0]
        if self.search == "bracket":
            eps.reverse()
        return [(value, number) for value in eps for number in range(len(self.attacks))]

    def run(self, model: nn.Module, name: str, eps: float, x: Tensor, labels: Tensor) -> Tensor:
        """Run one of its attacks; returns images (B, C, H, W) that may or may not be misclassified."""
        code = _import()
        options = {"norm": AUTOATTACK_NORMS[self.norm], "eps": eps, "seed": self.seed, "device": x.device}
        runner = code.AutoAttack(model, version="standard", **options)
        runner.attacks_to_run = [name]
        runner.apgd_targeted.n_target_classes = runner.fab.n_target_classes = min(_TARGETS, self.classes - 1)
        adversarial, _ = runner.run_standard_evaluation(x, labels, batch_size=self.batch_size)
        found: Tensor = adversarial.detach()
        return found


class _Counted(nn.Module):
    """A model that counts the images sent through it, with and without a gradient."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.gradients, self.forwards = model, 0, 0

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad and torch.is_grad_enabled():
            self.gradients += len(x)
        else:
            self.forwards += len(x)
        logits: Tensor = self.model(x)
        return logits


def _outcome(
    reference: _Reference,
    budgets: list[float],
    data: tuple[Tensor, Tensor],
    store: Store | None,
    tell: Callable[[float], None],
) -> Outcome:
    """Attack one block, or go on with what the store has of it, which is kept after every attack at every eps."""
    if store is None:
        return _attack(reference, budgets, data, tell)
    settings = (reference.norm, reference.seed, reference.batch_size, reference.attacks, budgets)
    search = "" if reference.search == "ascending" else reference.search
    key = digest(f"{REFERENCE} confirmed {settings}{search}", *reference.model.state_dict().values(), *data)
    begun = store.get(key)
    if begun is None or "runs" in begun:
        store[key] = _attack(reference, budgets, data, tell, begun=begun, keep=partial(store.__setitem__, key))
    tell(1.0)
    return store[key]


def _attack(
    reference: _Reference,
    budgets: list[float],
    data: tuple[Tensor, Tensor],
    tell: Callable[[float], None],
    *,
    begun: Outcome | None = None,
    keep: Callable[[Outcome], object] = lambda _: None,
) -> Outcome:
    """Run every attack at every eps on what is still robust; `keep` is given what is known after each run."""
    x, labels = (tensor.to(reference.device) for tensor in data)
    model = _Counted(reference.model).eval()
    known = _begin(model, reference, x, labels) if begun is None else begun
    known = {name: value.to(x.device) for name, value in known.items()}
    model.gradients, model.forwards = known["spent"].tolist()
    runs = reference.order(budgets)
    for done, (eps, number) in enumerate(runs):
        if done < int(known["runs"]):
            continue
        rows = ((known["distance"] > eps) & ~known["withstood"]).nonzero().squeeze(1)
        if len(rows):
            adversarial = reference.run(model, reference.attacks[number], eps, x[rows], labels[rows])
            inside, length, broken = _judge(model, reference, eps, (x[rows], labels[rows], adversarial))
            rows = rows[broken]
            known["kept"][rows], known["distance"][rows] = inside[broken], length[broken]
            known["attack"][rows] = 2 + number
        if reference.search == "bracket" and number == len(reference.attacks) - 1:
            known["withstood"] |= known["distance"] > eps
        tell((done + 1) / len(runs))
        known |= {"runs": torch.tensor(done + 1), "spent": torch.tensor([model.gradients, model.forwards])}
        keep({name: value.cpu() for name, value in known.items()})
    judged = (x, known["kept"], labels, known["distance"])
    known["confirmed"] = confirmed(model, GEOMETRIES[reference.norm], judged, reference.batch_size)
    known["spent"] = torch.tensor([model.gradients, model.forwards])
    return {name: known[name].cpu() for name in ("distance", "attack", "clean_correct", "spent", "confirmed")}


def _begin(model: _Counted, reference: _Reference, x: Tensor, labels: Tensor) -> Outcome:
    """Return what is known of a block before its first run."""
    clean = ModelCalls(model, reference.batch_size).logits(x)
    check_logits(clean, labels)
    correct = clean.argmax(1) == labels
    return {
        "distance": torch.where(correct, math.inf, 0.0),
        "attack": torch.where(correct, 0, 1),  # none, clean, then the attacks
        "clean_correct": correct,
        "kept": x.clone(),
        "withstood": torch.zeros_like(correct),
        "spent": torch.tensor([model.gradients, model.forwards]),
        "runs": torch.tensor(0),
    }


def _judge(
    model: nn.Module, reference: _Reference, eps: float, attacked: tuple[Tensor, Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Project what was found onto the budget; return it, its distances (B,) and whether it is misclassified (B,)."""
    x, labels, adversarial = attacked
    geometry = GEOMETRIES[reference.norm]
    inside = geometry.project(x, torch.nan_to_num(adversarial), eps)
    length = geometry.norm(inside - x).clamp(torch.finfo(torch.float32).tiny, eps)
    logits = ModelCalls(model, reference.batch_size).logits(inside)
    return inside, length, logits.argmax(1) != labels


@contextmanager
def _generators_kept() -> Iterator[None]:
    """Give back the global generators, which the reference seeds, and a debugger's trace, which it switches off."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    trace = sys.gettrace()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        sys.settrace(trace)


def _import() -> Any:
    try:
        return importlib.import_module("pyautoattack")
    except ImportError as error:
        line = pip_line("pyautoattack")
        raise ValueError(f"preset {REFERENCE!r} needs AutoAttack's code: {line} ({error})") from None
