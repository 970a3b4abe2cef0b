"""Why it happens: what the supervised and the SSL loss of a trained model have in common, seen from its input.

Per validation image, both losses and their input gradients are taken at the clean image, at a perturbation that
maximises cross-entropy, at one that maximises the SSL loss and at random noise of the same size. Cosine of the
gradients, transfer of perturbations between the tasks and ratio of the gradients' norms follow from these rows.
"""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ssrob.attacks.base import loss_and_gradient
from ssrob.attacks.frozen import frozen
from ssrob.attacks.lp_ball import GEOMETRIES
from ssrob.data.loader import Batches, labelled
from ssrob.data.prepared import Prepared
from ssrob.losses.batch import Batch, task_at
from ssrob.models.feature_cache import FeatureCache
from ssrob.models.network import CLASS_HEAD, Network, build
from ssrob.models.serialization import load_network
from ssrob.planning.specs import DiagnoseSpec, Objective, Perturbation
from ssrob.registry.attacks import STEP_RATIO
from ssrob.registry.lookup import load
from ssrob.registry.losses import LOSSES, Widths, loss_row
from ssrob.runtime.runner import Context
from ssrob.seeding import generator
from ssrob.storage.tables import DIAGNOSED, write_table
from ssrob.training.perturbations import draw_views, image_sets

BATCH = 128  # a contrastive or VICReg loss depends on it
HEAD_BATCH = 100
HEAD_LR = 0.01  # of Adam, falling to zero as a cosine


def stage(context: Context) -> None:
    """Run a diagnose stage of one checkpoint and one SSL task, on validation images."""
    spec = DiagnoseSpec.model_validate(context.stage.spec)
    data = Prepared(context.parent("data"), context.data_source)
    network = load_network(context.parent("model") / f"{spec.checkpoint}.safetensors").to(context.device)
    networks = {"own": network} if spec.own_head else {}
    networks["fitted"] = with_fitted_head(network, data, spec)
    images, labels = data.validation()
    x, y = labelled(images[: spec.images], labels[: spec.images], context.device)
    tables = []
    with context.progress(total=len(networks) * len(x), unit="image") as bar:
        for head, each in networks.items():
            parts = []
            for number, rows in enumerate(torch.arange(len(x)).tensor_split(-(-len(x) // BATCH))):
                part = measure(each, spec, x[rows], y[rows], number)
                parts.append(part.assign(example=part["example"] + int(rows[0])))
                bar.update(len(rows))
                context.stop_if_asked()
            tables.append(pd.concat(parts, ignore_index=True).assign(head=head))
    table = pd.concat(tables, ignore_index=True)[list(DIAGNOSED)]
    write_table(table, DIAGNOSED, context.out / "diagnosis.parquet")
    clean = table[(table["images"] == "clean") & (table["head"] == next(iter(networks)))]
    context.summary = f"mean cosine {clean['cosine'].mean():+.3f} of {spec.task} and cross-entropy on clean images"


def measure(network: Network, spec: DiagnoseSpec, x: Tensor, y: Tensor, number: int = 0) -> pd.DataFrame:
    """Measure one batch x (B, C, H, W) in [0, 1], y (B,) at each of the four image sets; 4 B rows, `example` 0..B-1."""
    objective = _objective(spec)
    batch = draw_views(objective, Batch(x, y), spec.seed, "diagnose", number)
    sets = image_sets(network, objective, batch, spec.seed, "diagnose", number)
    sets["noise"] = noise(x, spec, generator(spec.seed, "diagnose", "noise", number, device=x.device))
    with frozen(network):
        parts = [_rows(network, spec, images, batch).assign(images=name) for name, images in sets.items()]
    return pd.concat(parts, ignore_index=True)


def noise(x: Tensor, spec: DiagnoseSpec, draws: torch.Generator) -> Tensor:
    """Return x + a random perturbation of norm eps, cut to [0, 1]: random signs (l-inf), a random direction (l2)."""
    drawn = torch.randn(x.shape, generator=draws, device=x.device)
    return GEOMETRIES[spec.norm].step(x, drawn, spec.eps).clamp(0, 1)


def with_fitted_head(network: Network, data: Prepared, spec: DiagnoseSpec) -> Network:
    """Return the network with a fresh SSL head, fitted on frozen features of clean training images.

    Every model gets one in the same way, so that models with and without an SSL head of their own can be compared.
    """
    heads = {name: widths for name, widths in network.architecture.heads.items() if name == CLASS_HEAD}
    architecture = dataclasses.replace(network.architecture, heads={**heads, **_task_heads(spec)})
    fitted = build(architecture, spec.seed).to(next(network.parameters()).device)
    known = network.state_dict()
    kept = {name: known[name] for name in fitted.state_dict() if name.startswith(("backbone.", f"heads.{CLASS_HEAD}."))}
    fitted.load_state_dict(kept, strict=False)
    _fit_heads(fitted, data, spec)
    return fitted.eval()


def _fit_heads(network: Network, data: Prepared, spec: DiagnoseSpec) -> None:
    """Minimise the SSL loss over the heads' parameters; the backbone stays in eval mode."""
    kept = data.train_subset(spec.head_images, spec.seed, "diagnose subset")
    heads = [network.heads[name] for name in _task_heads(spec)]
    device = next(network.parameters()).device
    batches = Batches(*data.train(kept), HEAD_BATCH, spec.seed, device)
    steps = spec.head_epochs * batches.steps_per_epoch
    parameters = [parameter for head in heads for parameter in head.parameters()]
    if not parameters:
        return
    optimizer = torch.optim.Adam(parameters, lr=HEAD_LR)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    with frozen(network):
        for head in heads:
            head.train().requires_grad_()
        for step in range(steps):
            x, y, _ = batches.at(step)
            batch = draw_views(_objective(spec), Batch(x, y), spec.seed, "diagnose head", step)
            task = task_at(_objective(spec), spec.task, x, batch)
            loss = load(LOSSES[spec.task].function)(FeatureCache(network), x, task).mean()
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()


def _objective(spec: DiagnoseSpec) -> Objective:
    """Name both losses and PGD on each at the eps asked for, of `STEP_RATIO` * eps / steps a step."""
    size = {"norm": spec.norm, "eps": spec.eps, "steps": spec.steps, "step_size": STEP_RATIO * spec.eps / spec.steps}
    attacks = {
        name: Perturbation.model_validate({"maximise": {loss: 1.0}} | size)
        for name, loss in (("supervised", "xent"), ("ssl", spec.task))
    }
    train = {"clean": {"xent": 1.0, spec.task: 1.0}}
    return Objective(perturb=attacks, train=train, arguments=spec.arguments)


def _task_heads(spec: DiagnoseSpec) -> dict[str, Widths]:
    return loss_row(spec.task, spec.arguments).widths


def _rows(network: Network, spec: DiagnoseSpec, x: Tensor, batch: Batch) -> pd.DataFrame:
    """Return losses, their input gradients and answers at images x (B, C, H, W), a row each."""
    columns: dict[str, Any] = {"example": np.arange(len(x))}
    gradients, objective = [], _objective(spec)
    for name, loss in (("supervised", "xent"), ("ssl", spec.task)):
        value, gradient = _loss_and_gradient(network, objective, loss, x, batch)
        gradients.append(gradient)
        columns[f"{name}_loss"] = value.double().cpu().numpy()
        columns[f"{name}_gradient"] = gradient.norm(dim=1).cpu().numpy()
    columns["cosine"] = _cosine(*gradients).cpu().numpy()
    columns["class_correct"] = _correct(network, objective, "xent", x, batch)
    columns["ssl_correct"] = _correct(network, objective, spec.task, x, batch)
    return pd.DataFrame(columns)


def _loss_and_gradient(
    network: Network, objective: Objective, loss: str, x: Tensor, batch: Batch
) -> tuple[Tensor, Tensor]:
    """Return a loss (B,) and its gradient (B, C H W), float64.

    A loss over the batch is the mean of its images' terms, expanded: the sum over (B,) gives each image its own again.
    """
    function = load(LOSSES[loss].function)

    def loss_at(point: Tensor) -> Tensor:
        values: Tensor = function(FeatureCache(network), point, task_at(objective, loss, point, batch))
        return values

    value, gradient = loss_and_gradient(loss_at, x)
    return value, gradient.flatten(1).double()


def _cosine(first: Tensor, second: Tensor) -> Tensor:
    """Return the cosine of rows (B, D), NaN where one of them is zero."""
    lengths = first.norm(dim=1) * second.norm(dim=1)
    return torch.where(lengths > 0, (first * second).sum(dim=1) / lengths, torch.nan)


@torch.no_grad()
def _correct(network: Network, objective: Objective, loss: str, x: Tensor, batch: Batch) -> Any:
    """Return whether the task is solved, (B,), null where it has no such answer."""
    row = LOSSES[loss]
    if row.correct is None:
        return pd.array([pd.NA] * len(x), dtype="boolean")
    correct = load(row.correct)(FeatureCache(network), x, task_at(objective, loss, x, batch))
    return pd.array(correct.cpu().numpy(), dtype="boolean")
