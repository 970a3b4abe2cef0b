"""The one place where losses meet attacks: perturbations climb, then parameters descend."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ssrob.attacks.freeze import frozen
from ssrob.attacks.geometry import GEOMETRIES
from ssrob.attacks.pgd import pgd
from ssrob.catalog import LOSSES, load
from ssrob.losses.batch import Batch
from ssrob.models.network import Forward, Network
from ssrob.seeding import generator
from ssrob.stage_specs import Objective, Perturbation, Terms


@dataclass(frozen=True)
class Term:
    """One term of a training loss: where it was evaluated, its weight, and its mean over the batch (a scalar)."""

    image_set: str
    loss: str
    weight: float
    value: Tensor


def draw_views(objective: Objective, batch: Batch, seed: int, *purpose: object) -> Batch:
    """Draw the view parameters of every loss that has any, once: attack and training see the same views."""
    views = {}
    for name in objective.losses:
        draw = LOSSES[name].draw
        if draw is not None:
            draws = generator(seed, "view", name, *purpose, device=batch.x.device)
            views[name] = load(draw)(len(batch.x), draws)
    return replace(batch, views=views)


def draw_starts(objective: Objective, batch: Batch, seed: int, *purpose: object) -> Batch:
    """Draw the random point that each perturbation starts from; after this, nothing about a step is random."""
    starts = {}
    for name, perturbation in objective.perturb.items():
        draws = generator(seed, "attack", name, *purpose, device=batch.x.device)
        starts[name] = GEOMETRIES[perturbation.norm].start(batch.x, perturbation.eps, draws)
    return replace(batch, starts=starts)


def perturb(network: Network, perturbation: Perturbation, batch: Batch, start: Tensor) -> Tensor:
    """Find images (B, C, H, W) in the perturbation's ball around batch.x that climb its losses, beginning at `start`.

    The network's parameters are frozen by the caller; clean logits are computed once, outside the loop.
    """
    pinned = {}
    if any("clean" in LOSSES[name].forwards for name in perturbation.climb):
        with torch.no_grad():
            pinned[id(batch.x)] = network(batch.x)
    return pgd(
        lambda x: _weighted(Forward(network, pinned), perturbation.climb, x, batch),
        batch.x,
        geometry=GEOMETRIES[perturbation.norm],
        eps=perturbation.eps,
        steps=perturbation.steps,
        step_size=perturbation.step_size,
        start=start,
    )


def image_sets(network: Network, objective: Objective, batch: Batch, seed: int, *purpose: object) -> dict[str, Tensor]:
    """Draw where perturbations start, and return the images of every set: see `perturbed`."""
    return perturbed(network, objective, draw_starts(objective, batch, seed, *purpose))


def perturbed(network: Network, objective: Objective, batch: Batch) -> dict[str, Tensor]:
    """Return the images of every set that the objective names: the clean ones and each perturbation's."""
    images = {"clean": batch.x}
    with frozen(network, training=objective.attack_mode == "train"):
        for name, perturbation in objective.perturb.items():
            images[name] = perturb(network, perturbation, batch, batch.starts[name])
    return images


def training_terms(model: Forward, objective: Objective, images: Mapping[str, Tensor], batch: Batch) -> list[Term]:
    """Evaluate every term that the parameters descend; what two terms share goes through the network once."""
    return [
        Term(image_set, name, weight, _function(name)(model, images[image_set], batch).mean())
        for image_set, terms in objective.train.items()
        for name, weight in terms.items()
    ]


def total(terms: list[Term]) -> Tensor:
    """The weighted sum of the terms, a scalar."""
    return torch.stack([term.weight * term.value for term in terms if term.weight]).sum()


def gradient_norms(terms: list[Term], parameters: list[torch.nn.Parameter]) -> dict[str, Tensor]:
    """Return the norms of the weighted supervised and SSL gradients, and their ratio; empty unless there are both.

    A weight w is not comparable across tasks; this ratio is.
    """
    groups = {
        "ssl": [term for term in terms if term.weight and LOSSES[term.loss].self_supervised],
        "supervised": [term for term in terms if not LOSSES[term.loss].self_supervised],
    }
    if not all(groups.values()):
        return {}
    norms = {}
    for name, group in groups.items():
        gradients = torch.autograd.grad(total(group), parameters, retain_graph=True, allow_unused=True)
        norms[name] = torch.stack([g.float().square().sum() for g in gradients if g is not None]).sum().sqrt()
    ratio = norms["ssl"] / norms["supervised"].clamp_min(1e-12)
    return {f"gradient_norm/{name}": norm for name, norm in norms.items()} | {"gradient_norm/ratio": ratio}


def _weighted(model: Forward, terms: Terms, x: Tensor, batch: Batch) -> Tensor:
    values = [weight * _function(name)(model, x, batch) for name, weight in terms.items()]
    return torch.stack(values).sum(dim=0)


def _function(name: str) -> Callable[[Forward, Tensor, Batch], Tensor]:
    return load(LOSSES[name].function)
