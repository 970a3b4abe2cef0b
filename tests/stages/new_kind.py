"""A kind of stage that a user adds: one module and one row; a study names it among its `plugins`."""

from typing import Any

from ssrob.config.fields import Strict
from ssrob.config.study import Study
from ssrob.planning.stage import Stage, make_stage
from ssrob.registry.stages import STAGES, StageKind
from ssrob.runtime.runner import Context
from ssrob.scheduling.disk_usage import DiskUsage, Images
from ssrob.storage.store import write_json

ME = "tests.stages.new_kind"


class CountSpec(Strict):
    """Counts the numbers in a trained model's weights file."""

    unit: str = "numbers"


def plan(study: Study, data: Stage, model: Stage) -> list[Stage]:
    settings = {"plugins": study.plugins}
    return [make_stage("count", model.name, CountSpec(), {"data": data.path, "model": model.path}, settings)]


def work(spec: dict[str, Any], train: int, test: int) -> float:
    return 2_000_000.0 * test


def disk(spec: dict[str, Any], images: Images) -> DiskUsage:
    return DiskUsage(3_000_000 * images.test)


def stage(context: Context) -> None:
    from safetensors.numpy import load_file

    weights = load_file(context.parent("model") / "best.safetensors")
    count = sum(each.size for each in weights.values())
    write_json(context.out / "count.json", {"numbers": count})
    context.summary = f"{count} numbers"


STAGES.setdefault(
    "count",
    StageKind(
        f"{ME}:stage",
        revision=1,
        spec=f"{ME}:CountSpec",
        plan=f"{ME}:plan",
        work=f"{ME}:work",
        disk=f"{ME}:disk",
        gpu=False,
        role="explanation",
    ),
)
