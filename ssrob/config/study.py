"""A study's config: pydantic models that say what is allowed, with errors that say where it was not.

A config is YAML. Numbers may be written as fractions (``8/255``); every eps is in [0, 1] pixel units. Imports no torch.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from ssrob.config.fields import (
    WEIGHT,
    Checkpoint,
    ConfigError,
    Count,
    LossArgument,
    LossName,
    Name,
    Norm,
    NotNegative,
    Number,
    Positive,
    Precision,
    Seed,
    Seeds,
    SeverityTable,
    Strict,
    Task,
    Tune,
    as_list,
    distinct,
    parse_number,
)
from ssrob.config.variants import Pretraining, Ssl, Variant
from ssrob.registry.attacks import REFERENCE
from ssrob.registry.backbones import BACKBONES
from ssrob.registry.corruptions import BENCHMARK, CORRUPTIONS
from ssrob.registry.lookup import check_choice
from ssrob.registry.losses import checked_arguments
from ssrob.registry.presets import PRESETS
from ssrob.registry.sources import SOURCES

# What other modules take from here, wherever it is written.
__all__ = ["WEIGHT", "Checkpoint", "ConfigError", "Norm", "Precision", "Strict", "Tune", "Variant", "parse_number"]


def _source(name: str) -> str:
    return check_choice("data source", name, SOURCES)


class Data(Strict):
    """A data set. Its name is its identity: where it lies (`path`) is not part of any result."""

    name: Name
    source: Annotated[str, AfterValidator(_source)]
    path: Path | None = None  # parquet: folder of the files; folder: holds train/ and test/; cifar: download folder
    train: Annotated[list[str], BeforeValidator(as_list)] = ["train*.parquet"]  # parquet: file patterns in path
    test: Annotated[list[str], BeforeValidator(as_list)] = ["test*.parquet"]
    image_column: str = "image"
    label_column: str | None = "label"  # null: unlabelled, for pre-training alone
    classes: list[str] | None = None  # default: what the source itself says
    size: Annotated[int, Field(ge=4, le=1024)] | None = None  # resize to size x size pixels
    train_images: Count | None = None  # use so many images (class-balanced), before the validation split
    test_images: Count | None = None
    validation: Annotated[Number, Field(gt=0, lt=1)] = 0.1  # share of the training images
    test_share: Annotated[Number, Field(gt=0, lt=1)] = 0.25  # for sources that have no test split
    split_seed: Seed = 0
    fingerprint: str | None = None  # when given, the prepared data must have it

    @model_validator(mode="after")
    def _has_a_path(self) -> Self:
        if self.source in ("parquet", "folder") and self.path is None:
            raise ValueError(f"source {self.source!r} needs a path, found none")
        return self


class Model(BaseModel):
    """A backbone by name with its arguments, e.g. ``{name: resnet, depth: 14, width: 32}``."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: Annotated[str, AfterValidator(lambda name: check_choice("backbone", name, BACKBONES))]

    @model_validator(mode="after")
    def _arguments_fit(self) -> Self:
        row = BACKBONES[self.name]
        for key, value in self.arguments.items():
            check_choice(f"argument of {self.name}", key, row.arguments)
            if type(value) is not int or value < 1:
                raise ValueError(f"{key} must be a whole number >= 1, found {value!r}")
        if row.depth_step and "depth" in self.arguments:
            step, offset = row.depth_step
            if (self.arguments["depth"] - offset) % step or self.arguments["depth"] <= offset:
                raise ValueError(f"depth of {self.name} must be {row.depths}, found {self.arguments['depth']}")
        return self

    @property
    def arguments(self) -> dict[str, int]:
        """The backbone's arguments as given in the config."""
        return dict(self.model_extra or {})


class Threat(Strict):
    """The reference attack of a norm: its eps is the study's reference, eps grids are multiples of it."""

    eps: Positive
    steps: Count = 10
    step_size: Positive | None = None  # default 2.5 eps / steps


class Training(Strict):
    """How a network is trained: stochastic gradient descent with schedules as functions of the step."""

    epochs: Positive = 20
    batch_size: Count = 128
    lr: Positive = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = True
    weight_decay: NotNegative = 5e-4
    schedule: Literal["onecycle", "piecewise"] = "onecycle"
    warmup: Annotated[Number, Field(ge=0, lt=1)] = 0.3  # onecycle: share of the steps until the peak
    milestones: list[Annotated[Number, Field(gt=0, lt=1)]] = [0.5, 0.75]  # piecewise: LR / 10 at these shares
    augment: Annotated[list[Literal["crop", "flip"]], BeforeValidator(as_list)] = []
    crop_padding: Count = 4
    precision: Precision = "float32"
    deterministic: bool = True  # on a GPU: the same bits at every run, for some speed
    compile: bool = False  # torch.compile the backbone: other bits, a minute or more at the start
    threads: Count = 1  # of each replica
    replicas: Count = 1  # processes, each with a GPU of its own if there are any, that share every batch
    validate_every: Count = 1  # epochs
    validation_steps: Count = 10  # PGD steps on the validation split
    validation_images: Count | None = None
    record_every: Count = 1  # steps
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None  # decay of a weight average, which is judged and saved
    early_stop: Count | None = None  # stop after so many validations in a row without a better score
    label_smoothing: Annotated[Number, Field(ge=0, lt=1)] = 0.0  # of the cross-entropy that the parameters descend

    @model_validator(mode="after")
    def _replicas_share_a_batch(self) -> Self:
        if self.batch_size % self.replicas:
            raise ValueError(f"batch_size must be a multiple of replicas ({self.replicas}), found {self.batch_size}")
        return self


class EqualPasses(Strict):
    """Train for as many network passes as this arm takes (its pre-training included)."""

    variant: Name
    init: Name = "random"

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"variant": value} if isinstance(value, str) else value


class Arms(Strict):
    """A block of arms: every combination of its lists. What is left out comes from the study."""

    variant: Annotated[list[Name], BeforeValidator(as_list), AfterValidator(distinct)]
    init: Annotated[list[Name], BeforeValidator(as_list), AfterValidator(distinct)] = ["random"]
    norm: Annotated[list[Norm], BeforeValidator(as_list), AfterValidator(distinct)] | None = None
    task: Annotated[list[Task], BeforeValidator(as_list), AfterValidator(distinct)] | None = None
    weight: Annotated[list[NotNegative], BeforeValidator(as_list), AfterValidator(distinct)] | None = None
    eps_scale: Annotated[list[Positive], BeforeValidator(as_list), AfterValidator(distinct)] = [1.0]
    tune: Annotated[list[Tune], BeforeValidator(as_list), AfterValidator(distinct)] = ["full"]  # head: backbone frozen
    equal_passes: EqualPasses | None = None
    seeds: Seeds | None = None
    part: Name = "main"  # of the study: `ssrob portion` runs parts one after the other, in the order of first mention


class Evaluation(Strict):
    """The attack sweep: an eps grid in multiples of each norm's reference eps."""

    preset: Annotated[str, AfterValidator(lambda name: check_choice("preset", name, PRESETS))] = "fast"
    eps: Annotated[list[NotNegative], AfterValidator(distinct)] = [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 2]
    restarts: Count = 1  # runs of each attack that starts at random, at every eps
    images: Count | None = None
    checkpoints: Annotated[list[Checkpoint], BeforeValidator(as_list), AfterValidator(distinct)] = ["best"]
    gradients_in: Precision = "float32"
    audit_images: Annotated[int, Field(ge=0)] = 64  # attacked again, eps by eps, to check the sweep; 0: no checks
    audit_queries: Count = 250  # of a black-box attack on them

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if list(self.eps) != sorted(self.eps):
            raise ValueError(f"eps must be in ascending order, found {self.eps}")
        if not {0.0, 1.0} <= set(self.eps):
            message = "eps: multiples of the reference eps, with 0 (clean accuracy) and 1 (the reference) among them"
            raise ValueError(f"{message}; found {self.eps}")
        if self.restarts > 1 and self.preset == REFERENCE:
            raise ValueError(f"restarts: preset {REFERENCE!r} brings its own, found {self.restarts}")
        return self


class CorruptionTest(Strict):
    """The natural corruptions that every model is tested on."""

    names: Annotated[
        list[Annotated[str, AfterValidator(lambda name: check_choice("corruption", name, CORRUPTIONS))]],
        AfterValidator(distinct),
    ] = list(BENCHMARK)
    severities: Annotated[list[Annotated[int, Field(ge=1, le=5)]], AfterValidator(distinct)] = [1, 2, 3, 4, 5]
    images: Count | None = None
    frost: Path | None = None  # folder of frost photographs; a procedural ice texture stands in without one
    official: Path | None = None  # folder of the CIFAR-10-C or CIFAR-100-C files, used instead of making the images
    table: SeverityTable | None = None  # what severities mean; by default by the images' size
    baseline: Name = "standard"  # the variant that mean corruption errors are relative to

    @model_validator(mode="after")
    def _one_frost(self) -> Self:
        if self.table is not None and self.official is not None:
            raise ValueError("give either table or official (files that have severities of their own), found both")
        if self.frost is not None and self.official is not None:
            raise ValueError("give either frost (photographs) or official (files that have frost), found both")
        return self


class Probing(Strict):
    """The kNN and the linear probe of every pre-trained model, on validation images; ``probe: off`` leaves them out."""

    images: Count = 1000  # validation images, or as many as there are
    train_images: Count = 5000  # that the probes are fitted on, or as many as there are
    neighbours: Count = 20
    temperature: Positive = 0.07  # of the neighbours' votes
    steps: Count = 10  # of the attacks


class Diagnosis(Strict):
    """Gradients and transfer of perturbations between the losses of every trained model; ``diagnose: off`` for none."""

    images: Count = 256  # validation images, or as many as there are
    steps: Count = 10  # of the attacks
    head_images: Count = 2000  # training images that a fresh SSL head is fitted on, or as many as there are
    head_epochs: Count = 10


def _off(value: object) -> object:
    return None if value is False else value


class Primary(Strict):
    """The cells that the verdicts are about, fixed before anything runs; all else is exploratory."""

    norm: Norm = "linf"  # default: the study's first where this is not trained
    task: Task = "rotation"  # default: the study's
    weight: NotNegative = 0.5  # default: the study's first
    init: Name = "random"
    pretrained: Name = "ssl"
    checkpoint: Checkpoint = "best"  # default: the study's first where this is not tested
    below: tuple[NotNegative, NotNegative] = (0.25, 0.75)  # eps interval of C2, multiples of the reference
    above: tuple[NotNegative, NotNegative] = (1.0, 2.0)  # eps interval of C3; 1 itself is left out

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
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05  # level of the tests; intervals are at 1 - alpha
    margin: Positive = 1.0  # points: C5b's equivalence margin
    floor: NotNegative = 5.0  # per cent: cells where plain AT is below are left out of differences
    detectable: Positive = 2.0  # points: what is not shown by a study that cannot detect this is underpowered

    @property
    def level(self) -> str:
        """The level of the effects' intervals in words, e.g. ``95 %``."""
        return f"{100 * (1 - self.alpha):g} %"


class Study(Strict):
    """A whole study: what is trained, how, on what, how it is tested and what is concluded."""

    study: Name
    title: str = ""
    plugins: list[str] = []  # modules to import first: they add losses, backbones, ... of your own
    seeds: Seeds = [0]
    data: Data
    pretrain_data: Data | None = None
    model: Model
    threat: Annotated[dict[Norm, Threat], Field(min_length=1)]
    ssl: Ssl = Ssl()
    pretrain: Training = Training()
    finetune: Training = Training()
    pretraining: dict[Name, Pretraining] = {}
    variants: dict[Name, Variant] = {}
    losses: dict[LossName, dict[str, LossArgument]] = {}  # arguments of losses, e.g. {jigsaw: {grid: 3}}
    arms: Annotated[list[Arms], Field(min_length=1)]
    evaluate: Evaluation = Evaluation()
    corrupt: CorruptionTest = CorruptionTest()
    probe: Annotated[Probing | None, BeforeValidator(_off)] = Probing()
    diagnose: Annotated[Diagnosis | None, BeforeValidator(_off)] = Diagnosis()
    findings: Findings = Findings()
    results: Path = Path("results")
    cuda_graphs: bool = True  # on a GPU: record training steps and replay them; decides no result
    tracking_uri: str | None = None  # default: sqlite in the results folder
    device: Literal["auto", "cpu", "cuda"] = "auto"  # cuda: no stage runs on a CPU because a GPU is missing
    jobs_per_gpu: Count = 1  # how many stages may share a GPU: more than one for small models

    @field_validator("losses", mode="after")
    @classmethod
    def _losses_take_their_arguments(cls, losses: dict[str, dict[str, int | float]]) -> dict[str, Any]:
        for name, given in losses.items():
            try:
                checked_arguments(name, given)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        return losses

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        for i, block in enumerate(self.arms):
            for name in block.variant:
                check_choice(f"variant in arms.{i}.variant", name, self.variants)
            for name in block.init:
                check_choice(f"init in arms.{i}.init", name, ["random", *self.pretraining])
            if block.equal_passes:
                check_choice(f"variant in arms.{i}.equal_passes", block.equal_passes.variant, self.variants)
                check_choice(f"init in arms.{i}.equal_passes", block.equal_passes.init, ["random", *self.pretraining])
            for norm in block.norm or ():
                check_choice(f"norm in arms.{i}.norm", norm, self.threat)
        for name, row in self.variants.items():
            for field in ("base", "control_of"):
                if (other := getattr(row, field)) is not None:
                    check_choice(f"variant in variants.{name}.{field}", other, self.variants)
        self._refuse_without_effect()
        self._linf_stays_in_the_box()
        if self.data.label_column is None:
            raise ValueError("data.label_column: the study's data needs labels, found null")
        return self

    def _refuse_without_effect(self) -> None:
        """Refuse a block's weights or tasks where nothing of it depends on them."""
        for i, block in enumerate(self.arms):
            like = [block.equal_passes] if block.equal_passes else []
            ways = [self.variants[name] for name in (*block.variant, *(each.variant for each in like))]
            inits = [self.pretraining.get(name) for name in (*block.init, *(each.init for each in like))]
            before = [each.objective for each in inits if each is not None and each.objective is not None]
            if block.weight is not None and not any(way.uses_weight for way in ways):
                raise ValueError(f"arms.{i}.weight: no weight of {', '.join(block.variant)} depends on w; leave it out")
            if block.task is not None and not any(way.uses_ssl for way in (*ways, *before)):
                raise ValueError(f"arms.{i}.task: {', '.join(block.variant)} has no SSL task; leave it out")

    def _linf_stays_in_the_box(self) -> None:
        """Refuse budgets that change any pixel into any other: nobody means them, and no attack takes them."""
        if "linf" not in self.threat:
            return
        eps, most = self.threat["linf"].eps, max(self.evaluate.eps)
        units = "linf eps is in [0, 1] pixel units (8 grey levels are 8/255)"
        if eps > 1:
            raise ValueError(f"threat.linf.eps: {units}, found {eps:g}")
        scales = {f"arms.{i}.eps_scale": max(block.eps_scale) for i, block in enumerate(self.arms)}
        for where, scale in {"evaluate.eps": most, **scales}.items():
            if eps * scale > 1:
                raise ValueError(f"{where}: {units}, found {scale:g} times the reference {eps:g}")
