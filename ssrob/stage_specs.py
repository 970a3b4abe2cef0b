"""What one stage is: everything that decides its result, resolved to numbers. Hashed into the stage's key."""

from typing import Literal

from ssrob.catalog import LOSSES, Widths
from ssrob.fields import Checkpoint, Norm, Precision, Strict, Tune
from ssrob.spec import Model, Training

Terms = dict[str, float]  # loss name -> weight


class Perturbation(Strict):
    """One adversarial perturbation: the weighted losses that it climbs, in its ball, in so many steps."""

    climb: Terms
    norm: Norm
    eps: float
    steps: int
    step_size: float


class Objective(Strict):
    """What a training step computes: perturbations, then a weighted sum of losses per image set."""

    perturb: dict[str, Perturbation] = {}
    train: dict[str, Terms]
    attack_mode: Literal["eval", "train"] = "eval"

    @property
    def losses(self) -> list[str]:
        """Every loss that is used, once, in order of first use."""
        terms = [*self.train.values(), *(p.climb for p in self.perturb.values())]
        return list(dict.fromkeys(name for each in terms for name in each))

    @property
    def heads(self) -> dict[str, Widths]:
        """Heads that the losses need beside the class head: name -> widths."""
        return {head: widths for name in self.losses for head, widths in LOSSES[name].heads.items()}


class TrainSpec(Strict):
    """One pre-training or fine-tuning. The names say which arm of a study it is; the rest says what happens."""

    data: str
    variant: str
    init: str = "random"
    task: str | None = None
    weight: float | None = None
    norm: Norm | None = None
    eps_train: float | None = None
    eps_scale: float = 1.0
    tune: Tune = "full"  # head: the heads alone are trained, the backbone stays as it is, in eval mode
    budget: str | None = None  # "passes of ..." when the epochs were stretched to another arm's cost
    seed: int
    model: Model
    objective: Objective
    training: Training
    init_sha256: str | None = None  # content of the user's own weights, when they are the init


class EvaluateSpec(Strict):
    """One attack sweep of one checkpoint, over both norms."""

    eps: dict[Norm, list[float]]
    reference: dict[Norm, float]
    preset: str
    restarts: int = 1
    checkpoint: Checkpoint
    images: int | None = None
    gradients_in: Precision = "float32"
    audit_images: int = 64
    audit_queries: int = 250
    threads: int = 1
    seed: int = 0


class CorruptSpec(Strict):
    """One checkpoint's test on natural corruptions."""

    names: list[str]
    severities: list[int]
    checkpoint: Checkpoint
    images: int | None = None
    frost_photographs: bool = False
    official: bool = False  # the published files; where they lie is a setting
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
    """How alike the supervised and the SSL loss of one trained model are, seen from its input."""

    task: str
    own_head: bool  # the model was trained on the task, so that its own head can be asked, too
    norm: Norm
    eps: float
    steps: int
    images: int
    head_images: int
    head_epochs: int
    checkpoint: Checkpoint = "best"
    threads: int = 1
    seed: int = 0
