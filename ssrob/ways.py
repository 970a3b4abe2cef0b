"""The ways of training that a config may name: perturbations, what is descended at which images, pre-training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from ssrob.fields import Count, LossName, Name, Norm, NotNegative, Positive, Strict, Task, Terms, as_list, distinct


class Perturb(Strict):
    """What a perturbation climbs, and where it differs from the study's reference attack."""

    climb: Terms
    norm: Norm | None = None
    eps_scale: Positive = 1.0
    steps: Count | None = None

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"climb": value} if isinstance(value, Mapping) and "climb" not in value else value


class Variant(Strict):
    """A way of training: what the perturbations maximise and what the parameters minimise, at which images."""

    perturb: dict[Name, Perturb] = {}
    train: Annotated[dict[Name, Terms], Field(min_length=1)]
    forward: dict[Name, list[LossName]] = {}  # evaluated without a gradient: only BatchNorm statistics see them
    normalise_weights: bool = False
    attack_mode: Literal["eval", "train"] = "eval"  # BatchNorm's mode while the attack runs

    @model_validator(mode="after")
    def _image_sets_exist(self) -> Self:
        if "clean" in self.perturb:
            raise ValueError("perturb.clean: 'clean' names the unperturbed images; choose another name")
        for image_set in self.train:
            if image_set != "clean" and image_set not in self.perturb:
                raise ValueError(
                    f"train.{image_set}: no such perturbation; defined: {', '.join(['clean', *self.perturb])}"
                )
        for image_set, losses in self.forward.items():
            if image_set not in ("clean", *self.perturb):
                raise ValueError(
                    f"forward.{image_set}: no such perturbation; defined: clean, {', '.join(self.perturb)}"
                )
            if twice := set(losses) & set(self.train.get(image_set, {})):
                raise ValueError(f"forward.{image_set}: {sorted(twice)[0]!r} is trained there already")
        if unused := set(self.perturb) - set(self.train) - set(self.forward):
            raise ValueError(f"perturb.{sorted(unused)[0]}: defined but no term of train uses it")
        return self

    @property
    def uses_ssl(self) -> bool:
        """Whether any term stands for the study's SSL task."""
        return any("ssl" in losses for losses in (*self._all_terms, *self.forward.values()))

    @property
    def uses_weight(self) -> bool:
        """Whether any weight is the study's SSL weight."""
        return any(isinstance(weight, str) for terms in self._all_terms for weight in terms.values())

    @property
    def _all_terms(self) -> list[dict[str, float | str]]:
        return [*self.train.values(), *(p.climb for p in self.perturb.values())]


class Pretraining(Strict):
    """Where a backbone starts from: an objective to pre-train on, or a file of weights."""

    objective: Variant | None = None
    eps_scale: Positive = 1.0
    weights: Path | None = None

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and "train" in value:
            inner = {key: value[key] for key in value if key in Variant.model_fields}
            outer = {key: value[key] for key in value if key not in Variant.model_fields}
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
