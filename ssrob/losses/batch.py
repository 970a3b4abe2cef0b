"""The batch of a training step, and what one loss is given of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ssrob.planning.specs import Objective
from ssrob.registry.lookup import load
from ssrob.registry.losses import Arguments

Model = Callable[..., Tensor]  # model(x, head="class"): (B, C, H, W) in [0, 1] -> (B, outputs)
NOTHING = torch.empty(0)


@dataclass(frozen=True)
class Batch:
    """One step's clean images x (B, C, H, W) in [0, 1], labels y (B,), and everything that was drawn for the step.

    drawn: loss -> the parameters of its views, (B, ...): attack and training see the same views.
    starts: perturbed tensor -> the images (B or more, C, H, W) that its attack starts from.
    """

    x: Tensor
    y: Tensor
    drawn: Mapping[str, Tensor] = field(default_factory=dict)
    starts: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """What a loss is given beside the network and the images x (B, C, H, W) at which it is evaluated.

    clean: the images before any perturbation, (B, C, H, W) in [0, 1]. labels: (B,) int64.
    views: the views of x that it looks at, each (B, C, H', W'), in the order of their names in its row.
    drawn: the parameters of these views, (B, ...), e.g. the quarter turn of each image; empty where nothing is drawn.
    head: the head whose outputs it reads. arguments: those of its row, as the study sets them.
    """

    clean: Tensor
    labels: Tensor
    views: tuple[Tensor, ...] = ()
    drawn: Tensor = NOTHING
    head: str = "class"
    arguments: Arguments = field(default_factory=dict)


def task_at(objective: Objective, name: str, x: Tensor, batch: Batch, views: tuple[Tensor, ...] | None = None) -> Task:
    """Return what a loss is given at images x (B, C, H, W). views: those of x, where they exist already."""
    row = objective.row(name)
    if views is None:
        views = views_at(objective, row.views_of, x, batch) if row.views_of else ()
    drawn = batch.drawn.get(row.views_of or name, NOTHING)
    return Task(batch.x, batch.y, views, drawn, row.head, row.arguments)


def views_at(objective: Objective, name: str, x: Tensor, batch: Batch) -> tuple[Tensor, ...]:
    """Make the views of images x (B, C, H, W) that a loss looks at, in the order of their names."""
    row = objective.row(name)
    assert row.views is not None
    views: tuple[Tensor, ...] = load(row.views)(x, batch.drawn.get(name), **row.arguments)
    return views
