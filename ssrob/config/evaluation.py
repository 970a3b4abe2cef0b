"""How trained models are tested, probed and diagnosed."""

from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from ssrob.config.fields import (
    WHOLE,
    AnyPath,
    Checkpoint,
    Choice,
    Count,
    ImagesPerNorm,
    Name,
    NotNegative,
    Positive,
    Precision,
    Search,
    SeverityTable,
    Strict,
    as_list,
    distinct,
)
from ssrob.registry.corruptions import BENCHMARK, CORRUPTIONS
from ssrob.registry.presets import PRESETS

CorruptionName = Annotated[str, Choice("corruption", CORRUPTIONS.keys)]
Severity = Annotated[int, Field(ge=1, le=5), WHOLE]


class Evaluation(Strict):
    """The attack sweep: an eps grid in multiples of each norm's reference eps."""

    removed: ClassVar = {"restarts": (1, "a preset says how often its attacks restart")}

    preset: Annotated[str, Choice("preset", PRESETS.keys)] = "fast"
    """The attacks, from the cheapest to AutoAttack's own code."""
    eps: Annotated[list[NotNegative], AfterValidator(distinct)] = [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 2]
    """Budgets in multiples of the reference eps, ascending, 0 and 1 among them."""
    search: Search = "ascending"
    """How a sweep goes through eps: bracket takes 0.4 times the gradients of ascending, which older results have."""
    images: ImagesPerNorm | None = None
    """Test images: a number, or numbers by norm as in {l2: 500}, all for a norm without one. Default: all."""
    checkpoints: Annotated[list[Checkpoint], BeforeValidator(as_list), AfterValidator(distinct)] = ["best"]
    """Which weights are tested: best on validation images, or last."""
    gradients_in: Precision = "float32"
    """Arithmetic of the attacks' gradients; success is always decided in float32."""
    audit_images: Annotated[int, Field(ge=0), WHOLE] = 64
    """Images that are attacked again, one eps at a time, to check the sweep; 0 leaves the checks out."""
    audit_queries: Count = 250
    """Queries of the black-box attack on these images."""

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if list(self.eps) != sorted(self.eps):
            raise ValueError(f"eps must be in ascending order, found {self.eps}")
        if not {0.0, 1.0} <= set(self.eps):
            message = "eps: multiples of the reference eps, with 0 (clean accuracy) and 1 (the reference) among them"
            raise ValueError(f"{message}; found {self.eps}")
        return self


class CorruptionTest(Strict):
    """The natural corruptions that every model is tested on."""

    names: Annotated[list[CorruptionName], AfterValidator(distinct)] = list(BENCHMARK)
    """Corruptions. Default: the 15 of the benchmark."""
    severities: Annotated[list[Severity], AfterValidator(distinct)] = [1, 2, 3, 4, 5]
    """Severities, 1 to 5."""
    images: Count | None = None
    """Test images. Default: all."""
    frost: AnyPath | None = None
    """Folder of frost photographs. Default: a procedural ice texture."""
    official: AnyPath | None = None
    """Folder of the published CIFAR-10-C, CIFAR-100-C or ImageNet-C files, used instead of making the images."""
    table: SeverityTable | None = None
    """What severities mean: the parameters of CIFAR-10-C or of ImageNet-C. Default: by the images' size."""
    baseline: Name = "standard"
    """The variant that mean corruption errors are relative to."""

    @model_validator(mode="after")
    def _one_frost(self) -> Self:
        if self.table is not None and self.official is not None:
            raise ValueError("give either table or official (files that have severities of their own), found both")
        if self.frost is not None and self.official is not None:
            raise ValueError("give either frost (photographs) or official (files that have frost), found both")
        return self


class Probing(Strict):
    """The kNN and the linear probe of every pre-trained model, on validation images; ``probe: off`` leaves them out."""

    images: Count = 1000
    """Validation images, or as many as there are."""
    train_images: Count = 5000
    """Training images that the probes are fitted on, or as many as there are."""
    neighbours: Count = 20
    """Neighbours of the kNN probe."""
    temperature: Positive = 0.07
    """Temperature of the neighbours' votes."""
    steps: Count = 10
    """PGD steps of the attacks."""


class Diagnosis(Strict):
    """Gradients and transfer of perturbations between the losses of every trained model; ``diagnose: off`` for none."""

    images: Count = 256
    """Validation images, or as many as there are."""
    steps: Count = 10
    """PGD steps of the attacks."""
    head_images: Count = 2000
    """Training images that a fresh SSL head is fitted on, or as many as there are."""
    head_epochs: Count = 10
    """Epochs of that fit."""
