"""The passes that are counted are the passes that are made: hooks on the backbone, for everything that can be named."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from ssrob.config.loader import load_study, parse_study
from ssrob.config.variants import Variant, family
from ssrob.models.feature_cache import FeatureCache
from ssrob.planning.cost import Passes, step_passes
from ssrob.planning.objectives import resolve_objective
from ssrob.planning.plan import make_plan
from ssrob.planning.specs import Objective, TrainSpec
from ssrob.training.perturbations import image_sets
from ssrob.training.train_step import loss_terms, weighted_sum
from tests.conftest import ROOT, tiny_config
from tests.trainings import make
from torch import Tensor

ONE_VIEW = ("rotation", "jigsaw")
VARIANTS = [
    (name, task)
    for name in family()["variants"]
    for task in ("rotation", "contrastive")
    if task in ONE_VIEW or "single" not in name
]


def made(objective: Objective) -> Passes:
    """Run a training step and count what goes through the backbone."""
    network, batch = make(objective)
    network.train()
    counted: Counter[str] = Counter()

    def forward(module: torch.nn.Module, _: Any, features: Tensor) -> None:
        counted["forward"] += 1
        kind = "full" if next(module.parameters()).requires_grad else "input"
        if features.requires_grad:
            features.register_hook(lambda _: counted.update([kind]))

    network.backbone.register_forward_hook(forward)
    images = image_sets(network, objective, batch, 0, 0)
    model = FeatureCache(network, objective.batchnorm, clean=batch.x)
    weighted_sum(loss_terms(model, objective, images, batch)).backward()
    return Passes(counted["forward"], counted["input"], counted["full"])


@pytest.mark.parametrize(("name", "task"), VARIANTS)
def test_a_variant_costs_what_is_counted(name: str, task: str, tmp_path: Path) -> None:
    study = parse_study(tiny_config(tmp_path))
    objective = resolve_objective(study, study.variants[name], norm="linf", task=task, weight=0.5)
    assert made(objective) == step_passes(objective)


@pytest.mark.parametrize("row", family()["pretraining"])
@pytest.mark.parametrize("task", ["jigsaw_3x3", "vicreg", "rotation_all"])
def test_a_pretraining_costs_what_is_counted(row: str, task: str, tmp_path: Path) -> None:
    study = parse_study(tiny_config(tmp_path))
    variant = study.pretraining[row].objective
    assert variant is not None
    objective = resolve_objective(study, variant, norm="l2", task=task, weight=1)
    assert made(objective) == step_passes(objective)


@pytest.mark.parametrize("path", sorted((ROOT / "config/published").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_published_method_costs_what_is_counted(path: Path) -> None:
    plan = make_plan(load_study(path))
    for stage in (*plan.of_kind("pretrain").values(), *plan.of_kind("finetune").values()):
        objective = TrainSpec.model_validate(stage.spec).objective
        assert made(objective) == step_passes(objective)


OPTIONS = {
    "branches": {
        "perturb": {"adv": {"kl_to_clean": 1}},
        "train": {"clean": {"xent": 1, "ssl": 1}, "adv": {"kl_to_clean": 6}},
        "batchnorm": {"adv": "aux"},
    },
    "one view moves": {
        "perturb": {"adv": {"maximise": {"contrastive": 1}, "layout": "copies", "views": "contrastive_second"}},
        "train": {"adv": {"contrastive": 1}, "clean": {"contrastive": 1}},
    },
    "shared views": {
        "perturb": {"adv": {"xent": 1, "ssl": 1, "views_xent": 1}},
        "train": {"adv": {"xent": 1, "ssl": 1, "views_xent": 1}, "clean": {"ssl": 1, "views_xent": 1}},
    },
    "a dropped attack": {
        "perturb": {"adv": {"maximise": {"xent": 1, "ssl": 1}, "layout": "copies"}},
        "train": {"adv": {"xent": 1}},
    },
}


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_costs_what_is_counted(name: str, tmp_path: Path) -> None:
    variant = Variant.model_validate(OPTIONS[name])
    objective = resolve_objective(parse_study(tiny_config(tmp_path)), variant, norm="linf", task="rotation", weight=0.5)
    assert made(objective) == step_passes(objective)
