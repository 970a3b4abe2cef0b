"""From a study to its stages. A stage's key says everything that decides its result; imports no torch."""

import functools
import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ssrob.cost import epochs_passes
from ssrob.measurements import corrupt_spec, diagnose_specs, evaluate_spec, probe_spec
from ssrob.resolve import budget_label, resolve_objective
from ssrob.slugs import slug
from ssrob.spec import (
    Arms,
    Checkpoint,
    ConfigError,
    Data,
    EqualPasses,
    Norm,
    Strict,
    Study,
    Training,
    Tune,
    Variant,
)
from ssrob.stage_specs import Objective, TrainSpec

# Raised by hand when code changes what a kind of stage computes, or a default of its spec changes.
REVISIONS = {
    "data": 1,
    "pretrain": 2,
    "probe": 1,
    "finetune": 2,
    "diagnose": 1,
    "evaluate": 1,
    "corrupt": 1,
    "study": 2,
}
LONGEST_KEY = 240  # characters; file systems take 255
OPERATIONAL = {"path", "fingerprint"}  # fields of a data set that decide no result


@dataclass(frozen=True)
class Stage:
    """One unit of cached work: a spec, the stages it reads, and settings that cannot change its result."""

    kind: str
    key: str
    spec: dict[str, Any]
    parents: dict[str, str] = field(default_factory=dict)  # role -> "kind/key"
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """The stage's place below ``results/stages``."""
        return f"{self.kind}/{self.key}"

    @property
    def threads(self) -> int:
        """CPU threads that it computes with; part of its spec, as sums over other numbers of threads differ in bits."""
        return int(self.spec.get("threads", self._training.get("threads", 1)))

    @property
    def cores(self) -> int:
        """CPU cores that it keeps busy: its threads in each of its replicas."""
        return self.threads * int(self._training.get("replicas", 1))

    @property
    def gpus(self) -> int:
        """GPUs that it uses where there are any: as many as it trains replicas, none for a data stage."""
        return 0 if self.kind == "data" else int(self._training.get("replicas", 1))

    @property
    def _training(self) -> dict[str, Any]:
        training: dict[str, Any] = self.spec.get("training", {})
        return training

    def to_json(self) -> str:
        """Write the stage as canonical JSON, the form in which a rule passes it on the command line."""
        return canonical(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Stage":
        """Read a stage and check that its key belongs to its contents."""
        try:
            stage = cls(**json.loads(text))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"expected a stage as JSON, as a workflow rule passes it: {error}") from None
        slug, _, _ = stage.key.rpartition("-")
        if stage.key != f"{slug}-{_digest(stage.kind, stage.spec, stage.parents)}":
            raise ConfigError(f"stage {stage.path}: its key does not belong to its spec; was it edited by hand?")
        return stage


@dataclass(frozen=True)
class Arm:
    """One trained model of a study: the columns that a plot needs, and the stages that belong to it."""

    variant: str
    init: str
    init_task: str | None  # that the init was pre-trained on
    task: str | None
    weight: float | None
    norm: Norm | None
    eps_scale: float
    eps_train: float | None
    budget: str | None
    seed: int
    finetune: str
    pretrain: str | None
    probe: str | None
    diagnose: dict[str, str]  # SSL task -> stage
    evaluate: dict[Checkpoint, str]
    corrupt: dict[Checkpoint, str]
    tune: Tune = "full"

    def told(self) -> dict[str, Any]:
        """Return its fields without the defaults: a new field changes no digest."""
        return {each.name: value for each in fields(self) if (value := getattr(self, each.name)) != each.default}


@dataclass(frozen=True)
class Cell:
    """One combination of what a block of arms lists."""

    seed: int
    norm: Norm
    variant: str
    init: str
    task: str
    weight: float
    eps_scale: float
    tune: Tune


@dataclass(frozen=True)
class Plan:
    """A study, its stages by path in an order in which they can run, and its arms."""

    study: Study
    stages: dict[str, Stage]
    arms: list[Arm]
    parts: dict[str, str] = field(default_factory=dict)  # trained model -> the part of the study that it belongs to
    whole: "Plan | None" = None  # of which this is the finished part

    @functools.cached_property
    def digest(self) -> str:
        """What the collected tables and the report depend on."""
        if self.whole:
            return self.whole.digest
        told = {
            name: getattr(self.study, name) for name in ("title", "seeds", "threat", "evaluate", "corrupt", "findings")
        }
        spec = {name: _dump(value) for name, value in told.items()}
        return _digest("study", spec, {"arms": canonical([arm.told() for arm in self.arms])})

    @property
    def folder(self) -> Path:
        """Where the study's tables, figures and report go; those of its finished part are no result of the workflow."""
        folder = self.study.results / "studies" / self.study.study / self.digest
        return folder / "partial" if self.whole else folder

    def of_kind(self, kind: str) -> dict[str, Stage]:
        """Return the stages of a kind by key."""
        return {stage.key: stage for stage in self.stages.values() if stage.kind == kind}


def make_plan(study: Study) -> Plan:
    """Expand a study into its stages and arms."""
    stages: dict[str, Stage] = {}
    arms: dict[str, Arm] = {}
    parts: dict[str, str] = {}
    for block in study.arms:
        for cell in _cells(study, block):
            new, arm = _arm(study, block, cell)
            stages.update((stage.path, stage) for stage in new)
            arms[arm.finetune] = arm
            parts.setdefault(arm.finetune, block.part)
    order = {kind: i for i, kind in enumerate(REVISIONS)}
    ordered = sorted(stages.values(), key=lambda stage: order[stage.kind])
    return Plan(study, {stage.path: stage for stage in ordered}, list(arms.values()), parts)


def data_stage(data: Data, plugins: Sequence[str] = ()) -> Stage:
    """Return the stage that prepares a data set; where it lies is a setting, not part of its identity."""
    settings: dict[str, Any] = {"plugins": list(plugins)} if plugins else {}
    settings |= {name: str(value) for name in OPERATIONAL if (value := getattr(data, name)) is not None}
    return _stage("data", data.name, data.model_copy(update=dict.fromkeys(OPERATIONAL)), {}, settings)


def data_of(stage: Stage) -> Data:
    """Return the data set of a data stage, with where it lies."""
    return Data.model_validate(stage.spec | {name: stage.settings[name] for name in OPERATIONAL & set(stage.settings)})


def canonical(value: object) -> str:
    """Write JSON in the one form that is hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _cells(study: Study, block: Arms) -> Iterator[Cell]:
    grid = itertools.product(
        block.seeds or study.seeds,
        block.norm or list(study.threat),
        block.variant,
        block.init,
        block.task or [study.ssl.task],
        block.weight or study.ssl.weights,
        block.eps_scale,
        block.tune,
    )
    return itertools.starmap(Cell, grid)


def _arm(study: Study, block: Arms, cell: Cell) -> tuple[list[Stage], Arm]:
    """Make the stages of one cell."""
    data = data_stage(study.data, study.plugins)
    before = _init_stages(study, cell)
    spec = _finetune_spec(study, cell)
    if block.equal_passes:
        spec = _stretched(study, spec, block.equal_passes, cell)
    parents, settings = {"data": data.path}, _settings(study)
    if before:
        parents["init"] = before[-1].path
    elif cell.init != "random" and (weights := study.pretraining[cell.init].weights):
        spec = spec.model_copy(update={"init_sha256": file_sha256(weights)})
        settings["weights"] = str(weights)
    _refuse_without_effect(spec, "finetune")
    train = _stage("finetune", slug(spec), spec, parents, settings)
    tests = {
        kind: {
            checkpoint: _test_stage(study, kind, checkpoint, data, train) for checkpoint in study.evaluate.checkpoints
        }
        for kind in ("evaluate", "corrupt")
    }
    probe, diagnoses = _probe(study, data, before), _diagnoses(study, data, train, spec)
    arm = Arm(
        **spec.model_dump(include=set(Arm.__dataclass_fields__) & set(TrainSpec.model_fields)),
        init_task=before[-1].spec.get("task") if before else None,
        finetune=train.path,
        pretrain=before[-1].path if before else None,
        probe=probe[0].path if probe else None,
        diagnose={task: stage.path for task, stage in diagnoses.items()},
        evaluate={checkpoint: stage.path for checkpoint, stage in tests["evaluate"].items()},
        corrupt={checkpoint: stage.path for checkpoint, stage in tests["corrupt"].items()},
    )
    tested = [stage for by_checkpoint in tests.values() for stage in by_checkpoint.values()]
    return [data, *before, *probe, train, *diagnoses.values(), *tested], arm


def _finetune_spec(study: Study, cell: Cell) -> TrainSpec:
    """Resolve a cell. What a variant does not use (norm, task, weight) is no part of its identity."""
    variant = study.variants[cell.variant]
    objective = _objective(study, variant, cell, cell.weight, cell.eps_scale)
    return TrainSpec(
        data=study.data.name,
        variant=cell.variant,
        init=cell.init,
        task=cell.task if variant.uses_ssl else None,
        weight=cell.weight if variant.uses_weight else None,
        seed=cell.seed,
        model=study.model,
        objective=objective,
        training=study.finetune,
        tune=cell.tune,
        **_attack_columns(study, objective, cell.norm, cell.eps_scale),
    )


def _init_stages(study: Study, cell: Cell) -> list[Stage]:
    """Return the pre-training that an init names and its data; nothing for random or for the user's own weights."""
    row = study.pretraining.get(cell.init)
    if row is None or row.objective is None:
        return []
    source = study.pretrain_data or study.data
    data = data_stage(source, study.plugins)
    objective = _objective(study, row.objective, cell, 1.0, row.eps_scale)
    spec = TrainSpec(
        data=source.name,
        variant=cell.init,
        task=cell.task if row.objective.uses_ssl else None,
        seed=cell.seed,
        model=study.model,
        objective=objective,
        training=study.pretrain,
        **_attack_columns(study, objective, cell.norm, row.eps_scale),
    )
    _refuse_without_effect(spec, "pretrain")
    return [data, _stage("pretrain", slug(spec), spec, {"data": data.path}, _settings(study))]


def _refuse_without_effect(spec: TrainSpec, section: str) -> None:
    """Refuse a setting that a training would ignore."""
    if spec.training.label_smoothing and not any(terms.get("xent") for terms in spec.objective.train.values()):
        told = ", ".join(spec.objective.losses)
        raise ConfigError(
            f"{section}.label_smoothing: {spec.variant!r} trains on no labels' cross-entropy (xent), found {told}"
        )
    silent = any(not weight for terms in spec.objective.train.values() for weight in terms.values())
    if spec.tune == "head" and (silent or spec.objective.attack_mode == "train"):
        told = "forward" if silent else "attack_mode: train"
        raise ConfigError(
            f"arms: variant {spec.variant!r} moves BatchNorm statistics ({told}), which tune: head leaves as they are"
        )


def _objective(study: Study, variant: Variant, cell: Cell, weight: float, eps_scale: float) -> Objective:
    return resolve_objective(study, variant, norm=cell.norm, task=cell.task, weight=weight, eps_scale=eps_scale)


def _attack_columns(study: Study, objective: Objective, norm: Norm, eps_scale: float) -> dict[str, Any]:
    """Return the norm and eps that a model is trained on; none without a perturbation."""
    if not objective.perturb:
        return {}
    return {"norm": norm, "eps_train": study.threat[norm].eps * eps_scale, "eps_scale": eps_scale}


def _stretched(study: Study, spec: TrainSpec, like: EqualPasses, cell: Cell) -> TrainSpec:
    """Give a spec the epochs that cost as many passes as another arm, its pre-training included."""
    objective = _objective(study, study.variants[like.variant], cell, cell.weight, 1.0)
    passes = _passes(objective, study.finetune)
    row = study.pretraining.get(like.init)
    if row is not None and row.objective is not None:
        if study.pretrain_data is not None:
            raise ConfigError("equal_passes: an init that was pre-trained on other data has no comparable passes")
        passes += _passes(_objective(study, row.objective, cell, 1.0, row.eps_scale), study.pretrain)
    epochs = round(passes / epochs_passes(spec.objective, 1.0, 1.0, spec.tune), 4)
    training = spec.training.model_copy(update={"epochs": epochs})
    task = cell.task if row or study.variants[like.variant].uses_ssl else None
    budget = budget_label(like.variant, task, like.init)
    return spec.model_copy(update={"training": training, "budget": budget})


def _passes(objective: Objective, training: Training) -> float:
    return epochs_passes(objective, training.epochs, training.epochs)


def _probe(study: Study, data: Stage, before: list[Stage]) -> list[Stage]:
    """Return the probe of a cell's pre-training, on the labelled data; nothing where there is none."""
    if study.probe is None or not before:
        return []
    pretrained = before[-1]
    spec = probe_spec(study, study.probe, TrainSpec.model_validate(pretrained.spec))
    slug = pretrained.key.rpartition("-")[0]
    return [_stage("probe", slug, spec, {"data": data.path, "model": pretrained.path}, _settings(study))]


def _diagnoses(study: Study, data: Stage, train: Stage, trained: TrainSpec) -> dict[str, Stage]:
    """Return a model's diagnoses by SSL task."""
    specs = diagnose_specs(study, study.diagnose, trained) if study.diagnose else []
    slug, parents = train.key.rpartition("-")[0], {"data": data.path, "model": train.path}
    return {spec.task: _stage("diagnose", f"{slug}-by-{spec.task}", spec, parents, _settings(study)) for spec in specs}


def _test_stage(study: Study, kind: str, checkpoint: Checkpoint, data: Stage, train: Stage) -> Stage:
    """Return the sweep or the corruption test of one checkpoint of a trained model."""
    slug = f"{train.key.rpartition('-')[0]}-{checkpoint}"
    parents = {"data": data.path, "model": train.path}
    if kind == "evaluate":
        return _stage(kind, slug, evaluate_spec(study, checkpoint), parents, _settings(study))
    folders = {name: str(path) for name in ("frost", "official") if (path := getattr(study.corrupt, name))}
    return _stage(kind, slug, corrupt_spec(study, checkpoint), parents, _settings(study) | folders)


def _settings(study: Study) -> dict[str, Any]:
    """Return what decides no key: modules that a stage imports first (all they add is in its spec), use of the GPU."""
    told: dict[str, Any] = {"plugins": study.plugins}
    told |= {name: getattr(study, name) for name in ("jobs_per_gpu", "device") if name in study.model_fields_set}
    graphs = {} if study.cuda_graphs else {"cuda_graphs": False}
    return {name: value for name, value in told.items() if value not in ([], 1, "auto")} | graphs


def _stage(
    kind: str, slug: str, spec: Strict, parents: dict[str, str], settings: dict[str, Any] | None = None
) -> Stage:
    # Sorted, as it comes back from the command line: losses added up in another order would give other bits.
    dumped = json.loads(canonical(_dump(spec)))
    key = f"{slug}-{_digest(kind, dumped, parents)}"
    if len(key) > LONGEST_KEY:
        raise ConfigError(f"names: a folder called {key[:60]}... would have {len(key)} characters; shorten names in it")
    return Stage(kind, key, dumped, parents, settings or {})


def _dump(value: Any) -> Any:
    """Dump a spec without its defaults, so that a new field with a default changes no key."""
    if isinstance(value, Strict):
        return value.model_dump(mode="json", exclude_defaults=True)
    if isinstance(value, dict):
        return {key: _dump(inner) for key, inner in value.items()}
    return value


def _digest(kind: str, spec: dict[str, Any], parents: dict[str, str]) -> str:
    told = {"kind": kind, "revision": REVISIONS[kind], "spec": spec, "parents": parents}
    return hashlib.sha256(canonical(told).encode()).hexdigest()[:10]


@functools.cache
def file_sha256(path: Path) -> str:
    """Hash a file's content."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
