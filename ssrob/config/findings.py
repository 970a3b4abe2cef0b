"""How a study's results become verdicts: the claims, the cells that they are about, and the tests. No torch."""

import functools
from collections.abc import Iterable
from importlib.resources import files
from typing import Annotated, Literal, Self

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from ssrob.config.fields import (
    NUMBER,
    Checkpoint,
    Choice,
    Count,
    Name,
    Norm,
    NotNegative,
    Positive,
    Strict,
    Task,
    as_list,
    distinct,
)
from ssrob.registry.ood import SCORES

Variants = Annotated[list[Name], BeforeValidator(as_list), AfterValidator(distinct)]
Control = Literal["plain_at", "frontier", "equal_passes", "no_gradient", "two_attacks", "cheaper_methods"]
Measure = Literal["robust_accuracy", "auroc"]
Expectation = Literal["gain", "loss", "equivalent"]


class Primary(Strict):
    """The cells that the verdicts are about, fixed before anything runs; all else is exploratory."""

    norm: Norm = "linf"
    """Norm. Default: l-inf, or the study's first norm where that is not trained."""
    task: Task = "rotation"
    """SSL task. Default: that of the study."""
    weight: NotNegative = 0.5
    """SSL weight w. Default: the first of the study."""
    init: Name = "random"
    """Init of the comparisons inside adversarial training (C2, C3, C4)."""
    pretrained: Name = "ssl"
    """Init of the comparisons after pre-training (C5a, C5b)."""
    score: Annotated[str, Choice("score", SCORES.keys)] = "max_softmax"
    """Score whose AUROC claims about detection are about."""
    checkpoint: Checkpoint = "best"
    """Checkpoint. Default: best, or the study's first where that is not tested."""
    below: tuple[NotNegative, NotNegative] = (0.25, 0.75)
    """eps interval of C2, in multiples of the reference eps."""
    above: tuple[NotNegative, NotNegative] = (1.0, 2.0)
    """eps interval of C3, in multiples of the reference eps; 1 itself is left out."""

    @model_validator(mode="after")
    def _intervals_lie_on_their_sides(self) -> Self:
        if not self.below[0] <= self.below[1] < 1:
            raise ValueError(f"below: expected [low, high] with low <= high < 1, found {list(self.below)}")
        if not 1 <= self.above[0] <= self.above[1] or self.above[1] == 1:
            raise ValueError(
                f"above: expected [low, high] with 1 <= low <= high and high > 1, found {list(self.above)}"
            )
        return self

    def points(self, name: str, grid: Iterable[float]) -> list[float]:
        """Return the points of an eps grid in the interval `below` or `above`; 1 belongs to neither."""
        low, high = getattr(self, name)
        return [eps for eps in grid if low - 1e-6 <= eps <= high + 1e-6 and abs(eps - 1) > 1e-6]


class Claim(Strict):
    """Who is compared with whom, at which eps, what is expected of the difference, and what must not explain it.

    ``mine: {compare: mine, against: at}`` is a claim: `mine` is more robust than `at` at the reference eps. Norm, task,
    weight, checkpoint and init are those of `Primary`.
    """

    question: str = ""
    """The claim in words. Default: from what is compared."""
    compare: Variants
    """Variants, each with a verdict of its own."""
    against: Variants = ["at"]
    """Variants, each of which has to be beaten."""
    every_method: bool = False
    """Compare with every method that the study adds, too."""
    init: Name = "primary"
    """Init of what is compared: `primary` or `pretrained` (of findings.primary), or a name."""
    against_init: Name | None = None
    """Init of what it is compared with. Default: the same."""
    where: Literal["below", "at", "above"] | tuple[NotNegative, NotNegative] = "at"
    """Mean robust accuracy below, at or above the reference eps, or over [low, high] in its multiples."""
    measure: Measure = "robust_accuracy"
    """What is compared: robust accuracy, or the AUROC of images of no known class, mean over the study's image sets. Of
    AUROC `where` is [0, 0] for clean and `at` for attacked images."""
    expect: Expectation = "gain"
    """What is claimed of the difference; equivalent: within findings.margin."""
    trend: bool = False
    """With several SSL weights: claim that a larger one has more of it."""
    controls: list[Control] = []
    """What the same has to hold against; ssrob/analysis/controls.py explains each."""
    explore: Literal["same", "methods"] = "same"
    """Whose other norms, tasks and weights are reported beside it: of the same variants, or of all methods of SSL."""

    def words(self) -> str:
        """Say what is claimed."""
        return self.question or f"{' and '.join(self.compare)} against {', '.join(self.against)}: {self.expect}"


def paper_claims() -> dict[str, Claim]:
    """The claims of the paper on robustness, from `ssrob/config/claims.yaml`."""
    return _shipped_claims("robust_accuracy")


def detection_claims() -> dict[str, Claim]:
    """The claims on detection, from the same file; studies with a section `ood` have them."""
    return _shipped_claims("auroc")


@functools.cache
def _shipped_claims(measure: Measure) -> dict[str, Claim]:
    rows = yaml.safe_load((files("ssrob.config") / "claims.yaml").read_text(encoding="utf-8"))
    claims = {name: Claim.model_validate(row) for name, row in rows.items()}
    return {name: claim for name, claim in claims.items() if claim.measure == measure}


class Findings(Strict):
    """How claims become verdicts."""

    primary: Primary = Primary()
    """The cells that the verdicts are about."""
    claims: dict[Name, Claim] = {}
    """Claims of the study's own, beside the paper's; one of the same name replaces it."""
    alpha: Annotated[float, Field(gt=0, lt=0.5), NUMBER] = 0.05
    """Level of the tests; intervals are at 1 - alpha."""
    margin: Positive = 1.0
    """Equivalence margin of C5b, in points."""
    floor: NotNegative = 5.0
    """Leave cells out of differences where the accuracy of plain AT is below this, in per cent."""
    detectable: Positive = 2.0
    """The effect in points that a study should detect; what one that cannot does not show is underpowered."""

    looks: list[Count] = []
    """Numbers of seeds at which verdicts are made, each at level alpha / number of looks. Default: at the end alone."""

    @model_validator(mode="after")
    def _looks_ascend(self) -> Self:
        if self.looks and (sorted(set(self.looks)) != self.looks or self.looks[0] < 3):
            raise ValueError(f"looks: expected numbers of seeds in ascending order, at least 3, found {self.looks}")
        return self

    @property
    def all_claims(self) -> dict[str, Claim]:
        """The paper's claims and the study's own, by name."""
        return {**paper_claims(), **self.claims}

    @property
    def look_alpha(self) -> float:
        """The level of one look: all together stay at `alpha` (union bound)."""
        return self.alpha / max(1, len(self.looks))

    @property
    def level(self) -> str:
        """The level of the effects' intervals in words, e.g. ``95 %``."""
        return f"{100 * (1 - self.look_alpha):.3g} %"
