"""A study's config: pydantic models that say what is allowed, with errors that say where it was not.

A config is YAML. Numbers may be written as fractions (``8/255``); every eps is in [0, 1] pixel units. Imports no torch.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

from ssrob.attacks.names import PRESET_NAMES, REFERENCE
from ssrob.catalog import BACKBONES, LOSSES, known
from ssrob.corruptions.names import BENCHMARK
from ssrob.corruptions.names import NAMES as CORRUPTION_NAMES

Norm = Literal["linf", "l2"]
Precision = Literal["float32", "bfloat16"]
Checkpoint = Literal["best", "last"]


class ConfigError(ValueError):
    """A config that cannot be run; the message names the field, what was found and what is allowed."""


def parse_number(value: object) -> object:
    """Read ``8/255`` as a fraction; leave everything else to pydantic."""
    if isinstance(value, str) and (match := re.fullmatch(r"\s*([\d.]+)\s*/\s*([\d.]+)\s*", value)):
        above, below = map(float, match.groups())
        if below == 0:
            raise ValueError(f"cannot divide by zero in {value!r}")
        return above / below
    if isinstance(value, bool):
        raise ValueError(f"expected a number, found {str(value).lower()}")
    return value


def parse_weight(value: object) -> object:
    """Check a loss weight: a number, or the study's SSL weight as ``w``, ``0.5*w`` or ``w/2``."""
    if isinstance(value, str) and not WEIGHT.fullmatch(value):
        raise ValueError(f"a weight is a number or the SSL weight as 'w', '0.5*w' or 'w/2'; found {value!r}")
    if isinstance(value, bool) or (isinstance(value, int | float) and not 0 <= value < float("inf")):
        raise ValueError(f"a weight is a finite number >= 0, found {value!r}")
    return value


def as_list(value: object) -> object:
    """Let a config write one item where a list is meant."""
    return value if isinstance(value, list | tuple) or value is None else [value]


def distinct(values: list[Any]) -> list[Any]:
    """Refuse a list that is empty or names something twice."""
    if not values:
        raise ValueError("expected at least one entry, found an empty list")
    if len(set(values)) < len(values):
        raise ValueError(f"every entry once; found {values}")
    return values


WEIGHT = re.compile(r"(?:(\d+(?:\.\d+)?)\s*\*\s*)?w(?:\s*/\s*(\d+(?:\.\d+)?))?")
_FRACTION = {"anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^[0-9.]+\s*/\s*[0-9.]+$"}]}
_WEIGHT_SCHEMA = {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": f"^{WEIGHT.pattern}$"}]}

Number = Annotated[float, BeforeValidator(parse_number), WithJsonSchema(_FRACTION)]
Positive = Annotated[Number, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[Number, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Weight = Annotated[float | str, BeforeValidator(parse_weight), WithJsonSchema(_WEIGHT_SCHEMA)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
LossName = Annotated[str, AfterValidator(lambda name: known("loss or task", name, [*LOSSES, "ssl"]))]
Task = Annotated[
    str,
    AfterValidator(lambda name: known("SSL task", name, [n for n, row in LOSSES.items() if row.self_supervised])),
]
Terms = Annotated[dict[LossName, Weight], Field(min_length=1)]


class Strict(BaseModel):
    """A frozen model that refuses unknown keys, and says which are known."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _no_unknown_keys(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and cls.model_config.get("extra") == "forbid":
            for key in value:
                known("key", str(key), cls.model_fields)
        return value


class Data(Strict):
    """A data set. Its name is its identity: where it lies (`path`) is not part of any result."""

    name: Name
    source: Literal["digits", "cifar10", "cifar100", "parquet", "folder"]
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
    split_seed: int = 0
    fingerprint: str | None = None  # when given, the prepared data must have it

    @model_validator(mode="after")
    def _has_a_path(self) -> Self:
        if self.source in ("parquet", "folder") and self.path is None:
            raise ValueError(f"source {self.source!r} needs a path, found none")
        return self


class Model(BaseModel):
    """A backbone by name with its arguments, e.g. ``{name: resnet, depth: 14, width: 32}``."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: Annotated[str, AfterValidator(lambda name: known("backbone", name, BACKBONES))]

    @model_validator(mode="after")
    def _arguments_fit(self) -> Self:
        row = BACKBONES[self.name]
        for key, value in self.arguments.items():
            known(f"argument of {self.name}", key, row.arguments)
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
    threads: Count = 1
    validate_every: Count = 1  # epochs
    validation_steps: Count = 10  # PGD steps on the validation split
    validation_images: Count | None = None
    record_every: Count = 1  # steps


class Ssl(Strict):
    """The study's SSL task and the grid of its weights w."""

    task: Task = "rotation"
    weights: Annotated[list[NotNegative], BeforeValidator(as_list), AfterValidator(distinct)] = [0.5]


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
    equal_passes: EqualPasses | None = None
    seeds: Annotated[list[int], BeforeValidator(as_list), AfterValidator(distinct)] | None = None


class Evaluation(Strict):
    """The attack sweep: an eps grid in multiples of each norm's reference eps."""

    preset: Annotated[str, AfterValidator(lambda name: known("preset", name, PRESET_NAMES))] = "fast"
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
        if self.restarts > 1 and self.preset == REFERENCE:
            raise ValueError(f"restarts: preset {REFERENCE!r} brings its own, found {self.restarts}")
        return self


class CorruptionTest(Strict):
    """The natural corruptions that every model is tested on."""

    names: Annotated[
        list[Annotated[str, AfterValidator(lambda name: known("corruption", name, CORRUPTION_NAMES))]],
        AfterValidator(distinct),
    ] = list(BENCHMARK)
    severities: Annotated[list[Annotated[int, Field(ge=1, le=5)]], AfterValidator(distinct)] = [1, 2, 3, 4, 5]
    images: Count | None = None
    frost: Path | None = None  # folder of frost photographs; a procedural ice texture stands in without one
    official: Path | None = None  # folder of the CIFAR-10-C or CIFAR-100-C files, used instead of making the images

    @model_validator(mode="after")
    def _one_frost(self) -> Self:
        if self.frost is not None and self.official is not None:
            raise ValueError("give either frost (photographs) or official (files that have frost), found both")
        return self


class Primary(Strict):
    """The cells that the verdicts are about, fixed before anything runs; all else is exploratory."""

    norm: Norm = "linf"
    task: Task = "rotation"  # default: the study's
    weight: NotNegative = 0.5  # default: the study's first
    init: Name = "random"
    pretrained: Name = "ssl"
    checkpoint: Checkpoint = "best"
    below: tuple[NotNegative, NotNegative] = (0.25, 0.75)  # eps interval of C2, multiples of the reference
    above: tuple[NotNegative, NotNegative] = (1.0, 2.0)  # eps interval of C3


class Findings(Strict):
    """How claims become verdicts."""

    primary: Primary = Primary()
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    margin: Positive = 1.0  # points: C5b's equivalence margin
    floor: NotNegative = 5.0  # per cent: cells where plain AT is below are left out of differences
    detectable: Positive = 2.0  # points: a study that cannot detect this is a demonstration


class Study(Strict):
    """A whole study: what is trained, how, on what, how it is tested and what is concluded."""

    study: Name
    title: str = ""
    plugins: list[str] = []  # modules to import first: they add losses, backbones, ... of your own
    seeds: Annotated[list[int], BeforeValidator(as_list), AfterValidator(distinct)] = [0]
    data: Data
    pretrain_data: Data | None = None
    model: Model
    threat: Annotated[dict[Norm, Threat], Field(min_length=1)]
    ssl: Ssl = Ssl()
    pretrain: Training = Training()
    finetune: Training = Training()
    pretraining: dict[Name, Pretraining] = {}
    variants: dict[Name, Variant] = {}
    arms: Annotated[list[Arms], Field(min_length=1)]
    evaluate: Evaluation = Evaluation()
    corrupt: CorruptionTest = CorruptionTest()
    findings: Findings = Findings()
    results: Path = Path("results")
    tracking_uri: str | None = None  # default: sqlite in the results folder

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        for i, block in enumerate(self.arms):
            for name in block.variant:
                known(f"variant in arms.{i}.variant", name, self.variants)
            for name in block.init:
                known(f"init in arms.{i}.init", name, ["random", *self.pretraining])
            if block.equal_passes:
                known(f"variant in arms.{i}.equal_passes", block.equal_passes.variant, self.variants)
                known(f"init in arms.{i}.equal_passes", block.equal_passes.init, ["random", *self.pretraining])
            for norm in block.norm or ():
                known(f"norm in arms.{i}.norm", norm, self.threat)
        if self.data.label_column is None:
            raise ValueError("data.label_column: the study's data needs labels, found null")
        return self
