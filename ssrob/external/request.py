"""What an evaluation of somebody else's model is asked for."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from ssrob.config.fields import Norm, Precision, parse_number
from ssrob.external.class_names import OVER
from ssrob.registry.attacks import GRADIENT_DTYPES, NORMS
from ssrob.registry.lookup import check_choice
from ssrob.registry.presets import PRESETS

LONGEST_NAME = 100


@dataclass(frozen=True)
class Request:
    """What is asked for: a model by its factory, images, budgets ([0, 1] pixel units, ascending) and a preset."""

    model: str
    data: str
    eps: tuple[float, ...]
    norm: Norm = "linf"
    preset: str = "standard"
    weights: Path | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    weights_prefix: str | None = None  # of the names in the file; by default the one that fits
    preprocess: str = "none"
    classes: str | None = None  # which class is which output: see `class_names.outputs_of`
    over: str = "allowed"  # accuracy over the outputs of those classes, or "all"
    skip_nan: bool = False  # leave out images for which the model returns NaN
    images: int | None = None
    corruptions: bool = False
    official: Path | None = None  # folder of the published corruption files
    frost: Path | None = None  # folder of photographs
    seed: int = 0
    gradients_in: Precision = "float32"
    device: str = "auto"
    batch_size: int = 256
    name: str | None = None  # what people call the model; by default its factory

    @property
    def title(self) -> str:
        """What the model is called."""
        return self.name or self.model


def parse_request(*, eps: str, norm: str, preset: str, arguments: str, **options: Any) -> Request:
    """Read a request as it comes from a command line: eps as ``2/255,8/255``, the factory's arguments as JSON."""
    try:
        budgets = tuple(float(str(parse_number(part))) for part in eps.split(","))
    except ValueError:
        raise ValueError(f"--eps: expected numbers such as 2/255,4/255,8/255, found {eps!r}") from None
    try:
        parsed = json.loads(arguments)
    except ValueError as error:
        raise ValueError(f"--model-args: not JSON ({error}), found {arguments!r}") from None
    if not isinstance(parsed, dict):
        raise ValueError(f'--model-args: expected an object such as {{"num_classes": 10}}, found {arguments!r}')
    if (name := options.get("name")) is not None and not (name.isprintable() and 1 <= len(name) <= LONGEST_NAME):
        raise ValueError(f"--name: expected 1 to {LONGEST_NAME} letters in one line, found {name!r}")
    check_choice("preset", preset, PRESETS)
    check_choice("--over", options.get("over", "allowed"), OVER)
    check_choice("gradients_in", options.get("gradients_in", "float32"), GRADIENT_DTYPES)
    if options.get("official") and options.get("frost"):
        raise ValueError("--official, --frost: give one, the published files hold frost already")
    options["corruptions"] = bool(options.get("corruptions") or options.get("official") or options.get("frost"))
    return Request(
        eps=budgets, norm=cast(Norm, check_choice("norm", norm, NORMS)), preset=preset, arguments=parsed, **options
    )
