"""Specs of the stages that measure models: sweeps, corruption tests, probes, diagnoses. Imports no torch."""

from ssrob.config.evaluation import Diagnosis, Probing
from ssrob.config.fields import Checkpoint, Norm
from ssrob.config.study import Study
from ssrob.planning.objectives import changed_arguments
from ssrob.planning.specs import CorruptSpec, DiagnoseSpec, EvaluateSpec, Objective, ProbeSpec, TrainSpec
from ssrob.registry.losses import LOSSES


def evaluate_spec(study: Study, checkpoint: Checkpoint) -> EvaluateSpec:
    """Return the attack sweep of a checkpoint, its grid in multiples of the reference eps made absolute."""
    reference = {norm: threat.eps for norm, threat in study.threat.items()}
    same = {"preset", "search", "images", "gradients_in", "audit_images", "audit_queries"}
    return EvaluateSpec(
        eps={norm: [multiple * eps for multiple in study.evaluate.eps] for norm, eps in reference.items()},
        reference=reference,
        checkpoint=checkpoint,
        threads=study.finetune.threads,
        **study.evaluate.model_dump(include=same),
    )


def corrupt_spec(study: Study, checkpoint: Checkpoint) -> CorruptSpec:
    """Return the corruption test of a checkpoint."""
    return CorruptSpec(
        checkpoint=checkpoint,
        threads=study.finetune.threads,
        frost_photographs=study.corrupt.frost is not None,
        official=study.corrupt.official is not None,
        **study.corrupt.model_dump(include={"names", "severities", "images", "table"}),
    )


def probe_spec(study: Study, probing: Probing, pretrained: TrainSpec) -> ProbeSpec:
    """Return the probe of a pre-trained model, under the study's reference attacks."""
    return ProbeSpec(
        reference={norm: threat.eps for norm, threat in study.threat.items()},
        init_seed=pretrained.seed,
        threads=study.pretrain.threads,
        **probing.model_dump(),
    )


def diagnose_specs(study: Study, diagnosis: Diagnosis, trained: TrainSpec) -> list[DiagnoseSpec]:
    """Return one diagnosis per SSL task to hold a model's supervised loss against.

    The tasks are those it was trained on; of a model without any, such as plain AT, all that the study trains with.
    """
    trained_tasks = own_tasks(trained.objective)
    tasks = trained_tasks or ([trained.task] if trained.task else study_tasks(study))
    norm = trained.norm or _usual_norm(study)
    return [
        DiagnoseSpec(
            task=task,
            own_head=task in trained_tasks,
            arguments=changed_arguments(study, [task]),
            norm=norm,
            eps=study.threat[norm].eps,
            threads=study.finetune.threads,
            **diagnosis.model_dump(),
        )
        for task in tasks
    ]


def own_tasks(objective: Objective) -> list[str]:
    """Return the SSL tasks that a model's parameters are trained on, so that it has a trained head for them."""
    trained = [name for terms in objective.train.values() for name, weight in terms.items() if weight]
    return list(dict.fromkeys(name for name in trained if LOSSES[name].self_supervised))


def study_tasks(study: Study) -> list[str]:
    """Return the SSL tasks that some arm of the study is trained with, by name."""
    blocks = [block for block in study.arms if any(study.variants[name].uses_ssl for name in block.variant)]
    return sorted({task for block in blocks for task in block.task or [study.ssl.task]})


def _usual_norm(study: Study) -> Norm:
    wanted = study.findings.primary.norm
    return wanted if wanted in study.threat else next(iter(study.threat))
