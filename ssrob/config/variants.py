"""The variants that a config may name: what perturbations maximise, what is minimised at which images, pre-training."""

import functools
from collections.abc import Mapping
from importlib.resources import files
from typing import Annotated, Any, ClassVar, Literal, Self

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from ssrob.config.fields import (
    AnyPath,
    Count,
    LossName,
    Name,
    Norm,
    NotNegative,
    Positive,
    Strict,
    Task,
    Terms,
    as_list,
    distinct,
)
from ssrob.registry.losses import LOSSES

MAIN = "main"  # the branch of BatchNorm that is validated, tested and passed on to fine-tuning
Layout = Literal["shared", "copies", "single"]
Branch = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Role = Literal["method", "no_gradient", "views", "two_attacks"]
# What a control has in common with its method, for people; `two_attacks` is a control of all methods at once.
ROLES: dict[Role, str] = {
    "method": "",
    "no_gradient": "no SSL gradient",  # the same forward passes: BatchNorm's statistics alone see the SSL images
    "views": "SSL views as augmentation",  # without an SSL loss
    "two_attacks": "",
}


@functools.cache
def family() -> dict[str, Any]:
    """The methods and controls of `ssrob/config/variants.yaml`, which every study can name and override."""
    loaded: dict[str, Any] = yaml.safe_load((files("ssrob.config") / "variants.yaml").read_text())
    return loaded


def shipped_variants() -> list[str]:
    """Return the names of the shipped variants."""
    return list(family()["variants"])


def shipped_inits() -> list[str]:
    """Return the names of the shipped pre-trainings, and `random`."""
    return ["random", *family()["pretraining"]]


class Perturb(Strict):
    """What a perturbation maximises, what it moves, and where it differs from the study's reference attack."""

    renamed: ClassVar = {"climb": "maximise"}
    removed: ClassVar = {"resample": (False, "views are drawn once per training step")}

    maximise: Terms
    """Losses with their weights. Example: `{xent: 1, ssl: w}`."""
    norm: Norm | None = None
    """Norm of the perturbation. Default: the arm's."""
    eps_scale: Positive = 1.0
    """Its eps in multiples of the arm's."""
    steps: Count | None = None
    """PGD steps. Default: those of the norm's reference attack."""
    step_size: Positive | None = None
    """Length of a step at the reference eps, in [0, 1] pixel units. Default: the reference attack's path, scaled."""
    layout: Layout = "shared"
    """Where it is added: to the image before the view, to image and views each on its own, or to the view alone."""
    view: LossName = "ssl"
    """The task whose view is the image, for the layout single."""
    views: Annotated[list[str], BeforeValidator(as_list)] = []
    """The views that move, for the layout copies. Default: all."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        long = isinstance(value, Mapping) and ("maximise" in value or "climb" in value)
        return value if long or not isinstance(value, Mapping) else {"maximise": value}

    @model_validator(mode="after")
    def _options_fit_the_layout(self) -> Self:
        if self.views and self.layout != "copies":
            raise ValueError(f"views needs layout 'copies', found {self.layout!r}")
        if self.view != "ssl" and self.layout != "single":
            raise ValueError(f"view needs layout 'single', found {self.layout!r}")
        return self


class Variant(Strict):
    """A method or a control: what the perturbations maximise and what the parameters minimise, at which images."""

    removed: ClassVar = {
        "normalise_weights": (False, "write weights that sum to one"),
        "weight_schedule": ({}, "weights are the same throughout a training"),
        "attack_mode": ("eval", "attacks run with BatchNorm in eval mode"),
    }

    label: str | None = None
    """Its name in figures and tables; `{task}` stands for the SSL task. Default: its name in the config."""
    base: Name | None = None
    """The variant without SSL that it extends. Example: `at`."""
    role: Role = "method"
    """A method, or a control and what it rules out."""
    control_of: Name | None = None
    """The method that a control belongs to."""
    perturb: dict[Name, Perturb] = {}
    """Perturbations by name, each with the losses that it maximises. Example: `{adv: {xent: 1}}`."""
    train: Annotated[dict[Name, Terms], Field(min_length=1)]
    """Losses that the parameters minimise, by image set: `clean`, or a perturbation's name."""
    forward: dict[Name, list[LossName]] = {}
    """Losses that are evaluated without a gradient: only BatchNorm's statistics see their images."""
    batchnorm: dict[Name, Branch] = {}
    """Branch of BatchNorm by image set. Default: main."""

    @model_validator(mode="after")
    def _controls_say_of_what(self) -> Self:
        if (self.control_of is not None) != (self.role in ("no_gradient", "views")):
            raise ValueError(
                "give control_of with role: no_gradient or role: views, and with these alone; "
                f"found role {self.role!r} and control_of {self.control_of!r}"
            )
        return self

    @model_validator(mode="after")
    def _image_sets_exist(self) -> Self:
        if "clean" in self.perturb:
            raise ValueError("perturb.clean: 'clean' names the unperturbed images; choose another name")
        defined = ["clean", *self.perturb]
        for field in ("train", "forward", "batchnorm"):
            for image_set in getattr(self, field):
                if image_set not in defined:
                    raise ValueError(f"{field}.{image_set}: no such perturbation; defined: {', '.join(defined)}")
        for image_set, losses in self.forward.items():
            if twice := set(losses) & set(self.train.get(image_set, {})):
                raise ValueError(f"forward.{image_set}: {sorted(twice)[0]!r} is trained there already")
        if unused := set(self.perturb) - set(self.train) - set(self.forward):
            raise ValueError(f"perturb.{sorted(unused)[0]}: defined but no term of train uses it")
        return self

    @model_validator(mode="after")
    def _options_have_an_effect(self) -> Self:
        if all(self.batchnorm.get(image_set, MAIN) != MAIN for image_set in self.train):
            raise ValueError(f"batchnorm: no image set of train is left to the branch {MAIN!r}, which is tested")
        return self

    @property
    def uses_ssl(self) -> bool:
        """Whether any term stands for the study's SSL task, or for its views."""
        named = {name for losses in (*self._all_terms, *self.forward.values()) for name in losses}
        single = any(p.layout == "single" and p.view == "ssl" for p in self.perturb.values())
        return single or any(name == "ssl" or LOSSES[name].task_argument for name in named)

    @property
    def uses_weight(self) -> bool:
        """Whether any weight is the study's SSL weight."""
        return any(isinstance(weight, str) for terms in self._all_terms for weight in terms.values())

    @property
    def _all_terms(self) -> list[dict[str, float | str]]:
        return [*self.train.values(), *(p.maximise for p in self.perturb.values())]


@functools.cache
def built_in_variants() -> dict[str, Variant]:
    """Return the variants that every study can name, by name."""
    return {name: Variant.model_validate(row) for name, row in family()["variants"].items()}


def base_of(name: str, variants: Mapping[str, Variant]) -> str:
    """Return the variant without SSL that a variant extends; itself if it extends none; a control's is its method's."""
    row = variants[name]
    if row.control_of is not None:
        return base_of(row.control_of, variants)
    return row.base or name


def control_of(name: str, role: Role, variants: Mapping[str, Variant]) -> str | None:
    """Return the control with a role of a method, e.g. of `at_ssl_adv` without the SSL gradient; None without one."""
    rows = variants.items()
    return next((control for control, row in rows if row.control_of == name and row.role == role), None)


class Pretraining(Strict):
    """Where a backbone starts from: an objective to pre-train on, or a file of weights."""

    objective: Variant | None = None
    eps_scale: Positive = 1.0
    weights: AnyPath | None = None

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and "train" in value:
            known = {*Variant.model_fields, *Variant.removed}
            inner = {key: value[key] for key in value if key in known}
            outer = {key: value[key] for key in value if key not in known}
            return {**outer, "objective": inner}
        return value

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.objective is None) == (self.weights is None):
            raise ValueError("give either an objective (perturb, train) or weights (a file)")
        return self


class Ssl(Strict):
    """The study's SSL task and the grid of its weights w."""

    task: Task = "rotation"
    weights: Annotated[list[NotNegative], BeforeValidator(as_list), AfterValidator(distinct)] = [0.5]
