"""What can be named in a config: losses, backbones. The one table that parser and code share.

This module imports no torch, so that a config is checked and a plan is made at once; functions are named as
``"module:function"`` and loaded when a stage first uses them. Code outside the package adds its own rows
(``LOSSES["mine"] = Loss(...)``) in a module that the config lists under ``plugins``.
"""

import difflib
import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Widths = int | tuple[int, ...]  # of a head: its outputs, or the layers of an MLP (hidden, ..., outputs)


@dataclass(frozen=True)
class Loss:
    """One training loss: where it lives and what it costs.

    function: ``loss(model, x, batch) -> (B,)``, evaluated at images x (B, C, H, W) in [0, 1].
    forwards: the image batches it sends through the network: "x" (the images it is evaluated at), "clean" (the
        clean images), or a name of its own for each view that it makes.
    heads: heads it adds to the network, name -> number of outputs of a linear layer, or widths (hidden, ..., outputs)
        of an MLP.
    draw: ``draw(batch_size, generator) -> Tensor``, its view parameters, drawn once per training step.
    correct: ``correct(model, x, batch) -> (B,) bool``, for tasks whose accuracy means something; without it an SSL
        task is judged by its loss.
    """

    function: str
    forwards: tuple[str, ...] = ("x",)
    heads: Mapping[str, Widths] = field(default_factory=dict)
    draw: str | None = None
    correct: str | None = None
    self_supervised: bool = False


@dataclass(frozen=True)
class Backbone:
    """One backbone: ``function(channels, **arguments) -> nn.Module`` with ``.features``, and its defaults."""

    function: str
    arguments: Mapping[str, int] = field(default_factory=dict)
    depths: str | None = None  # a rule for people, e.g. "6 n + 2"
    depth_step: tuple[int, int] | None = None  # the same rule as (step, offset)


LOSSES: dict[str, Loss] = {
    "xent": Loss("ssrob.losses.supervised:xent", heads={}, correct="ssrob.losses.supervised:correct"),
    "kl_to_clean": Loss("ssrob.losses.supervised:kl_to_clean", forwards=("x", "clean")),
    "rotation": Loss(
        "ssrob.losses.rotation:rotation",
        forwards=("rotated",),
        heads={"rotation": 4},
        draw="ssrob.losses.rotation:draw",
        correct="ssrob.losses.rotation:correct",
        self_supervised=True,
    ),
    "jigsaw": Loss(
        "ssrob.losses.jigsaw:jigsaw",
        forwards=("shuffled",),
        heads={"jigsaw": 12},
        draw="ssrob.losses.jigsaw:draw",
        correct="ssrob.losses.jigsaw:correct",
        self_supervised=True,
    ),
    "jigsaw_3x3": Loss(
        "ssrob.losses.jigsaw:jigsaw_3x3",
        forwards=("shuffled_3x3",),
        heads={"jigsaw_3x3": 30},
        draw="ssrob.losses.jigsaw:draw_3x3",
        correct="ssrob.losses.jigsaw:correct_3x3",
        self_supervised=True,
    ),
    "contrastive": Loss(
        "ssrob.losses.contrastive:contrastive",
        forwards=("contrastive_first", "contrastive_second"),
        heads={"contrastive": (512, 128)},
        draw="ssrob.losses.contrastive:draw",
        correct="ssrob.losses.contrastive:correct",
        self_supervised=True,
    ),
    "vicreg": Loss(
        "ssrob.losses.vicreg:vicreg",
        forwards=("vicreg_first", "vicreg_second"),
        heads={"vicreg": (512, 512, 512)},
        draw="ssrob.losses.vicreg:draw",
        self_supervised=True,
    ),
}

BACKBONES: dict[str, Backbone] = {
    "resnet": Backbone(
        "ssrob.models.resnet:resnet",
        {"depth": 8, "width": 16, "stem_stride": 1},
        depths="6 n + 2",
        depth_step=(6, 2),
    ),
    "preactresnet18": Backbone("ssrob.models.resnet:preactresnet18", {"width": 64}),
    "wideresnet": Backbone(
        "ssrob.models.resnet:wideresnet",
        {"depth": 34, "width": 10},
        depths="6 n + 4",
        depth_step=(6, 4),
    ),
}


def load(where: str) -> Callable[..., Any]:
    """Import the function behind ``"module:function"``."""
    module, _, name = where.partition(":")
    loaded: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return loaded


def known(what: str, name: str, names: Iterable[str]) -> str:
    """Return the name if it is known, otherwise raise a ValueError that lists what is and guesses what was meant."""
    names = sorted(names)
    if name in names:
        return name
    close = difflib.get_close_matches(name, names, n=1)
    guess = f" (did you mean {close[0]!r}?)" if close else ""
    raise ValueError(f"unknown {what} {name!r}{guess}; known: {', '.join(names)}")
