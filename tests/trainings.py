"""Small plans, trainings, networks and objectives that several test modules use."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from ssrob.config.loader import parse_study
from ssrob.config.variants import Variant
from ssrob.data.loader import Batches
from ssrob.data.prepared import Prepared
from ssrob.losses.batch import Batch
from ssrob.models.network import Architecture, Network, build
from ssrob.planning.objectives import resolve_objective
from ssrob.planning.plan import Plan, make_plan
from ssrob.planning.specs import Objective, TrainSpec
from ssrob.planning.stage import Stage
from ssrob.runtime import job, runner
from ssrob.seeding import generator
from ssrob.storage.store import Store
from ssrob.training.fit import TrainingRun
from ssrob.training.perturbations import draw_views
from ssrob.training.state import TrainState, start
from ssrob.training.train import _validation
from ssrob.training.train import stage as train
from tests.conftest import tiny_config


def plan_of(folder: Path, **changes: Any) -> tuple[Plan, Store]:
    plan = make_plan(parse_study(tiny_config(folder, **changes)))
    return plan, Store(plan.study.results)


def run_training(plan: Plan, store: Store) -> dict[str, Stage]:
    """Run everything up to the trained models, and return the fine-tunings by variant."""
    trained = {}
    for stage in plan.stages.values():
        if stage.kind in ("data", "pretrain", "finetune"):
            run_stage(stage, store)
        if stage.kind == "finetune":
            trained[stage.spec["variant"]] = stage
    return trained


def run_stage(stage: Stage, store: Store) -> None:
    """Run a stage here, or as a job of its own where it has replicas."""
    if stage.replicas == 1:
        runner.run(stage, store, device="cpu")
        return
    said: list[str] = []
    assert job.run(stage, store, "cpu", said.append) == 0, said
    assert "best epoch" in said[-1]


def trained_plan(folder: Path, **changes: Any) -> tuple[Plan, Store]:
    """Make a plan and train its models."""
    plan, store = plan_of(folder, **changes)
    run_training(plan, store)
    return plan, store


def only(plan: Plan, kind: str, **values: Any) -> Stage:
    """Return the one stage of a kind with these settings."""
    (found,) = (s for s in plan.of_kind(kind).values() if all(s.spec.get(key) == values[key] for key in values))
    return found


def set_up(stage: Stage, store: Store) -> tuple[TrainState, TrainingRun]:
    """Make what `fit` works on, as a training stage whose parents are finished does."""
    spec, data = TrainSpec.model_validate(stage.spec), Prepared(store.folder(stage.parents["data"]))
    init = store.folder(stage.parents["init"]) / "last.safetensors" if "init" in stage.parents else None
    state = start(spec, data, init, torch.device("cpu"), logging.getLogger("test"))
    batches = Batches(*data.train(), spec.training.batch_size, spec.seed)
    return state, TrainingRun(spec, batches, _validation(data, spec, torch.device("cpu")))


class _StopAfter:
    """A question that is answered with yes after so many times."""

    def __init__(self, count: int):
        self.left = count

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


def run_until(stage: Stage, store: Store, steps: int) -> None:
    """Train for so many steps, then stop as a signal would."""
    context = runner.Context(stage, store, torch.device("cpu"), logging.getLogger("test"), _StopAfter(steps))
    context.out.mkdir(parents=True, exist_ok=True)
    with pytest.raises(runner.Interrupted, match="run it again to go on"):
        train(context)


def objective_of(folder: Path, variant: dict[str, Any], **changes: Any) -> Objective:
    """Resolve a variant as a config writes it."""
    given: dict[str, Any] = {"norm": "linf", "task": "rotation", "weight": 0.3} | changes
    return resolve_objective(parse_study(tiny_config(folder)), Variant.model_validate(variant), **given)


def make(objective: Objective) -> tuple[Network, Batch]:
    """Return a small network with the objective's heads, and a batch with its views."""
    heads = {"class": 10} | objective.heads
    network = build(Architecture("resnet", {"depth": 8, "width": 4}, (1, 8, 8), [0.5], [0.25], heads), seed=0)
    draws = generator(0, "data")
    batch = Batch(torch.rand(16, 1, 8, 8, generator=draws), torch.randint(10, (16,), generator=draws))
    return network, draw_views(objective, batch, 0, 0)
