"""How claims become verdicts: the cells that they are about, and the levels of the tests."""

from collections.abc import Iterable
from typing import Annotated, Self

from pydantic import Field, model_validator

from ssrob.config.fields import Checkpoint, Name, Norm, NotNegative, Positive, Strict, Task


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


class Findings(Strict):
    """How claims become verdicts."""

    primary: Primary = Primary()
    """The cells that the verdicts are about."""
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Level of the tests; intervals are at 1 - alpha."""
    margin: Positive = 1.0
    """Equivalence margin of C5b, in points."""
    floor: NotNegative = 5.0
    """Leave cells out of differences where the accuracy of plain AT is below this, in per cent."""
    detectable: Positive = 2.0
    """The effect in points that a study should detect; what one that cannot does not show is underpowered."""

    @property
    def level(self) -> str:
        """The level of the effects' intervals in words, e.g. ``95 %``."""
        return f"{100 * (1 - self.alpha):g} %"
