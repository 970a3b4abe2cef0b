"""A training step in two halves: everything random is drawn, then gradients and metrics are computed from tensors.

The second half draws nothing, waits for nothing and depends on tensors alone, so that a GPU can replay a recording.
"""

import contextlib
from dataclasses import dataclass

import torch
from torch import Tensor

from ssrob.data.loader import augment
from ssrob.hardware.cuda_graphs import Tensors
from ssrob.hardware.device import precision, to_memory_format
from ssrob.losses.batch import Batch, task_at
from ssrob.models.feature_cache import FeatureCache
from ssrob.models.network import Network
from ssrob.planning.specs import Objective, TrainSpec
from ssrob.registry.lookup import load
from ssrob.registry.losses import LOSSES
from ssrob.seeding import generator
from ssrob.training.perturbations import Images, draw_starts, draw_views, losses_at, perturb

GRADIENT = "gradient/"  # before a parameter's name


@dataclass(frozen=True)
class Term:
    """One term of a training loss: where it was evaluated, its weight, and its mean over the batch (a scalar)."""

    image_set: str
    loss: str
    weight: float
    value: Tensor


def sample_batch(spec: TrainSpec, x: Tensor, y: Tensor, step: int) -> Batch:
    """Augment x (B, C, H, W) in [0, 1] and draw all that its step needs, as functions of (seed, purpose, step)."""
    draws = generator(spec.seed, "augment", step, device=x.device)
    x = to_memory_format(augment(x, spec.training.augment, spec.training.crop_padding, draws))
    batch = draw_views(spec.objective, Batch(x, y), spec.seed, step)
    return draw_starts(spec.objective, batch, spec.seed, step)


def compute_gradients(network: Network, spec: TrainSpec, batch: Batch, *, norms: bool = False) -> Tensors:
    """Perturb a batch, and return the gradients of the training loss there, named ``gradient/...``, with metrics.

    norms: the norms of the supervised and the SSL gradient as well, for two backward passes more.
    """
    network.train()
    if spec.tune == "head":
        network.backbone.eval()  # frozen, BatchNorm included
    objective, parameters = spec.objective, dict(network.named_parameters())
    eager = norms and spec.training.compile  # a compiled backward pass can be taken once
    with torch.compiler.set_stance("force_eager") if eager else contextlib.nullcontext():
        with precision(spec.training.precision, batch.x.device):
            images = perturb(network, objective, batch)
            model = FeatureCache(network, objective.batchnorm, clean=batch.x)
            terms = loss_terms(model, objective, images, batch)
        loss = weighted_sum(terms)
        metrics = {"loss/total": loss.detach()}
        metrics |= {f"loss/{term.image_set}/{term.loss}": term.value.detach() for term in terms}
        metrics |= _accuracies(model, objective, images, batch)
        if norms and spec.tune == "full":
            metrics |= gradient_norms(terms, list(network.backbone.parameters()))
        for parameter in parameters.values():
            parameter.grad = None
        torch.autograd.backward(loss)
    return metrics | {GRADIENT + name: each.grad for name, each in parameters.items() if each.grad is not None}


def loss_terms(model: FeatureCache, objective: Objective, images: Images, batch: Batch) -> list[Term]:
    """Evaluate every term that the parameters minimise; what two terms share goes through the network once."""
    return [
        Term(image_set, loss, terms[loss], value.mean())
        for image_set, terms in objective.train.items()
        for loss, value in losses_at(model.for_image_set(image_set), objective, terms, images, batch).items()
    ]


def weighted_sum(terms: list[Term]) -> Tensor:
    """Add up the terms, each times its weight; a scalar."""
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
        gradients = torch.autograd.grad(weighted_sum(group), parameters, retain_graph=True, allow_unused=True)
        norms[name] = torch.stack([g.float().square().sum() for g in gradients if g is not None]).sum().sqrt()
    ratio = norms["ssl"] / norms["supervised"].clamp_min(1e-12)
    return {f"gradient_norm/{name}": norm for name, norm in norms.items()} | {"gradient_norm/ratio": ratio}


def as_tensors(batch: Batch) -> Tensors:
    """Return a batch as tensors by name; `from_tensors` reads them."""
    drawn = {f"drawn/{name}": value for name, value in batch.drawn.items()}
    return {"x": batch.x, "y": batch.y} | drawn | {f"starts/{name}": value for name, value in batch.starts.items()}


def from_tensors(tensors: Tensors) -> Batch:
    """Return the batch that `as_tensors` took apart."""
    return Batch(tensors["x"], tensors["y"], _under("drawn/", tensors), _under("starts/", tensors))


def _under(prefix: str, tensors: Tensors) -> Tensors:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _accuracies(model: FeatureCache, objective: Objective, images: Images, batch: Batch) -> Tensors:
    """Batch accuracies that cost no forward pass, because the loss has already made it."""
    accuracies = {}
    for image_set, terms in objective.train.items():
        for name in terms:
            row = LOSSES[name]
            if row.correct and row.forwards == ("x",):
                x = images[image_set]
                correct: Tensor = load(row.correct)(model, x, task_at(objective, name, x, batch))
                accuracies[f"accuracy/{image_set}"] = correct.float().mean()
    return accuracies
