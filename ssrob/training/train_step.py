"""A training step in two halves: everything random is drawn, then gradients and metrics are computed from tensors.

The second half draws nothing, waits for nothing and depends on tensors alone, so that a GPU can replay a recording.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ssrob.data.loader import augment
from ssrob.hardware.cuda_graphs import Tensors
from ssrob.hardware.device import precision, to_memory_format
from ssrob.losses.batch import Batch
from ssrob.models.network import Forward, Network
from ssrob.planning.specs import Objective, TrainSpec
from ssrob.registry.lookup import load
from ssrob.registry.losses import LOSSES
from ssrob.seeding import generator
from ssrob.training.objective import gradient_norms, total, training_terms
from ssrob.training.perturbations import draw_starts, draw_views, perturbed

GRADIENT = "gradient/"  # before a parameter's name
DRAWN = ("views", "starts", "resampled", "factors")  # of a batch


def drawn(spec: TrainSpec, x: Tensor, y: Tensor, step: int, share: float = 0.0) -> Batch:
    """Augment x (B, C, H, W) in [0, 1] and draw all that its step needs, as functions of (seed, purpose, step).

    share: of the training that is done, 0..1, which decides the weights that have a schedule.
    """
    training, device = spec.training, x.device
    x = augment(x, training.augment, training.crop_padding, generator(spec.seed, "augment", step, device=device))
    factors = spec.objective.factors(share)
    objective = spec.objective.keeping(factors)
    batch = draw_starts(
        objective, draw_views(objective, Batch(to_memory_format(x), y), spec.seed, step), spec.seed, step
    )
    return replace(batch, factors={name: torch.full((), value, device=device) for name, value in factors.items()})


def descend(network: Network, spec: TrainSpec, batch: Batch, *, norms: bool = False) -> Tensors:
    """Perturb a batch and return metrics (scalars) and the gradients of the training loss, named ``gradient/...``.

    norms: the norms of the supervised and the SSL gradient as well, for two backward passes more.
    """
    if norms and spec.training.compile:  # a compiled backward pass can be taken once
        with torch.compiler.set_stance("force_eager"):
            return _descend(network, spec, batch, norms)
    return _descend(network, spec, batch, norms)


def _descend(network: Network, spec: TrainSpec, batch: Batch, norms: bool) -> Tensors:
    network.train()
    if spec.tune == "head":
        network.backbone.eval()  # frozen, BatchNorm included
    objective = spec.objective.keeping(batch.factors)
    with precision(spec.training.precision, batch.x.device):
        images = perturbed(network, objective, batch)
        model = Forward(network, objective.batchnorm)
        # Attacks maximise cross-entropy with the labels as they are; what the parameters descend may smooth them.
        smoothed = replace(batch, smoothing=spec.training.label_smoothing)
        terms = training_terms(model, objective, images, smoothed)
    loss = total(terms)
    metrics = {"loss/total": loss.detach()}
    metrics |= {f"loss/{term.image_set}/{term.loss}": term.value.detach() for term in terms}
    metrics |= _accuracies(model, objective, images, batch)
    if norms and spec.tune == "full":
        metrics |= gradient_norms(terms, list(network.backbone.parameters()))
    parameters = dict(network.named_parameters())
    for parameter in parameters.values():
        parameter.grad = None
    torch.autograd.backward(loss)
    return metrics | {GRADIENT + name: each.grad for name, each in parameters.items() if each.grad is not None}


def as_tensors(batch: Batch) -> Tensors:
    """Return a batch as tensors by name; `from_tensors` reads them."""
    drawn = {f"{what}/{name}": value for what in DRAWN for name, value in getattr(batch, what).items()}
    return {"x": batch.x, "y": batch.y} | drawn


def from_tensors(tensors: Tensors) -> Batch:
    """Return the batch that `as_tensors` took apart."""
    drawn: dict[str, Any] = {what: _under(f"{what}/", tensors) for what in DRAWN}
    return Batch(tensors["x"], tensors["y"], **drawn)


def _under(prefix: str, tensors: Tensors) -> Tensors:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _accuracies(model: Forward, objective: Objective, images: Tensors, batch: Batch) -> Tensors:
    """Batch accuracies that cost no forward pass, because the loss has already made it."""
    return {
        f"accuracy/{image_set}": load(row.correct)(model, images[image_set], batch).float().mean()
        for image_set, terms in objective.train.items()
        for name in terms
        if (row := LOSSES[name]).correct and row.forwards == ("x",)
    }
