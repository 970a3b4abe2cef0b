"""What the parameters descend: a weighted sum of losses at the images that `perturbations.py` has found."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ssrob.losses.batch import Batch
from ssrob.models.network import Forward
from ssrob.planning.specs import Objective
from ssrob.registry.losses import LOSSES
from ssrob.training.perturbations import losses_at, weighted


@dataclass(frozen=True)
class Term:
    """One term of a training loss: where it was evaluated, its weight, and its mean over the batch (a scalar)."""

    image_set: str
    loss: str
    weight: float
    value: Tensor
    factor: Tensor | None = None  # of the weight, where it has a schedule


def training_terms(model: Forward, objective: Objective, images: Mapping[str, Tensor], batch: Batch) -> list[Term]:
    """Evaluate every term that the parameters descend; what two terms share goes through the network once."""
    model.own(batch.x, "clean")
    return [
        Term(image_set, name, terms[name], value.mean(), batch.factors.get(name))
        for image_set, terms in objective.train.items()
        for name, value in losses_at(model.of(image_set), objective, terms, images, batch).items()
    ]


def total(terms: list[Term]) -> Tensor:
    """The weighted sum of the terms, a scalar."""
    return torch.stack([weighted(term.weight, term.value, term.factor) for term in terms if term.weight]).sum()


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
