"""Which combinations of variant, init, norm, task and weight a study trains."""

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, model_validator

from ssrob.config.fields import Choice, Name, Norm, NotNegative, Positive, Seeds, Strict, Task, Tune, as_list, distinct
from ssrob.config.variants import shipped_inits, shipped_variants

VariantName = Annotated[Name, Choice("variant", shipped_variants, open=True)]
InitName = Annotated[Name, Choice("init", shipped_inits, open=True)]


class EqualPasses(Strict):
    """Train for as many network passes as this arm takes (its pre-training included)."""

    variant: VariantName
    """The variant whose passes are counted."""
    init: InitName = "random"
    """Its init, whose pre-training counts too."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"variant": value} if isinstance(value, str) else value


class Arms(Strict):
    """A block of arms: every combination of its lists. What is left out comes from the study."""

    variant: Annotated[list[VariantName], BeforeValidator(as_list), AfterValidator(distinct)]
    """Variants, shipped ones or those of the study. Example: `[at, at_ssl_joint]`."""
    init: Annotated[list[InitName], BeforeValidator(as_list), AfterValidator(distinct)] = ["random"]
    """Where backbones start from: `random`, or names of `pretraining`. Example: `[random, ssl]`."""
    norm: Annotated[list[Norm], BeforeValidator(as_list), AfterValidator(distinct)] | None = None
    """Norms of the training attack. Default: all of `threat`."""
    task: Annotated[list[Task], BeforeValidator(as_list), AfterValidator(distinct)] | None = None
    """SSL tasks. Default: that of the study."""
    weight: Annotated[list[NotNegative], BeforeValidator(as_list), AfterValidator(distinct)] | None = None
    """SSL weights w. Default: those of the study."""
    eps_scale: Annotated[list[Positive], BeforeValidator(as_list), AfterValidator(distinct)] = [1.0]
    """eps of the training attack, in multiples of the reference eps. Example: `[0.5, 0.75, 1.25]`."""
    tune: Annotated[list[Tune], BeforeValidator(as_list), AfterValidator(distinct)] = ["full"]
    """What is fine-tuned: the whole network, or the class head on a frozen backbone."""
    equal_passes: EqualPasses | None = None
    """Train for as many passes through the network as another arm takes. Example: `at_ssl_joint`."""
    seeds: Seeds | None = None
    """Seeds. Default: those of the study."""
    part: Name = "main"
    """Part of the study: `ssrob portion` runs parts one after the other, in the order of their first mention."""
