"""How a stage appears as a run: its name, tags and parameters. Imports no mlflow."""

from collections.abc import Iterator, Mapping
from typing import Any, cast

from ssrob.config.fields import Strict
from ssrob.planning.names import ArmColumns, arm_label
from ssrob.planning.plan import Plan
from ssrob.planning.specs import TrainSpec
from ssrob.planning.stage import OPERATIONAL, Stage
from ssrob.registry.lookup import load
from ssrob.registry.stages import STAGES

ARM_TAGS = ("variant", "init", "task", "norm", "seed")
ARM_PARAMS = tuple(ArmColumns.model_fields)


def run_name(plan: Plan, stage: Stage) -> str:
    """Return a name for people, e.g. ``AT + rotation in attack and training, w 0.5, l-inf 0.15, seed 0``."""
    if stage.kind == "data":
        return f"data {stage.spec['name']}"
    model = model_of(plan, stage)
    name = f"{arm_name(plan, model)}, seed {TrainSpec.model_validate(model.spec).seed}"
    if stage.kind == "finetune":
        return name
    about = [
        str(stage.spec[field]) for field in ("task", "checkpoint") if field in stage.spec and "model" in stage.parents
    ]
    return ", ".join([f"{stage.kind}: {name}", *about])


def arm_name(plan: Plan, model: Stage) -> str:
    """Return the name for people of what a training stage trains, the same for all its seeds."""
    init = plan.stages[model.parents["init"]].spec if "init" in model.parents else {}
    return arm_label(TrainSpec.model_validate(model.spec), plan.study, init_task=init.get("task"), eps=True)


def run_tags(plan: Plan, stage: Stage) -> dict[str, str]:
    """Return what to filter and group by: kind, study, the arm and its columns, and the stage's parents by role."""
    tags = {"kind": stage.kind, "study": plan.study.study, "data": _data_name(plan, stage)}
    if stage.kind != "data":
        spec = resolved(model_of(plan, stage))
        tags |= {name: _text(spec[name]) for name in ARM_TAGS if spec[name] is not None}
        tags["arm"] = arm_name(plan, model_of(plan, stage))
    if "checkpoint" in stage.spec:
        tags["checkpoint"] = stage.spec["checkpoint"]
    return tags | {f"ssrob.parent.{role}": path for role, path in stage.parents.items()}


def run_params(plan: Plan, stage: Stage) -> dict[str, str]:
    """Return the spec, defaults included, with nested names joined by dots; a test also has its arm's columns."""
    params = dict(_flatten(resolved(stage)))
    if "model" in stage.parents:
        spec = resolved(model_of(plan, stage))
        params = {name: _text(spec[name]) for name in ARM_PARAMS if spec[name] is not None} | {
            f"test.{name}": value for name, value in params.items()
        }
    return params


def provenance_tags(provenance: Mapping[str, Any]) -> dict[str, str]:
    """Return on what a stage ran."""
    tags = {name: str(provenance[name]) for name in ("commit", "device") if provenance.get(name)}
    return tags | ({"mlflow.source.git.commit": tags["commit"]} if "commit" in tags else {})


def model_of(plan: Plan, stage: Stage) -> Stage:
    """Return the training stage that a stage is or tests."""
    return plan.stages[stage.parents["model"]] if "model" in stage.parents else stage


def resolved(stage: Stage) -> dict[str, Any]:
    """Return a stage's spec with the defaults of its kind; a data set's needs its path, which is then left out."""
    names = OPERATIONAL & set(stage.settings) if stage.kind == "data" else set()
    kind = cast("type[Strict]", load(STAGES[stage.kind].spec))
    spec = kind.model_validate(stage.spec | {name: stage.settings[name] for name in names})
    return dict(spec.model_dump(mode="json", exclude=OPERATIONAL if names else None))


def _data_name(plan: Plan, stage: Stage) -> str:
    data = plan.stages[stage.parents["data"]] if "data" in stage.parents else stage
    return str(data.spec["name"])


def _flatten(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _flatten(inner, f"{prefix}{name}.")
        elif inner is not None and inner != []:
            yield prefix + name, _text(inner)


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return str(value)
