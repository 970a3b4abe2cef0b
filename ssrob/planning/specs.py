"""What one stage is: everything that decides its result, resolved to numbers. Hashed into the stage's key."""

from typing import ClassVar

from pydantic import Field

from ssrob.config.fields import Checkpoint, Norm, Precision, Search, SeverityTable, Strict
from ssrob.config.training import Model, Training
from ssrob.config.variants import Layout
from ssrob.planning.names import ArmColumns
from ssrob.registry.losses import Loss, Widths, loss_row

Terms = dict[str, float]  # loss name -> weight


class Perturbation(Strict):
    """One adversarial perturbation: the weighted losses that it maximises, its ball, its steps, and its layout."""

    renamed: ClassVar = {"climb": "maximise"}

    maximise: Terms = Field(serialization_alias="climb")  # the name that is hashed into keys
    norm: Norm
    eps: float
    steps: int
    step_size: float
    layout: Layout = "shared"
    view: str | None = None  # single: the loss whose one view is the image
    views: list[str] = []  # copies: the forwards that move; empty: all


class Objective(Strict):
    """What a training step computes: perturbations, then a weighted sum of losses per image set."""

    perturb: dict[str, Perturbation] = {}
    train: dict[str, Terms]
    batchnorm: dict[str, str] = {}  # image set -> branch of BatchNorm, where it is not the main one
    arguments: dict[str, dict[str, int | float | str]] = {}  # loss -> arguments that a config has changed

    @property
    def losses(self) -> list[str]:
        """Every loss that is used, once, in order of first use."""
        terms = [*self.train.values(), *(p.maximise for p in self.perturb.values())]
        return list(dict.fromkeys(name for each in terms for name in each))

    @property
    def heads(self) -> dict[str, Widths]:
        """Heads that the losses need beside the class head: name -> widths."""
        return {head: widths for name in self.losses for head, widths in self.row(name).widths.items()}

    @property
    def branches(self) -> tuple[str, ...]:
        """Branches of BatchNorm beside the main one."""
        return tuple(sorted(set(self.batchnorm.values())))

    def row(self, name: str) -> Loss:
        """Return a loss's row with this objective's arguments."""
        return loss_row(name, self.arguments)

    def groups(self, perturbation: Perturbation) -> dict[str | None, Terms]:
        """Split what a perturbation maximises by what it moves: a loss's views on their own, or None: one image.

        With copies no two groups share a tensor, so each is attacked by itself.
        """
        groups: dict[str | None, Terms] = {}
        for name, weight in perturbation.maximise.items():
            source = self.row(name).views_of if perturbation.layout == "copies" else None
            groups.setdefault(source, {})[name] = weight
        return groups


class TrainSpec(ArmColumns):
    """One pre-training or fine-tuning. The arm's columns say which of a study it is; the rest says what happens."""

    data: str
    model: Model
    objective: Objective
    training: Training
    init_sha256: str | None = None  # content of the user's own weights, when they are the init


class EvaluateSpec(Strict):
    """One attack sweep of one checkpoint, over both norms."""

    eps: dict[Norm, list[float]]
    reference: dict[Norm, float]
    preset: str
    search: Search = "ascending"  # what a config meant before there was a choice: its key stays
    checkpoint: Checkpoint
    images: int | dict[Norm, int] | None = None
    gradients_in: Precision = "float32"
    audit_images: int = 64
    audit_queries: int = 250
    threads: int = 1
    seed: int = 0

    def images_of(self, norm: Norm) -> int | None:
        """Return the number of test images under a norm; None: all."""
        return self.images.get(norm) if isinstance(self.images, dict) else self.images


class CorruptSpec(Strict):
    """One checkpoint's test on natural corruptions."""

    names: list[str]
    severities: list[int]
    checkpoint: Checkpoint
    images: int | None = None
    frost_photographs: bool = False
    official: bool = False  # the published files; where they lie is a setting
    table: SeverityTable | None = None
    threads: int = 1
    seed: int = 0


class OodSpec(Strict):
    """One checkpoint's test on images of no known class; its parents `set NAME` hold those of the data sets."""

    sets: list[str]
    scores: list[str]
    checkpoint: Checkpoint
    images: int
    neighbours: int
    train_images: int
    attacked_scores: list[str] = []
    attacked_images: int = 0
    eps: float = 0.0
    steps: int = 10
    threads: int = 1
    seed: int = 0


class CalibrateSpec(Strict):
    """One checkpoint's class probabilities on clean, corrupted and attacked test images."""

    reference: dict[Norm, float]  # eps of the attacks; empty for none
    steps: int
    corruptions: list[str]
    severity: int
    frost_photographs: bool = False
    table: SeverityTable | None = None
    images: int
    bins: int
    temperature: bool
    checkpoint: Checkpoint
    threads: int = 1
    seed: int = 0


class ProbeSpec(Strict):
    """A kNN and a linear probe of one pre-trained backbone, and of the same one before any training."""

    reference: dict[Norm, float]  # eps of the attacks
    steps: int
    train_images: int
    images: int
    neighbours: int
    temperature: float
    init_seed: int  # of the untrained backbone: the pre-training's own
    threads: int = 1
    seed: int = 0


class DiagnoseSpec(Strict):
    """How similar the input gradients of the supervised and the SSL loss of one trained model are."""

    task: str
    own_head: bool  # the model was trained on the task, so its own head is measured, too
    arguments: dict[str, dict[str, int | float | str]] = {}  # of the task, where a config has changed them
    norm: Norm
    eps: float
    steps: int
    images: int
    head_images: int
    head_epochs: int
    checkpoint: Checkpoint = "best"
    threads: int = 1
    seed: int = 0
