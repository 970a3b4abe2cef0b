"""Tests of trained models: detection of images of no known class (out of distribution), and calibration."""

from typing import Annotated, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from ssrob.config.data import Data
from ssrob.config.evaluation import CorruptionName, Severity
from ssrob.config.fields import SETS, WHOLE, Choice, Count, NotNegative, Strict, distinct
from ssrob.registry.ood import HELD_OUT, SCORES, SYNTHETIC

ScoreName = Annotated[str, Choice("score", SCORES.keys)]
SetName = Annotated[str, Choice("image set", lambda: [HELD_OUT, *SYNTHETIC])]
ImageSet = Annotated[
    Annotated[SetName, Tag(SETS[0])] | Annotated[Data, Tag(SETS[1])],
    Discriminator(lambda value: SETS[not isinstance(value, str)]),
]


class OodTest(Strict):
    """Detection of images of no known class (out of distribution), clean and attacked; ``ood: off`` leaves it out."""

    sets: list[ImageSet] = ["gaussian", "blobs", "textures"]
    """Image sets: synthetic ones by name, `held_out` (the classes that `data.hold_out` names), or data sets, described
    as under `data`. Example: `[held_out, gaussian, {name: cifar10, source: cifar10}]`."""
    scores: Annotated[list[ScoreName], AfterValidator(distinct)] = list(SCORES)
    """Scores; those of a rotation head are taken of models that have one. Default: all."""
    images: Count = 500
    """Images of each set, and test images, or as many as there are."""
    neighbours: Count = 50
    """Which neighbour the nearest-neighbour score takes."""
    train_images: Count = 5000
    """Training images whose features are its neighbours, or as many as there are."""
    attacked_scores: Annotated[list[ScoreName], AfterValidator(distinct)] = ["max_softmax"]
    """Scores that are attacked, each by l-inf PGD on it alone; one of a rotation head takes four times as long."""
    attacked_images: Annotated[int, Field(ge=0), WHOLE] = 50
    """Images of each set, and test images, that are attacked, or as many as there are; 0 for no attack."""
    eps: NotNegative | None = None
    """Budget of the attack, [0, 1] pixel units. Default: the reference eps of l-inf."""
    steps: Count = 5
    """PGD steps of the attack."""

    @property
    def scores_under_attack(self) -> list[str]:
        """The scores of which there are attacked images."""
        return self.attacked_scores if self.attacked_images and self.eps != 0 else []

    @model_validator(mode="after")
    def _sets_have_names_of_their_own(self) -> Self:
        distinct([name_of(each) for each in self.sets])
        taken = {HELD_OUT, *SYNTHETIC} & {each.name for each in self.sets if isinstance(each, Data)}
        if taken:
            raise ValueError(f"sets: {min(taken)} means another image set here; give the data set another name")
        if self.neighbours > self.train_images:
            raise ValueError(f"neighbours: must be 1..{self.train_images} (train_images), found {self.neighbours}")
        return self


class CalibrationTest(Strict):
    """Calibration of class probabilities on clean, corrupted and attacked images; ``calibrate: off`` leaves it out."""

    images: Count = 500
    """Test images, or as many as there are."""
    bins: Count = 15
    """Bins of the expected calibration error, of equal mass."""
    temperature: bool = True
    """Fit a temperature on validation images, and measure with it, too."""
    corruptions: list[CorruptionName] = ["gaussian_noise", "defocus_blur", "fog", "jpeg_compression"]
    """Corruptions, made here; `[]` for none. Default: one of each family."""
    severity: Severity = 3
    """Their severity, 1 to 5."""
    steps: Annotated[int, Field(ge=0), WHOLE] = 5
    """PGD steps of an attack on cross-entropy at each norm's reference eps; 0 for no attack."""


def name_of(image_set: str | Data) -> str:
    """Return the name that an image set has in results."""
    return image_set if isinstance(image_set, str) else image_set.name
