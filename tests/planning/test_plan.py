"""Plans: what makes a stage new, and what does not."""

from pathlib import Path
from typing import Any

import pytest
from ssrob.config.fields import ConfigError
from ssrob.config.loader import load_study, parse_study
from ssrob.planning.cost import Passes, step_passes
from ssrob.planning.objectives import resolve_objective
from ssrob.planning.plan import Plan, make_plan
from ssrob.planning.stage import Stage
from tests.conftest import ROOT, tiny_config


def plan_of(folder: Path, **changes: Any) -> Plan:
    return make_plan(parse_study(tiny_config(folder, **changes)))


def new_kinds(before: Plan, after: Plan) -> dict[str, int]:
    """Count by kind the stages that a changed config adds."""
    added = [stage.kind for path, stage in after.stages.items() if path not in before.stages]
    return {kind: added.count(kind) for kind in sorted(set(added))}


def test_the_same_config_gives_the_same_plan(tmp_path: Path) -> None:
    one, two = plan_of(tmp_path), plan_of(tmp_path)
    assert list(one.stages) == list(two.stages)
    assert one.digest == two.digest


def test_a_variant_adds_its_own_stages_alone(tmp_path: Path) -> None:
    arms = [*tiny_config(tmp_path)["arms"], {"variant": "at_ssl_adv", "norm": "linf"}]
    added = new_kinds(plan_of(tmp_path), plan_of(tmp_path, arms=arms))
    assert added == {"corrupt": 1, "diagnose": 1, "evaluate": 1, "finetune": 1}


def test_a_new_eps_trains_nothing(tmp_path: Path) -> None:
    changed = plan_of(tmp_path, evaluate=tiny_config(tmp_path)["evaluate"] | {"eps": [0, 0.5, 0.75, 1, 2]})
    assert new_kinds(plan_of(tmp_path), changed) == {"evaluate": 3}


def test_a_finetuning_setting_does_not_touch_pretraining(tmp_path: Path) -> None:
    finetune = tiny_config(tmp_path)["finetune"] | {"lr": 0.05}
    added = new_kinds(plan_of(tmp_path), plan_of(tmp_path, finetune=finetune))
    assert added == {"corrupt": 3, "diagnose": 3, "evaluate": 3, "finetune": 3}


def test_a_pretraining_setting_touches_what_starts_from_it(tmp_path: Path) -> None:
    pretrain = tiny_config(tmp_path)["pretrain"] | {"lr": 0.05}
    added = new_kinds(plan_of(tmp_path), plan_of(tmp_path, pretrain=pretrain))
    assert added == {"corrupt": 1, "diagnose": 1, "evaluate": 1, "finetune": 1, "pretrain": 1, "probe": 1}


def test_a_seed_keeps_the_seeds_before_it(tmp_path: Path) -> None:
    added = new_kinds(plan_of(tmp_path), plan_of(tmp_path, seeds=[0, 1]))
    assert added == {"corrupt": 3, "diagnose": 3, "evaluate": 3, "finetune": 3, "pretrain": 1, "probe": 1}


def test_another_study_shares_the_stages_it_has_in_common(tmp_path: Path) -> None:
    other = plan_of(tmp_path, study="other", arms=[{"variant": "trades", "norm": "linf", "init": "ssl"}])
    assert new_kinds(plan_of(tmp_path), other) == {"corrupt": 1, "evaluate": 1, "finetune": 1}


@pytest.mark.parametrize(
    "changes",
    [{"results": "elsewhere"}, {"title": "a title"}, {"tracking_uri": "sqlite:///x.db"}, {"findings": {"margin": 2}}],
)
def test_settings_that_decide_no_stage_change_no_stage(changes: dict[str, Any], tmp_path: Path) -> None:
    assert new_kinds(plan_of(tmp_path), plan_of(tmp_path, **changes)) == {}


def test_where_data_lies_is_not_part_of_a_key(tmp_path: Path) -> None:
    data = {"name": "x", "source": "parquet"}
    here, there = (plan_of(tmp_path, data=data | {"path": path}) for path in ("/a", "/b"))
    assert list(here.stages) == list(there.stages)
    assert next(iter(here.stages.values())).settings == {"path": "/a"}


def test_an_arm_carries_only_what_its_variant_uses(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, arms=[{"variant": ["standard", "at", "at_ssl_joint"], "norm": "linf", "weight": [0.1, 1]}])
    given = [(arm.variant, arm.norm, arm.task, arm.weight) for arm in plan.arms]
    joint = [("at_ssl_joint", "linf", "rotation", weight) for weight in (0.1, 1)]
    assert given == [("standard", None, None, None), ("at", "linf", None, None), *joint]


def test_a_stage_survives_the_command_line_and_no_edit(tmp_path: Path) -> None:
    stage = plan_of(tmp_path).of_kind("finetune").popitem()[1]
    assert Stage.from_json(stage.to_json()) == stage
    with pytest.raises(ConfigError, match="edited by hand"):
        Stage.from_json(stage.to_json().replace('"batch_size":100', '"batch_size":101'))


def test_weight_zero_resolves_to_the_baseline(tmp_path: Path) -> None:
    study = parse_study(tiny_config(tmp_path))
    at = resolve_objective(study, study.variants["at"], norm="linf", task="rotation", weight=0.5)
    for name in ("at_ssl_clean", "at_ssl_adv", "at_ssl_joint", "at_ssl_separate", "at_ssl_attack_only"):
        without = resolve_objective(study, study.variants[name], norm="linf", task="rotation", weight=0.0)
        assert without == at, name


def test_eps_and_step_scale_together(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, arms=[{"variant": "at", "norm": "linf", "eps_scale": [0.5, 1]}])
    half, whole = (stage.spec["objective"]["perturb"]["adv"] for stage in plan.of_kind("finetune").values())
    assert (half["eps"], half["step_size"]) == (whole["eps"] / 2, whole["step_size"] / 2)


def test_passes_of_a_step_are_counted_from_the_objective(tmp_path: Path) -> None:
    study = parse_study(tiny_config(tmp_path))  # two attack steps

    def passes(name: str) -> Passes:
        return step_passes(resolve_objective(study, study.variants[name], norm="linf", task="rotation", weight=0.5))

    assert passes("standard") == Passes(1, 0, 1)
    assert passes("at") == Passes(2 + 1, 2, 1)
    assert passes("trades") == Passes(2 + 1 + 2, 2, 2)  # one clean forward for the attack's target
    assert passes("at_ssl_clean") == Passes(2 + 2, 2, 2)
    assert passes("at_ssl_joint") == Passes(4 + 2, 4, 2)
    assert passes("at_ssl_ensemble") == Passes(4 + 4, 4, 4)


def test_equal_passes_stretch_the_epochs(tmp_path: Path) -> None:
    arms = [
        {"variant": "at", "norm": "linf", "equal_passes": "at_ssl_joint"},
        {"variant": "at", "norm": "linf", "equal_passes": {"variant": "at", "init": "ssl"}},
    ]
    like_joint, like_pretrained = plan_of(tmp_path, arms=arms).of_kind("finetune").values()
    assert like_joint.spec["training"]["epochs"] == pytest.approx((6 + 4 + 4) / (3 + 2 + 2))
    assert like_pretrained.spec["training"]["epochs"] == pytest.approx(1 + (1 + 2) / 7, abs=1e-4)  # rounded
    assert like_joint.spec["budget"] == "passes of at_ssl_joint (rotation)"


def test_own_weights_are_known_by_their_content(tmp_path: Path) -> None:
    plans = []
    for content in (b"one", b"two"):
        file = tmp_path / f"{content.decode()}.safetensors"
        file.write_bytes(content)
        arms = [{"variant": "at", "init": "mine", "norm": "linf"}]
        plans.append(plan_of(tmp_path, pretraining={"mine": {"weights": str(file)}}, arms=arms))
    assert new_kinds(*plans)["finetune"] == 1
    with pytest.raises(ConfigError, match=r"gone\.pt: cannot be read"):
        plan_of(tmp_path, pretraining={"mine": {"weights": "gone.pt"}}, arms=arms)


def test_the_paper_study_has_every_variant_and_control() -> None:
    plan = make_plan(load_study(ROOT / "config" / "cifar10.yaml"))
    ways = {arm.variant for arm in plan.arms}
    assert {"standard", "at", "trades", "at_two", "ssl_standard"} <= ways
    assert {
        f"at_ssl_{way}" for way in ("clean", "adv", "attack_only", "joint_clean", "joint", "separate", "ensemble")
    } <= ways
    assert {arm.eps_scale for arm in plan.arms if arm.variant == "at"} == {0.5, 0.75, 1, 1.25}
    assert {arm.seed for arm in plan.arms} == {0, 1, 2, 3, 4}
    assert {arm.norm for arm in plan.arms} == {"linf", "l2", None}
    assert {arm.init for arm in plan.arms} == {"random", "ssl", "adversarial_ssl"}
    assert {arm.budget for arm in plan.arms} == {
        None,
        "passes of at_ssl_clean (rotation)",
        "passes of at_ssl_joint (rotation)",
    }
