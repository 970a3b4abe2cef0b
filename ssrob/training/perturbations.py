"""Adversarial images: what a perturbation moves, where it starts, and its attack.

Images are kept by name: those of an image set under the set's name, and a view of them that has a perturbation of its
own under ``"set:view"``, the view named as in the `forwards` of its loss. All other views are made when needed.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ssrob.attacks.frozen import frozen
from ssrob.attacks.lp_ball import GEOMETRIES
from ssrob.attacks.steppers.pgd import pgd
from ssrob.losses.batch import Batch, task_at, views_at
from ssrob.models.feature_cache import FeatureCache
from ssrob.models.network import Network
from ssrob.planning.specs import Objective, Terms
from ssrob.registry.lookup import load
from ssrob.seeding import generator

Images = dict[str, Tensor]


@dataclass(frozen=True)
class PerturbedTensor:
    """One tensor that an attack moves within a ball around `base` (V B, C, H, W), V stacked batches of images.

    names: for each of the V batches, the names of the images that it stands for. fixed: views that stay as they are.
    """

    name: str  # of its start
    maximise: Terms
    base: Tensor
    names: list[list[str]]
    fixed: Images

    def images(self, moved: Tensor) -> Images:
        """Return the images by name, given the moved tensor."""
        parts = zip(self.names, moved.chunk(len(self.names)), strict=True)
        return self.fixed | {name: part for names, part in parts for name in names}


def draw_views(objective: Objective, batch: Batch, seed: int, *purpose: object) -> Batch:
    """Draw the view parameters of every loss that has any, once: attack and training see the same views."""
    used = [*objective.losses, *(p.view for p in objective.perturb.values() if p.view)]
    drawn = {}
    for name in dict.fromkeys(objective.row(each).views_of or each for each in used):
        row = objective.row(name)
        if row.draw:
            draws = generator(seed, "view", name, *purpose, device=batch.x.device)
            drawn[name] = load(row.draw)(len(batch.x), draws, **row.arguments)
    return replace(batch, drawn=drawn)


def draw_starts(objective: Objective, batch: Batch, seed: int, *purpose: object) -> Batch:
    """Draw the random point that each perturbation starts from; after this, nothing about a step is random.

    Copies of views start alike whatever the perturbation is called, so that it does not matter whether one maximises
    several losses or several maximise one each; only if two move the same views do they start apart.
    """
    starts: Images = {}
    before: dict[str, int] = {}
    for name, perturbation in objective.perturb.items():
        for tensor in perturbed_tensors(objective, name, batch):
            who: tuple[object, ...] = (name,)
            if tensor.name != name:
                views = tensor.name.partition(":")[2]
                who = ("views", views, before.setdefault(views, 0))
                before[views] += 1
            draws = generator(seed, "attack", *who, *purpose, device=batch.x.device)
            starts[tensor.name] = GEOMETRIES[perturbation.norm].start(tensor.base, perturbation.eps, draws)
    return replace(batch, starts=starts)


def image_sets(network: Network, objective: Objective, batch: Batch, seed: int, *purpose: object) -> Images:
    """Draw where perturbations start, and return the images of every set: see `perturb`."""
    return perturb(network, objective, draw_starts(objective, batch, seed, *purpose))


def perturb(network: Network, objective: Objective, batch: Batch) -> Images:
    """Return the images of every set that the objective names: the clean ones and each perturbation's."""
    images = {"clean": batch.x}
    with frozen(network):
        for name in objective.perturb:
            for tensor in perturbed_tensors(objective, name, batch):
                images |= tensor.images(_attack(network, objective, name, tensor, batch))
            images.setdefault(name, batch.x)
    return images


def losses_at(
    model: FeatureCache, objective: Objective, names: Iterable[str], images: Images, batch: Batch
) -> dict[str, Tensor]:
    """Evaluate losses at the images of the model's set, loss name -> (B,); views that they share are made once."""
    x, rows = images.get(model.image_set, batch.x), {name: objective.row(name) for name in names}
    views: dict[str | None, tuple[Tensor, ...]] = {None: ()}
    for source in dict.fromkeys(row.views_of for row in rows.values() if row.views_of):
        perturbed = [f"{model.image_set}:{view}" for view in objective.row(source).view_names]
        plain = perturbed[0] not in images
        views[source] = views_at(objective, source, x, batch) if plain else tuple(images[name] for name in perturbed)
    tasks = {name: task_at(objective, name, x, batch, views[row.views_of]) for name, row in rows.items()}
    return {name: load(row.function)(model, x, tasks[name]) for name, row in rows.items()}


def perturbed_tensors(objective: Objective, name: str, batch: Batch) -> Iterator[PerturbedTensor]:
    """Yield what a perturbation moves: the image, its one view, or views and image each on their own."""
    perturbation = objective.perturb[name]
    for source, maximise in objective.groups(perturbation).items():
        if source is not None:
            yield _copies(objective, name, source, maximise, batch)
        elif perturbation.layout == "single":
            assert perturbation.view is not None
            (view,) = views_at(objective, perturbation.view, batch.x, batch)
            names = [name, *(f"{name}:{each}" for each in objective.row(perturbation.view).view_names)]
            yield PerturbedTensor(name, maximise, view, [names], {})
        else:
            yield PerturbedTensor(name, maximise, batch.x, [[name]], {})


def _copies(objective: Objective, name: str, source: str, maximise: Terms, batch: Batch) -> PerturbedTensor:
    """Return the views of one loss as a tensor of their own; those that do not move stay aside."""
    views = dict(zip(objective.row(source).view_names, views_at(objective, source, batch.x, batch), strict=True))
    moving = objective.perturb[name].views or [*views]
    base = torch.cat([view for each, view in views.items() if each in moving])
    names = [[f"{name}:{each}"] for each in views if each in moving]
    fixed = {f"{name}:{each}": view for each, view in views.items() if each not in moving}
    return PerturbedTensor(f"{name}:{source}", maximise, base, names, fixed)


def _attack(network: Network, objective: Objective, name: str, tensor: PerturbedTensor, batch: Batch) -> Tensor:
    """Run PGD on one tensor; features of what does not move are computed once, outside the loop."""
    perturbation = objective.perturb[name]
    forwards = {each for loss in tensor.maximise for each in objective.row(loss).forwards}
    start = FeatureCache(network, objective.batchnorm, clean=batch.x)
    if "clean" in forwards:
        start.precompute(batch.x, "clean")
    for key, view in tensor.fixed.items():
        if key.partition(":")[2] in forwards:
            start.precompute(view, name)

    def loss_at(moved: Tensor) -> Tensor:
        losses = losses_at(start.fork(name), objective, tensor.maximise, tensor.images(moved), batch)
        return torch.stack([tensor.maximise[loss] * value for loss, value in losses.items()]).sum(dim=0)

    return pgd(
        loss_at,
        tensor.base,
        geometry=GEOMETRIES[perturbation.norm],
        eps=perturbation.eps,
        steps=perturbation.steps,
        step_size=perturbation.step_size,
        start=batch.starts[tensor.name],
    )
