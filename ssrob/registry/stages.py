"""Kinds of stages: one row each, in an order in which they can run. Imports no torch."""

from dataclasses import dataclass

STUDY_REVISION = 2  # of the collected tables and the report


@dataclass(frozen=True)
class StageKind:
    """One kind of cached work.

    run: ``run(context)``, which writes the stage's outputs (`ssrob.runtime.runner.Context`).
    revision: raised by hand when code changes what the stage computes, or a default of its spec changes.
    """

    run: str
    revision: int


STAGES: dict[str, StageKind] = {
    "data": StageKind("ssrob.stages.data:stage", revision=1),
    "pretrain": StageKind("ssrob.training.train:stage", revision=2),
    "probe": StageKind("ssrob.stages.probe:stage", revision=1),
    "finetune": StageKind("ssrob.training.train:stage", revision=2),
    "diagnose": StageKind("ssrob.stages.diagnose:stage", revision=1),
    "evaluate": StageKind("ssrob.stages.evaluate:stage", revision=1),
    "corrupt": StageKind("ssrob.stages.corrupt:stage", revision=1),
}


def revision(kind: str) -> int:
    """Return the revision of a kind of stage, or of a study as a whole ("study")."""
    return STUDY_REVISION if kind == "study" else STAGES[kind].revision
