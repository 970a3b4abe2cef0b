"""What a study consists of and how much work it is, as text for a terminal. Imports no torch."""

import io
import json
from collections import Counter

from rich.console import Console, RenderableType
from rich.table import Table

from ssrob.attacks.presets import PRESETS
from ssrob.cost import step_passes
from ssrob.data.sources import count_images
from ssrob.disk import estimate
from ssrob.plan import Plan, Stage
from ssrob.spec import Data
from ssrob.stage_specs import CorruptSpec, EvaluateSpec, TrainSpec
from ssrob.store import Store

WIDTH = 140


def plan_text(plan: Plan, store: Store) -> str:
    """Say per kind how many stages there are, how many are done, and how much work is left."""
    table = Table("stage", "number", "done", "to do", "network passes to do (millions)", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    counts = image_counts(plan, store)
    total = 0.0
    for kind, count in Counter(stage.kind for stage in plan.stages.values()).items():
        stages = plan.of_kind(kind).values()
        left = [stage for stage in stages if not store.done(stage.path)]
        work = [passes(stage, counts[stage.parents.get("data", stage.path)]) for stage in left]
        known = sum(each for each in work if each is not None)
        total += known
        shown = "?" if None in work else f"{known / 1e6:,.1f}"
        table.add_row(kind, str(count), str(count - len(left)), str(len(left)), "" if kind == "data" else shown)
    seeds = len(plan.study.seeds)
    models = f"{len(plan.arms)} trained models ({seeds} seed{'s' * (seeds > 1)})"
    head = f"{plan.study.study}: {models}, results in {plan.folder}"
    foot = (
        f"In all {total / 1e6:,.1f} million passes of one image forward through the network (an input gradient costs"
        " one more, a parameter gradient two);\nan attack sweep is counted at its most: it skips what is broken."
    )
    foot += (
        f"\nWhat is to do takes {estimate(plan, store)}." if any(not store.done(path) for path in plan.stages) else ""
    )
    return f"{head}\n\n{as_text(table)}\n{foot}\n\n{arms_text(plan, store)}"


def arms_text(plan: Plan, store: Store) -> str:
    """List the arms: what each is, what it costs, and whether it is trained."""
    table = Table("arm", "init", "norm", "eps", "w", "seed", "passes per image", "trained", box=None)
    for arm in plan.arms:
        spec = TrainSpec.model_validate(plan.stages[arm.finetune].spec)
        cost = step_passes(spec.objective).equivalent * spec.training.epochs
        table.add_row(
            f"{arm.variant} {arm.task or ''}".strip() + (f" ({arm.budget})" if arm.budget else ""),
            arm.init,
            arm.norm or "-",
            "-" if arm.eps_train is None else f"{arm.eps_train:.4g}",
            "-" if arm.weight is None else f"{arm.weight:g}",
            str(arm.seed),
            f"{cost:,.0f}",
            "yes" if store.done(arm.finetune) else "no",
        )
    return as_text(table)


def image_counts(plan: Plan, store: Store) -> dict[str, tuple[int, int] | None]:
    """Return by data stage how many images there are to train on and to test on; None where that cannot be told."""
    return {f"data/{key}": _counted(stage, store) for key, stage in plan.of_kind("data").items()}


def passes(stage: Stage, counts: tuple[int, int] | None) -> float | None:
    """Return a stage's work in forward passes of one image, an attack's at most.

    counts: images to train on and to test on; None, and so is the answer, where they are not known yet.
    """
    if counts is None:
        return None
    train, test = counts
    if stage.kind in ("pretrain", "finetune"):
        spec = TrainSpec.model_validate(stage.spec)
        return step_passes(spec.objective).equivalent * spec.training.epochs * train
    if stage.kind == "evaluate":
        sweep = EvaluateSpec.model_validate(stage.spec)
        attacks = PRESETS[sweep.preset].with_restarts(sweep.restarts).attacks
        per_eps = sum(2 * attack.steps * attack.restarts for attack in attacks)
        return (sweep.images or test) * per_eps * sum(len(grid) for grid in sweep.eps.values())
    if stage.kind == "corrupt":
        tests = CorruptSpec.model_validate(stage.spec)
        return (tests.images or test) * len(tests.names) * len(tests.severities)
    return 0.0


def _counted(stage: Stage, store: Store) -> tuple[int, int] | None:
    """Ask the prepared data, which may have outlived its source; before that the source."""
    if store.done(stage.path):
        counts = json.loads(store.output(stage.path, "data.json").read_text())["counts"]
        return counts["train"], counts["test"]
    return count_images(Data.model_validate(stage.spec | stage.settings))


def as_text(*shown: RenderableType) -> str:
    """Write tables and the like as plain text."""
    out = io.StringIO()
    Console(file=out, width=WIDTH).print(*shown, sep="\n", soft_wrap=True)  # a path stays on its line
    return out.getvalue().rstrip()
