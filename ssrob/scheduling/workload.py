"""How much work the stages of a study are, in network passes; and tables as text. Imports no torch."""

import io
from typing import Any

from rich.console import Console, RenderableType

from ssrob.planning.cost import training_passes
from ssrob.planning.plan import Plan
from ssrob.planning.specs import CalibrateSpec, CorruptSpec, DiagnoseSpec, EvaluateSpec, OodSpec, ProbeSpec, TrainSpec
from ssrob.planning.stage import Stage
from ssrob.registry.lookup import load
from ssrob.registry.losses import loss_row
from ssrob.registry.ood import SCORES
from ssrob.registry.presets import PRESETS
from ssrob.registry.stages import STAGES
from ssrob.scheduling.images import counts_of
from ssrob.storage.store import Store

WIDTH = 140


def image_counts(plan: Plan, store: Store) -> dict[str, tuple[int, int] | None]:
    """Return by data stage how many images there are to train on and to test on; None where that is not known."""
    return {f"data/{key}": counts_of(stage, store) for key, stage in plan.of_kind("data").items()}


def passes(stage: Stage, counts: tuple[int, int] | None) -> float | None:
    """Return a stage's work in forward passes of one image, an attack's at most.

    counts: images to train on and to test on; None, and so is the answer, where they are not known yet.
    """
    if counts is None:
        return None
    work = STAGES[stage.kind].work
    return float(load(work)(stage.spec, *counts)) if work else 0.0


def training_work(spec: dict[str, Any], train: int, _: int) -> float:
    """Count what `training_passes` says of every image."""
    return training_passes(TrainSpec.model_validate(spec)) * train


def sweep_work(spec: dict[str, Any], _: int, test: int) -> float:
    """Count the attacks of a preset on every eps: at most two passes a step."""
    sweep = EvaluateSpec.model_validate(spec)
    attacks = PRESETS[sweep.preset].attacks
    per_eps = sum(2 * attack.steps * attack.restarts for attack in attacks)
    return float(per_eps * sum((sweep.images_of(norm) or test) * len(grid) for norm, grid in sweep.eps.items()))


def corruption_work(spec: dict[str, Any], _: int, test: int) -> float:
    """Count every corrupted image once."""
    tests = CorruptSpec.model_validate(spec)
    return float((tests.images or test) * len(tests.names) * len(tests.severities))


def ood_work(spec: dict[str, Any], train: int, test: int) -> float:
    """Count the neighbours' features, all scores of every image, and at most two passes a step of every attack."""
    parsed = OodSpec.model_validate(spec)
    clean = max(SCORES[name].forwards for name in parsed.scores) * (
        min(parsed.images, test) + parsed.images * len(parsed.sets)
    )
    attack = sum((2 * parsed.steps + 3) * SCORES[name].forwards for name in parsed.attacked_scores)
    return float(min(parsed.train_images, train) + clean + parsed.attacked_images * (1 + len(parsed.sets)) * attack)


def calibration_work(spec: dict[str, Any], train: int, test: int) -> float:
    """Count clean and corrupted images once, at most two passes a step of every attack, and as many to validate on."""
    parsed = CalibrateSpec.model_validate(spec)
    per_image = 1 + len(parsed.corruptions) + len(parsed.reference) * (2 * parsed.steps + 1) + parsed.temperature
    return float(min(parsed.images, test) * per_image)


def probe_work(spec: dict[str, Any], train: int, _: int) -> float:
    """Count two networks, and two attacks per norm on each."""
    probe = ProbeSpec.model_validate(spec)
    per_image = 1 + len(probe.reference) * 2 * (2 * probe.steps + 1)
    return 2.0 * (2 * min(probe.train_images, train) + min(probe.images, train) * per_image)


def diagnosis_work(spec: dict[str, Any], train: int, _: int) -> float:
    """Count the fit of a head, and per network the attacks on both losses and the gradients at four image sets."""
    diagnosis = DiagnoseSpec.model_validate(spec)
    views = len(loss_row(diagnosis.task, diagnosis.arguments).forwards)
    per_image = (2 * diagnosis.steps + 4 * 3) * (1 + views)
    head = diagnosis.head_epochs * min(diagnosis.head_images, train) * views
    return head + (1 + diagnosis.own_head) * min(diagnosis.images, train) * per_image


def as_text(*shown: RenderableType) -> str:
    """Write tables and the like as plain text."""
    out = io.StringIO()
    Console(file=out, width=WIDTH).print(*shown, sep="\n", soft_wrap=True)  # a path stays on its line
    return out.getvalue().rstrip()
