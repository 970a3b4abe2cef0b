"""From a study to its stages. A stage's key says everything that decides its result; imports no torch."""

import functools
import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ssrob.cost import step_passes
from ssrob.spec import (
    _WEIGHT,
    Arms,
    Checkpoint,
    ConfigError,
    Data,
    EqualPasses,
    Norm,
    Pretraining,
    Strict,
    Study,
    Training,
    Variant,
)
from ssrob.stage_specs import CorruptSpec, EvaluateSpec, Objective, Perturbation, TrainSpec

# Raised by hand when code changes what a kind of stage computes, or a default of its spec changes.
REVISIONS = {"data": 1, "pretrain": 1, "finetune": 1, "evaluate": 1, "corrupt": 1, "study": 1}
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

    def to_json(self) -> str:
        """Write the stage as canonical JSON, the form in which a rule passes it on the command line."""
        return canonical(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Stage":
        """Read a stage and check that its key belongs to its contents."""
        stage = cls(**json.loads(text))
        slug, _, _ = stage.key.rpartition("-")
        if stage.key != f"{slug}-{_digest(stage.kind, stage.spec, stage.parents)}":
            raise ConfigError(f"stage {stage.path}: its key does not belong to its spec; was it edited by hand?")
        return stage


@dataclass(frozen=True)
class Arm:
    """One trained model of a study: the columns that a plot needs, and the stages that belong to it."""

    variant: str
    init: str
    task: str | None
    weight: float | None
    norm: Norm | None
    eps_scale: float
    eps_train: float | None
    budget: str | None
    seed: int
    finetune: str
    pretrain: str | None
    evaluate: dict[Checkpoint, str]
    corrupt: dict[Checkpoint, str]


@dataclass(frozen=True)
class Plan:
    """A study, its stages by path in an order in which they can run, and its arms."""

    study: Study
    stages: dict[str, Stage]
    arms: list[Arm]

    @functools.cached_property
    def digest(self) -> str:
        """What the collected tables and the report depend on."""
        told = {name: getattr(self.study, name) for name in ("title", "seeds", "threat", "evaluate", "corrupt", "findings")}
        spec = {name: _dump(value) for name, value in told.items()}
        return _digest("study", spec, {"arms": canonical([asdict(arm) for arm in self.arms])})

    @property
    def folder(self) -> Path:
        """Where the study's tables, figures and report go."""
        return self.study.results / "studies" / self.study.study / self.digest

    def of_kind(self, kind: str) -> dict[str, Stage]:
        """Return the stages of a kind by key."""
        return {stage.key: stage for stage in self.stages.values() if stage.kind == kind}


def make_plan(study: Study) -> Plan:
    """Expand a study into its stages and arms."""
    stages: dict[str, Stage] = {}
    arms: dict[str, Arm] = {}
    for block in study.arms:
        for cell in _cells(study, block):
            new, arm = _arm(study, block, *cell)
            stages.update((stage.path, stage) for stage in new)
            arms[arm.finetune] = arm
    order = {kind: i for i, kind in enumerate(REVISIONS)}
    ordered = sorted(stages.values(), key=lambda stage: order[stage.kind])
    return Plan(study, {stage.path: stage for stage in ordered}, list(arms.values()))


def resolve_objective(
    variant: Variant, study: Study, *, norm: Norm, task: str, weight: float, eps_scale: float = 1.0
) -> Objective:
    """Put numbers for the names: the task for `ssl`, the weight for `w`, the reference attack for each perturbation.

    Terms of weight zero vanish here, before any forward pass or random draw, and with them every perturbation that
    nothing is trained on: with w = 0 a variant *is* its baseline.
    """
    train = {name: terms for name, raw in variant.train.items() if (terms := _resolve_terms(raw, task, weight))}
    if not train:
        raise ConfigError("an objective whose terms all have weight zero trains nothing")
    if variant.normalise_weights:
        total = sum(weight for terms in train.values() for weight in terms.values())
        train = {name: {loss: value / total for loss, value in terms.items()} for name, terms in train.items()}
    perturb = {}
    for name, raw in variant.perturb.items():
        climb = _resolve_terms(raw.climb, task, weight)
        if name in train and not climb:
            raise ConfigError(f"perturbation {name!r}: every loss it climbs has weight zero")
        if name in train:
            threat = study.threat.get(raw.norm or norm)
            if threat is None:
                raise ConfigError(f"perturbation {name!r}: norm {raw.norm!r} is not under threat")
            scale, steps = eps_scale * raw.eps_scale, raw.steps or threat.steps
            size = threat.step_size * threat.steps / steps if threat.step_size else 2.5 * threat.eps / steps
            perturb[name] = Perturbation(
                climb=climb, norm=raw.norm or norm, eps=threat.eps * scale, steps=steps, step_size=size * scale
            )
    return Objective(perturb=perturb, train=train, attack_mode=variant.attack_mode)


def canonical(value: object) -> str:
    """Write JSON in the one form that is hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _cells(study: Study, block: Arms) -> Iterator[tuple[str, str, str, float, Norm, float, int]]:
    norms = block.norm or list(study.threat)
    tasks = block.task or [study.ssl.task]
    weights = block.weight or study.ssl.weights
    grid = itertools.product(
        block.seeds or study.seeds, norms, block.variant, block.init, tasks, weights, block.eps_scale
    )
    for seed, norm, variant, init, task, weight, eps_scale in grid:
        yield variant, init, task, weight, norm, eps_scale, seed


def _arm(
    study: Study, block: Arms, name: str, init: str, task: str, weight: float, norm: Norm, eps_scale: float, seed: int
) -> tuple[list[Stage], Arm]:
    """Make the stages of one cell. What a variant does not use (norm, task, weight) is no part of its identity."""
    variant = study.variants[name]
    data = _data_stage(study.data)
    before = _init_stages(study, init, task, norm, seed)
    objective = resolve_objective(variant, study, norm=norm, task=task, weight=weight, eps_scale=eps_scale)
    adversarial = bool(objective.perturb)
    spec = TrainSpec(
        data=study.data.name,
        variant=name,
        init=init,
        task=task if variant.uses_ssl else None,
        weight=weight if variant.uses_weight else None,
        norm=norm if adversarial else None,
        eps_train=study.threat[norm].eps * eps_scale if adversarial else None,
        eps_scale=eps_scale if adversarial else 1.0,
        seed=seed,
        model=study.model,
        objective=objective,
        training=study.finetune,
    )
    if block.equal_passes:
        spec = _stretched(study, spec, block.equal_passes, task, weight, norm)
    parents = {"data": data.path}
    settings = {}
    if before:
        parents["init"] = before[-1].path
    elif init != "random":
        weights = study.pretraining[init].weights
        assert weights is not None
        spec = spec.model_copy(update={"init_sha256": file_sha256(weights)})
        settings["weights"] = str(weights)
    train = _stage("finetune", _slug(spec), spec, parents, settings)
    tests: dict[str, dict[Checkpoint, Stage]] = {"evaluate": {}, "corrupt": {}}
    for checkpoint in study.evaluate.checkpoints:
        slug = f"{_slug(spec)}-{checkpoint}"
        read = {"data": data.path, "model": train.path}
        tests["evaluate"][checkpoint] = _stage("evaluate", slug, _evaluate_spec(study, checkpoint), read)
        frost = {"frost": str(study.corrupt.frost)} if study.corrupt.frost else {}
        tests["corrupt"][checkpoint] = _stage("corrupt", slug, _corrupt_spec(study, checkpoint), read, frost)
    arm = Arm(
        **spec.model_dump(include=set(Arm.__dataclass_fields__) & set(TrainSpec.model_fields)),
        finetune=train.path,
        pretrain=before[-1].path if before else None,
        evaluate={checkpoint: stage.path for checkpoint, stage in tests["evaluate"].items()},
        corrupt={checkpoint: stage.path for checkpoint, stage in tests["corrupt"].items()},
    )
    return [data, *before, train, *tests["evaluate"].values(), *tests["corrupt"].values()], arm


def _init_stages(study: Study, init: str, task: str, norm: Norm, seed: int) -> list[Stage]:
    """Return the pre-training that an init names and its data; nothing for random or for the user's own weights."""
    row = study.pretraining.get(init)
    if row is None or row.objective is None:
        return []
    data = _data_stage(study.pretrain_data or study.data)
    objective = _pretrain_objective(study, row, task, norm)
    spec = TrainSpec(
        data=(study.pretrain_data or study.data).name,
        variant=init,
        task=task if row.objective.uses_ssl else None,
        norm=norm if objective.perturb else None,
        eps_train=study.threat[norm].eps * row.eps_scale if objective.perturb else None,
        eps_scale=row.eps_scale if objective.perturb else 1.0,
        seed=seed,
        model=study.model,
        objective=objective,
        training=study.pretrain,
    )
    return [data, _stage("pretrain", _slug(spec), spec, {"data": data.path})]


def _pretrain_objective(study: Study, row: Pretraining, task: str, norm: Norm) -> Objective:
    assert row.objective is not None
    return resolve_objective(row.objective, study, norm=norm, task=task, weight=1.0, eps_scale=row.eps_scale)


def _stretched(study: Study, spec: TrainSpec, like: EqualPasses, task: str, weight: float, norm: Norm) -> TrainSpec:
    """Give a spec the epochs that cost as many passes as another arm, its pre-training included."""
    objective = resolve_objective(study.variants[like.variant], study, norm=norm, task=task, weight=weight)
    passes = _total_passes(objective, study.finetune)
    row = study.pretraining.get(like.init)
    label = f"passes of {like.variant}"
    if row is not None and row.objective is not None:
        if study.pretrain_data is not None:
            raise ConfigError("equal_passes: an init that was pre-trained on other data has no comparable passes")
        passes += _total_passes(_pretrain_objective(study, row, task, norm), study.pretrain)
        label = f"passes of {like.init} + {like.variant}"
    epochs = round(passes / step_passes(spec.objective).equivalent, 4)
    if study.variants[like.variant].uses_ssl or row is not None:
        label += f" ({task})" if task != "rotation" else ""
    training = spec.training.model_copy(update={"epochs": epochs})
    return spec.model_copy(update={"training": training, "budget": label})


def _total_passes(objective: Objective, training: Training) -> float:
    return step_passes(objective).equivalent * training.epochs


def _data_stage(data: Data) -> Stage:
    settings = {name: str(value) for name in OPERATIONAL if (value := getattr(data, name)) is not None}
    return _stage("data", data.name, data.model_copy(update=dict.fromkeys(OPERATIONAL)), {}, settings)


def _evaluate_spec(study: Study, checkpoint: Checkpoint) -> EvaluateSpec:
    reference = {norm: threat.eps for norm, threat in study.threat.items()}
    return EvaluateSpec(
        eps={norm: [multiple * eps for multiple in study.evaluate.eps] for norm, eps in reference.items()},
        reference=reference,
        checkpoint=checkpoint,
        threads=study.finetune.threads,
        **study.evaluate.model_dump(include={"preset", "images", "gradients_in"}),
    )


def _corrupt_spec(study: Study, checkpoint: Checkpoint) -> CorruptSpec:
    return CorruptSpec(
        checkpoint=checkpoint,
        threads=study.finetune.threads,
        frost_photographs=study.corrupt.frost is not None,
        **study.corrupt.model_dump(include={"names", "severities", "images"}),
    )


def _stage(
    kind: str, slug: str, spec: Strict, parents: dict[str, str], settings: dict[str, Any] | None = None
) -> Stage:
    dumped = _dump(spec)
    return Stage(kind, f"{slug}-{_digest(kind, dumped, parents)}", dumped, parents, settings or {})


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


def _slug(spec: TrainSpec) -> str:
    parts = [spec.data, *([spec.init] if spec.init != "random" else []), spec.variant]
    parts += [spec.task] if spec.task else []
    parts += [f"w{spec.weight:g}"] if spec.weight is not None else []
    parts += [f"{spec.norm}{_eps_name(spec)}"] if spec.norm and spec.eps_train else []
    parts += ["long"] if spec.budget else []
    return "-".join([*parts, f"s{spec.seed}"])


def _eps_name(spec: TrainSpec) -> str:
    assert spec.eps_train is not None
    pixels = spec.eps_train * 255
    if spec.norm == "linf" and abs(pixels - round(pixels)) < 1e-6:
        return f"{round(pixels)}"
    return f"{spec.eps_train:.4g}"


def _resolve_terms(terms: dict[str, float | str], task: str, weight: float) -> dict[str, float]:
    resolved: dict[str, float] = {}
    for name, raw in terms.items():
        value = _resolve_weight(raw, weight)
        if value:
            loss = task if name == "ssl" else name
            resolved[loss] = resolved.get(loss, 0.0) + value
    return resolved


def _resolve_weight(raw: float | str, weight: float) -> float:
    if not isinstance(raw, str):
        return float(raw)
    match = _WEIGHT.fullmatch(raw)
    assert match is not None
    times, over = match.groups()
    return float(times or 1) * weight / float(over or 1)


@functools.cache
def file_sha256(path: Path) -> str:
    """Hash a file's content."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
