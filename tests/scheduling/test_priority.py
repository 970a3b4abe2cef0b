"""The order of a portion: paired blocks, each arm with its tests, every stage after what it reads."""

from pathlib import Path
from typing import Any

import pytest
from ssrob.config.loader import load_study, parse_study
from ssrob.planning.plan import Plan, make_plan
from ssrob.scheduling.priority import blocks, complete, stages_of
from ssrob.storage.store import Store
from tests.conftest import ROOT, tiny_config

ARMS: list[dict[str, Any]] = [
    {"variant": ["standard", "at"], "part": "central"},
    {"variant": "at", "init": "ssl", "part": "rest"},
    {"variant": "at_ssl_clean", "weight": [0.5, 2], "part": "central"},
    {"variant": "at_two", "norm": "l2", "part": "rest"},
]


def plan_of(folder: Path, **changes: Any) -> Plan:
    return make_plan(parse_study(tiny_config(folder, seeds=[0, 1], arms=ARMS) | changes))


def test_the_parts_come_as_first_named_then_norms_then_seeds(tmp_path: Path) -> None:
    found = [(block.name, len(block.arms)) for block in blocks(plan_of(tmp_path))]
    models = {"central, linf": 4, "central, l2": 3, "rest, linf": 1, "rest, l2": 2}
    of_arms = [(f"{name}, seed {seed}", number) for name, number in models.items() for seed in (0, 1)]
    assert found == [*of_arms, ("probes, diagnoses", 0)], "standard belongs to the first norm"


@pytest.mark.parametrize("study", ["tiny", "quickstart", "cifar10"])
def test_every_stage_comes_once_and_after_what_it_reads(study: str, tmp_path: Path) -> None:
    plan = plan_of(tmp_path) if study == "tiny" else make_plan(load_study(ROOT / "config" / f"{study}.yaml"))
    order = [path for block in blocks(plan) for path in block.stages]
    assert sorted(order) == sorted(plan.stages)
    place = {path: i for i, path in enumerate(order)}
    for path, stage in plan.stages.items():
        assert all(place[parent] < place[path] for parent in stage.parents.values())


def test_a_model_is_tested_before_the_next_one_is_trained(tmp_path: Path) -> None:
    kinds = [path.partition("/")[0] for path in blocks(plan_of(tmp_path))[0].stages]
    assert kinds == ["data", *["finetune", "evaluate", "corrupt"] * 4]


def test_what_explains_comparisons_comes_last(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    kinds = [path.partition("/")[0] for block in blocks(plan) for path in block.stages]
    explain = sum(kind in ("probe", "diagnose") for kind in kinds)
    assert explain
    assert set(kinds[-explain:]) == {"probe", "diagnose"}


def test_an_arm_is_complete_when_trained_and_tested(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    store, arm = Store(plan.study.results), plan.arms[1]
    stages = stages_of(plan, arm)
    for path in stages:
        assert complete(plan, store, plan.arms) == []
        store.folder(path).mkdir(parents=True)
        (store.folder(path) / "stage.json").touch()
    assert complete(plan, store, plan.arms) == [arm]
