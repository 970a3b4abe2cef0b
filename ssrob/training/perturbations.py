"""Adversarial images: what a perturbation moves, where it starts, and how it climbs.

Images are kept by name: those of an image set under the set's name, and a view of them that has a perturbation of its
own under ``"set:view"``, the view named as in the `forwards` of its loss. All other views are made when needed.
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ssrob.attacks.frozen import frozen
from ssrob.attacks.lp_ball import GEOMETRIES
from ssrob.attacks.pgd import pgd
from ssrob.losses.batch import Batch
from ssrob.models.network import Forward, Network
from ssrob.planning.specs import Objective, Perturbation, Terms
from ssrob.registry.lookup import load
from ssrob.seeding import generator

Images = dict[str, Tensor]


@dataclass(frozen=True)
class Moving:
    """One tensor that an attack moves within a ball around `base` (B or more, C, H, W) to maximise some losses."""

    name: str  # of its start
    maximise: Terms
    base: Tensor
    still: Images  # views of the same images that stay as they are
    named: Callable[[Tensor], Images]  # the moved tensor, taken apart into images by name


def draw_views(objective: Objective, batch: Batch, seed: int, *purpose: object) -> Batch:
    """Draw the view parameters of every loss that has any, once: attack and training see the same views.

    A perturbation that resamples has a draw for each of its steps besides.
    """
    used = [*objective.losses, *(p.view for p in objective.perturb.values() if p.view)]
    sources = dict.fromkeys(_source(objective, name) for name in used)
    views = {name: _draw(objective, name, batch, seed, *purpose) for name in sources if objective.row(name).draw}
    resampled = {}
    for image_set, perturbation in objective.perturb.items():
        for name in {_source(objective, each) for each in perturbation.maximise if perturbation.resample}:
            if objective.row(name).draw:
                steps = [(*purpose, "resampled", image_set, step) for step in range(perturbation.steps)]
                drawn = [_draw(objective, name, batch, seed, *told) for told in steps]
                resampled[f"{image_set}:{name}"] = torch.stack(drawn)
    return replace(batch, views=views, resampled=resampled, arguments=objective.arguments)


def draw_starts(objective: Objective, batch: Batch, seed: int, *purpose: object) -> Batch:
    """Draw the random point that each perturbation starts from; after this, nothing about a step is random.

    Copies of views start alike whatever the perturbation is called, so that it does not matter whether one maximises
    several losses or several maximise one each; only if two move the same views do they start apart.
    """
    starts: Images = {}
    before: dict[str, int] = {}
    for name, perturbation in objective.perturb.items():
        for moving in movings(objective, name, batch):
            who: tuple[object, ...] = (name,)
            if moving.name != name:
                views = moving.name.partition(":")[2]
                who = ("views", views, before.setdefault(views, 0))
                before[views] += 1
            draws = generator(seed, "attack", *who, *purpose, device=batch.x.device)
            starts[moving.name] = GEOMETRIES[perturbation.norm].start(moving.base, perturbation.eps, draws)
    return replace(batch, starts=starts)


def image_sets(network: Network, objective: Objective, batch: Batch, seed: int, *purpose: object) -> Images:
    """Draw where perturbations start, and return the images of every set: see `perturbed`."""
    return perturbed(network, objective, draw_starts(objective, batch, seed, *purpose))


def perturbed(network: Network, objective: Objective, batch: Batch) -> Images:
    """Return the images of every set that the objective names: the clean ones and each perturbation's."""
    images, batch = {"clean": batch.x}, replace(batch, arguments=objective.arguments)
    with frozen(network, training=objective.attack_mode == "train"):
        for name in objective.perturb:
            for moving in movings(objective, name, batch):
                images |= moving.still | moving.named(_climbed(network, objective, name, moving, batch))
            images.setdefault(name, batch.x)
    return images


def movings(objective: Objective, name: str, batch: Batch) -> Iterator[Moving]:
    """Yield what a perturbation moves: the image, its one view, or views and image each on their own."""
    perturbation = objective.perturb[name]
    for source, maximise in objective.groups(perturbation).items():
        if source is not None:
            yield _copies(objective, name, source, maximise, batch)
        elif perturbation.layout == "single":
            assert perturbation.view is not None
            (view,) = batch.seen(perturbation.view, batch.x)
            keys = [name, *(f"{name}:{each}" for each in objective.row(perturbation.view).own_forwards)]
            yield Moving(name, maximise, view, {}, functools.partial(_same, keys))
        else:
            yield Moving(name, maximise, batch.x, {}, lambda moved: {name: moved})


def losses_at(
    model: Forward, objective: Objective, names: Iterable[str], images: Mapping[str, Tensor], batch: Batch
) -> Images:
    """Evaluate losses at the images of the model's set, loss name -> (B,); views that they share are made once."""
    x, told = images.get(model.image_set, batch.x), replace(batch, arguments=objective.arguments)
    rows = {name: objective.row(name) for name in names}
    made = {}
    for source in dict.fromkeys(row.views_of for row in rows.values() if row.views_of):
        keys = [f"{model.image_set}:{each}" for each in objective.row(source).own_forwards]
        made[source] = tuple(images[key] for key in keys) if keys[0] in images else told.seen(source, x)
    here = replace(told, made=made)
    return {name: load(row.function)(model, x, here) for name, row in rows.items()}


def weighted(weight: float, value: Tensor, factor: Tensor | None) -> Tensor:
    """Return the loss times its weight, and times the factor of a schedule if there is one."""
    return weight * value if factor is None else factor * (weight * value)


def _climbed(network: Network, objective: Objective, name: str, moving: Moving, batch: Batch) -> Tensor:
    """Attack one tensor; features of what does not move are computed once, outside the loop."""
    perturbation = objective.perturb[name]
    seen = {each for loss in moving.maximise for each in objective.row(loss).forwards}
    known = Forward(network, objective.batchnorm)
    known.own(batch.x, "clean")
    if "clean" in seen:
        known.pin(batch.x, "clean")
    for key, view in moving.still.items():
        if key.partition(":")[2] in seen:
            known.pin(view, name)
    views = _views_by_step(name, perturbation, batch)

    def loss_at(moved: Tensor) -> Tensor:
        images = moving.still | moving.named(moved)
        here = replace(batch, views=next(views))
        losses = losses_at(known.again().of(name), objective, moving.maximise, images, here)
        values = [weighted(moving.maximise[each], value, batch.factors.get(each)) for each, value in losses.items()]
        return torch.stack(values).sum(dim=0)

    return pgd(
        loss_at,
        moving.base,
        geometry=GEOMETRIES[perturbation.norm],
        eps=perturbation.eps,
        steps=perturbation.steps,
        step_size=perturbation.step_size,
        start=batch.starts[moving.name],
    )


def _copies(objective: Objective, name: str, source: str, maximise: Terms, batch: Batch) -> Moving:
    """Return the views of one loss as a tensor of their own; those that do not move stay aside."""
    forwards, views = objective.row(source).own_forwards, batch.seen(source, batch.x)
    chosen = objective.perturb[name].views or forwards
    moving = {f"{name}:{each}": view for each, view in zip(forwards, views, strict=True) if each in chosen}
    still = {f"{name}:{each}": view for each, view in zip(forwards, views, strict=True) if each not in chosen}

    def named(moved: Tensor) -> Images:
        return dict(zip(moving, moved.chunk(len(moving)), strict=True))

    return Moving(f"{name}:{source}", maximise, torch.cat(list(moving.values())), still, named)


def _same(keys: list[str], moved: Tensor) -> Images:
    return dict.fromkeys(keys, moved)


def _views_by_step(name: str, perturbation: Perturbation, batch: Batch) -> Iterator[Mapping[str, Tensor]]:
    """Yield the view parameters of each attack step: the training's, or drawn anew."""
    if not perturbation.resample:
        return itertools.repeat(batch.views)
    told = {key.partition(":")[2]: drawn for key, drawn in batch.resampled.items() if key.partition(":")[0] == name}
    each_step = ({loss: drawn[step] for loss, drawn in told.items()} for step in range(perturbation.steps))
    return ({**batch.views, **drawn} for drawn in each_step)


def _source(objective: Objective, name: str) -> str:
    """Return the loss whose draws a loss uses: its own, or those of the one whose views it looks at."""
    return objective.row(name).views_of or name


def _draw(objective: Objective, name: str, batch: Batch, seed: int, *purpose: object) -> Tensor:
    row = objective.row(name)
    assert row.draw is not None
    draws = generator(seed, "view", name, *purpose, device=batch.x.device)
    drawn: Tensor = load(row.draw)(len(batch.x), draws, **row.arguments)
    return drawn
