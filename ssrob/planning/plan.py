"""From a study to its stages and arms. Imports no torch."""

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssrob.config.arms import Arms, EqualPasses
from ssrob.config.data import Data
from ssrob.config.fields import Checkpoint, ConfigError, Norm
from ssrob.config.study import Study
from ssrob.config.training import Training
from ssrob.config.variants import Variant
from ssrob.planning.cost import step_passes
from ssrob.planning.evaluation_specs import corrupt_spec, diagnose_specs, evaluate_spec, probe_spec
from ssrob.planning.names import ArmColumns, arm_id, budget_label
from ssrob.planning.objectives import resolve_objective
from ssrob.planning.ood_specs import compared_first
from ssrob.planning.specs import Objective, TrainSpec
from ssrob.planning.stage import Stage, canonical, data_stage, digest, dump, file_sha256, make_stage
from ssrob.registry.lookup import load
from ssrob.registry.sources import SOURCES
from ssrob.registry.stages import STAGES

HASHED = ("init", "task", "weight", "norm", "eps_scale", "eps_train", "budget")  # of an arm, also where at the default

LATER = ("ood", "calibrate")  # sections of a config that older digests do not have


class Arm(ArmColumns):
    """One trained model of a study: the columns that a plot needs, and the stages that belong to it."""

    init_task: str | None  # that the init was pre-trained on
    finetune: str
    pretrain: str | None
    probe: str | None
    diagnose: dict[str, str]  # SSL task -> stage
    evaluate: dict[Checkpoint, str]
    corrupt: dict[Checkpoint, str]

    def hashed(self) -> dict[str, Any]:
        """Return what the study's digest is made of: a column that is new since `HASHED` only where it is set."""
        return self.model_dump(exclude_defaults=True) | {name: getattr(self, name) for name in HASHED}


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
        fields_used = {
            name: getattr(self.study, name) for name in ("title", "seeds", "threat", "evaluate", "corrupt", "findings")
        }
        fields_used |= {name: value for name in LATER if (value := getattr(self.study, name)) is not None}
        spec = {name: dump(value) for name, value in fields_used.items()}
        return digest("study", spec, {"arms": canonical([arm.hashed() for arm in self.arms])})

    @property
    def folder(self) -> Path:
        """Where the study's tables, figures and report go; those of its finished part are no result of the workflow."""
        folder = self.study.results / "studies" / self.study.study / self.digest
        return folder / "partial" if self.whole else folder

    def with_ancestors(self, path: str) -> list[str]:
        """Return a stage and all that it is made from, in an order in which they can run."""
        above = [each for parent in self.stages[path].parents.values() for each in self.with_ancestors(parent)]
        return list(dict.fromkeys([*above, path]))

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
    stages |= compared_first(study, stages)
    order = {kind: i for i, kind in enumerate(STAGES)}
    ordered = sorted(stages.values(), key=lambda stage: order[stage.kind])
    return Plan(study, {stage.path: stage for stage in ordered}, list(arms.values()), parts)


def _cells(study: Study, block: Arms) -> Iterator[ArmColumns]:
    """Yield every combination of what a block lists, or the study where the block does not."""
    default: dict[str, Any] = {"norm": list(study.threat), "task": [study.ssl.task], "weight": study.ssl.weights}
    columns = dict.fromkeys(["norm", *(name for name in Arms.model_fields if name in ArmColumns.model_fields)])
    values = [block.seeds or study.seeds, *(getattr(block, name) or default[name] for name in columns)]
    for combination in itertools.product(*values):
        yield ArmColumns.model_validate(dict(zip(("seed", *columns), combination, strict=True)))


def _arm(study: Study, block: Arms, cell: ArmColumns) -> tuple[list[Stage], Arm]:
    """Make the stages of one cell."""
    data = data_stage(study.data, study.plugins)
    before = _init_stages(study, cell)
    spec = _finetune_spec(study, cell)
    if block.equal_passes:
        spec = _stretched(study, spec, block.equal_passes, cell)
    parents, settings = {"data": data.path}, _settings(study, study.data)
    if before:
        parents["init"] = before[-1].path
    elif cell.init != "random" and (weights := study.pretraining[cell.init].weights):
        spec = spec.model_copy(update={"init_sha256": file_sha256(weights)})
        settings["weights"] = str(weights)
    _refuse_without_effect(spec)
    train = make_stage("finetune", _name(spec), spec, parents, settings)
    tests = {
        kind: {
            checkpoint: _test_stage(study, kind, checkpoint, data, train) for checkpoint in study.evaluate.checkpoints
        }
        for kind in ("evaluate", "corrupt")
    }
    probe, diagnoses = _probe(study, data, before), _diagnoses(study, data, train, spec)
    arm = Arm(
        **spec.model_dump(include=set(ArmColumns.model_fields)),
        init_task=before[-1].spec.get("task") if before else None,
        finetune=train.path,
        pretrain=before[-1].path if before else None,
        probe=probe[0].path if probe else None,
        diagnose={task: stage.path for task, stage in diagnoses.items()},
        evaluate={checkpoint: stage.path for checkpoint, stage in tests["evaluate"].items()},
        corrupt={checkpoint: stage.path for checkpoint, stage in tests["corrupt"].items()},
    )
    tested = [stage for by_checkpoint in tests.values() for stage in by_checkpoint.values()]
    tested += [stage for row in STAGES.values() if row.plan for stage in load(row.plan)(study, data, train)]
    return [data, *before, *probe, train, *diagnoses.values(), *tested], arm


def _finetune_spec(study: Study, cell: ArmColumns) -> TrainSpec:
    """Resolve a cell. What a variant does not use (norm, task, weight) is no part of its identity."""
    variant = study.variants[cell.variant]
    objective = _objective(study, variant, cell, cell.weight, cell.eps_scale)
    used = {
        "task": cell.task if variant.uses_ssl else None,
        "weight": cell.weight if variant.uses_weight else None,
        **_attack_columns(study, objective, cell.norm, cell.eps_scale),
    }
    return TrainSpec(
        **cell.model_dump() | used,
        data=study.data.name,
        model=study.model,
        objective=objective,
        training=study.finetune,
    )


def _name(spec: TrainSpec) -> str:
    """Return the readable part of a training's folder name; the digest after it identifies the rest."""
    return f"{spec.data}-{arm_id(spec)}"


def _init_stages(study: Study, cell: ArmColumns) -> list[Stage]:
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
    return [data, make_stage("pretrain", _name(spec), spec, {"data": data.path}, _settings(study, source))]


def _refuse_without_effect(spec: TrainSpec) -> None:
    """Refuse a setting that a training would ignore."""
    silent = any(not weight for terms in spec.objective.train.values() for weight in terms.values())
    if spec.tune == "head" and silent:
        raise ConfigError(
            f"arms: variant {spec.variant!r} moves BatchNorm statistics (forward), which tune: head leaves as they are"
        )


def _objective(study: Study, variant: Variant, cell: ArmColumns, weight: float | None, eps_scale: float) -> Objective:
    assert cell.norm is not None  # a cell has everything, whatever the variant uses
    assert cell.task is not None
    assert weight is not None
    return resolve_objective(study, variant, norm=cell.norm, task=cell.task, weight=weight, eps_scale=eps_scale)


def _attack_columns(study: Study, objective: Objective, norm: Norm | None, eps_scale: float) -> dict[str, Any]:
    """Return the norm and eps that a model is trained on; none without a perturbation."""
    if not objective.perturb or norm is None:
        return {"norm": None, "eps_train": None, "eps_scale": 1.0}
    return {"norm": norm, "eps_train": study.threat[norm].eps * eps_scale, "eps_scale": eps_scale}


def _stretched(study: Study, spec: TrainSpec, like: EqualPasses, cell: ArmColumns) -> TrainSpec:
    """Give a spec the epochs that cost as many passes as another arm, its pre-training included."""
    objective = _objective(study, study.variants[like.variant], cell, cell.weight, 1.0)
    passes = _passes(objective, study.finetune)
    row = study.pretraining.get(like.init)
    if row is not None and row.objective is not None:
        if study.pretrain_data is not None:
            raise ConfigError("equal_passes: an init that was pre-trained on other data has no comparable passes")
        passes += _passes(_objective(study, row.objective, cell, 1.0, row.eps_scale), study.pretrain)
    epochs = round(passes / step_passes(spec.objective, spec.tune).equivalent, 4)
    training = spec.training.model_copy(update={"epochs": epochs})
    task = cell.task if row or study.variants[like.variant].uses_ssl else None
    budget = budget_label(like.variant, task, like.init)
    return spec.model_copy(update={"training": training, "budget": budget})


def _passes(objective: Objective, training: Training) -> float:
    return step_passes(objective).equivalent * training.epochs


def _probe(study: Study, data: Stage, before: list[Stage]) -> list[Stage]:
    """Return the probe of a cell's pre-training, on the labelled data; nothing where there is none."""
    if study.probe is None or not before:
        return []
    pretrained = before[-1]
    spec = probe_spec(study, study.probe, TrainSpec.model_validate(pretrained.spec))
    parents = {"data": data.path, "model": pretrained.path}
    return [make_stage("probe", pretrained.name, spec, parents, _settings(study, study.data))]


def _diagnoses(study: Study, data: Stage, train: Stage, trained: TrainSpec) -> dict[str, Stage]:
    """Return a model's diagnoses by SSL task."""
    specs = diagnose_specs(study, study.diagnose, trained) if study.diagnose else []
    parents, settings = {"data": data.path, "model": train.path}, _settings(study, study.data)
    return {
        spec.task: make_stage("diagnose", f"{train.name}-by-{spec.task}", spec, parents, settings) for spec in specs
    }


def _test_stage(study: Study, kind: str, checkpoint: Checkpoint, data: Stage, train: Stage) -> Stage:
    """Return the sweep or the corruption test of one checkpoint of a trained model."""
    name = f"{train.name}-{checkpoint}"
    parents = {"data": data.path, "model": train.path}
    if kind == "evaluate":
        return make_stage(kind, name, evaluate_spec(study, checkpoint), parents, _settings(study))
    folders = {name: str(path) for name in ("frost", "official") if (path := getattr(study.corrupt, name))}
    return make_stage(kind, name, corrupt_spec(study, checkpoint), parents, _settings(study) | folders)


def _settings(study: Study, read: Data | None = None) -> dict[str, Any]:
    """Return what decides no key: modules that a stage imports first (all they add is in its spec), use of the GPU.

    read: the data set whose training images the stage reads, perhaps from where they lie.
    """
    settings: dict[str, Any] = {"plugins": study.plugins}
    settings |= {name: getattr(study, name) for name in ("jobs_per_gpu", "device") if name in study.model_fields_set}
    if read is not None and read.path is not None and SOURCES[read.source].known is None:
        settings["data_path"] = str(read.path)
    graphs = {} if study.cuda_graphs else {"cuda_graphs": False}
    return {name: value for name, value in settings.items() if value not in ([], 1, "auto")} | graphs
