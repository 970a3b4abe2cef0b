"""Kinds of stages: one row each, in an order in which they can run. Imports no torch."""

from dataclasses import dataclass, replace
from typing import Literal

STUDY_REVISION = 2  # of the collected tables and the report
BATCH_SIZE = "a smaller {0}.batch_size (other models, with keys of their own) or a smaller network"


@dataclass(frozen=True)
class StageKind:
    """One kind of cached work. Functions and classes are written as ``"module:name"``.

    run: ``run(context)``, which writes the stage's outputs (`ssrob.runtime.runner.Context`).
    revision: raised by hand when code changes what the stage computes, or a default of its spec changes.
    spec: the pydantic class that describes one stage.
    plan: ``plan(study, data, model)``, which returns the stages of this kind for one trained model of a study; the
        kinds that an `Arm` names are planned together.
    work: ``work(spec, train, test)``, passes of one image, from the numbers of training and test images; without it a
        stage counts as no work.
    disk: ``disk(spec, images)`` (`ssrob.scheduling.disk_usage`); without it a stage leaves small tables.
    pace: kinds of the same pace need the same time for a pass; by default each has its own.
    network: whether its time is that of a network's passes.
    gpu: whether it computes on a GPU where there is one.
    role: a test of a trained model belongs to every comparison; what explains comparisons is run last.
    progress: the field of the spec that has an entry for each of its progress bars; by default there is one.
    less_memory: what helps if a GPU has too little of it.
    weights: the file of weights that a training passes on.
    points: ``points(store, stage)``, what MLflow has of a finished test (`ssrob.tracking.points`).
    card: ``card(test, store)``, the paragraphs of a test on the card of an exported model.
    """

    run: str
    revision: int
    spec: str
    plan: str = ""
    work: str = ""
    disk: str = ""
    pace: str = ""
    network: bool = True
    gpu: bool = True
    role: Literal["training", "test", "explanation"] = "training"
    progress: str = ""
    less_memory: str = "a GPU with more memory"
    weights: str = ""
    points: str = ""
    card: str = ""


_TRAINING = StageKind(
    "ssrob.training.train:stage",
    revision=2,
    spec="ssrob.planning.specs:TrainSpec",
    work="ssrob.scheduling.workload:training_work",
    disk="ssrob.scheduling.disk_usage:training_size",
    pace="training",
)
STAGES: dict[str, StageKind] = {
    "data": StageKind(
        "ssrob.stages.data:stage",
        revision=1,
        spec="ssrob.config.data:Data",
        disk="ssrob.scheduling.disk_usage:data_size",
        network=False,
        gpu=False,
    ),
    "pretrain": replace(_TRAINING, less_memory=BATCH_SIZE.format("pretrain"), weights="last.safetensors"),
    "probe": StageKind(
        "ssrob.stages.probe:stage",
        revision=1,
        spec="ssrob.planning.specs:ProbeSpec",
        work="ssrob.scheduling.workload:probe_work",
        role="explanation",
        points="ssrob.tracking.points:probe_points",
    ),
    "finetune": replace(_TRAINING, less_memory=BATCH_SIZE.format("finetune"), weights="best.safetensors"),
    "diagnose": StageKind(
        "ssrob.stages.diagnose:stage",
        revision=1,
        spec="ssrob.planning.specs:DiagnoseSpec",
        work="ssrob.scheduling.workload:diagnosis_work",
        disk="ssrob.scheduling.disk_usage:diagnosis_size",
        role="explanation",
        points="ssrob.tracking.points:diagnosis_points",
    ),
    "evaluate": StageKind(
        "ssrob.stages.evaluate:stage",
        revision=1,
        spec="ssrob.planning.specs:EvaluateSpec",
        work="ssrob.scheduling.workload:sweep_work",
        disk="ssrob.scheduling.disk_usage:evaluation_size",
        role="test",
        progress="eps",
        less_memory="fewer attacks at once on the same GPU, or a GPU with more memory",
        points="ssrob.tracking.points:robust_points",
        card="ssrob.storage.model_card:robustness",
    ),
    "corrupt": StageKind(
        "ssrob.stages.corrupt:stage",
        revision=1,
        spec="ssrob.planning.specs:CorruptSpec",
        work="ssrob.scheduling.workload:corruption_work",
        disk="ssrob.scheduling.disk_usage:corruption_size",
        network=False,  # making corrupted images takes longer
        role="test",
        points="ssrob.tracking.points:corruption_points",
        card="ssrob.storage.model_card:corruptions",
    ),
    "ood": StageKind(
        "ssrob.stages.ood:stage",
        revision=1,
        spec="ssrob.planning.specs:OodSpec",
        plan="ssrob.planning.ood_specs:ood_stages",
        points="ssrob.tracking.points:detection_points",
        work="ssrob.scheduling.workload:ood_work",
        disk="ssrob.scheduling.disk_usage:ood_size",
        role="test",
    ),
    "calibrate": StageKind(
        "ssrob.stages.calibrate:stage",
        revision=1,
        spec="ssrob.planning.specs:CalibrateSpec",
        plan="ssrob.planning.ood_specs:calibrate_stages",
        points="ssrob.tracking.points:calibration_points",
        work="ssrob.scheduling.workload:calibration_work",
        disk="ssrob.scheduling.disk_usage:calibration_size",
        role="test",
    ),
}


def revision(kind: str) -> int:
    """Return the revision of a kind of stage, or of a study as a whole ("study")."""
    return STUDY_REVISION if kind == "study" else STAGES[kind].revision


def pace(kind: str) -> str:
    """Return the name under which kinds that need the same time for a pass are counted together."""
    return STAGES[kind].pace or kind


def kinds_of(role: str) -> tuple[str, ...]:
    """Return the kinds of stages with a role."""
    return tuple(kind for kind, row in STAGES.items() if row.role == role)
