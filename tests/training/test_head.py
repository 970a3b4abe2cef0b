"""Fine-tuning the head alone, on clean (SLF) or adversarial images (ALF), beside full fine-tuning in one study."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from ssrob.analysis.collect import arm_columns, labels, read_tables
from ssrob.analysis.sweeps import from_tables
from ssrob.config.fields import ConfigError
from ssrob.config.loader import parse_study
from ssrob.planning.cost import Passes, step_passes, training_passes
from ssrob.planning.plan import Plan, make_plan
from ssrob.planning.specs import TrainSpec
from ssrob.planning.stage import Stage
from ssrob.reporting.figures.arm_styles import arm_styles
from ssrob.reporting.figures.arms import is_plain_at, name_arms, questions, with_names
from ssrob.reporting.figures.summary import differences_to_at
from ssrob.runtime import runner
from ssrob.storage import tables
from ssrob.storage.store import Store, sha256
from ssrob.storage.tables import read_table
from ssrob.training.perturbations import perturb
from ssrob.training.train_step import GRADIENT, compute_gradients, sample_batch
from tests import synthetic
from tests.conftest import tiny_config
from tests.trainings import plan_of, run_training, run_until, set_up

VARIANTS = {"variant": ["standard", "at"], "norm": "linf", "init": "ssl"}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Store]:
    """SLF, ALF and their full counterparts from one pre-training; the head alone with a weight average, too."""
    folder = tmp_path_factory.mktemp("tuned")
    training = tiny_config(folder)["finetune"] | {"ema": 0.9}
    plan, store = plan_of(folder, finetune=training, arms=[VARIANTS | {"tune": ["full", "head"]}])
    run_training(plan, store)
    return plan, store


def of(plan: Plan, **given: Any) -> Stage:
    (found,) = (s for s in plan.of_kind("finetune").values() if all(s.spec.get(key) == given[key] for key in given))
    return found


@pytest.mark.parametrize("variant", ["standard", "at"])
def test_the_head_is_trained_and_the_backbone_stays_to_the_bit(variant: str, tuned: tuple[Plan, Store]) -> None:
    plan, store = tuned
    (before,) = (load_file(store.output(s.path, "last.safetensors")) for s in plan.of_kind("pretrain").values())
    head, full = (
        load_file(store.output(of(plan, variant=variant, tune=tune).path, "last.safetensors"))
        for tune in ("head", None)
    )
    backbone = [name for name in before if name.startswith("backbone.")]
    assert any("running_mean" in name for name in backbone)
    for name in backbone:
        assert torch.equal(head[name], before[name]), name
    assert not all(torch.equal(full[name], before[name]) for name in backbone)
    assert not torch.equal(head["heads.class.weight"], full["heads.class.weight"])


@pytest.mark.parametrize("variant", ["standard", "at"])
def test_the_gradient_is_that_of_logistic_regression_on_frozen_features(
    variant: str, tuned: tuple[Plan, Store]
) -> None:
    plan, store = tuned
    state, task = set_up(of(plan, variant=variant, tune="head"), store)
    x, y, _ = task.batches.at(0)
    batch = sample_batch(task.spec, x, y, 0)
    found = compute_gradients(state.network, task.spec, batch)
    assert {name for name in found if name.startswith(GRADIENT)} == {
        "gradient/heads.class.weight",
        "gradient/heads.class.bias",
    }
    state.network.eval()
    images = perturb(state.network, task.spec.objective, batch)
    with torch.no_grad():
        features = state.network.features(images["adv" if variant == "at" else "clean"])
        residual = (state.network.heads["class"](features).softmax(1) - F.one_hot(y, 10)) / len(y)
    # float32, sums over 100 images
    torch.testing.assert_close(found["gradient/heads.class.weight"], residual.T @ features, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found["gradient/heads.class.bias"], residual.sum(0), rtol=1e-4, atol=1e-6)


def test_the_attack_goes_through_the_backbone_as_in_full_fine_tuning(tuned: tuple[Plan, Store]) -> None:
    plan, store = tuned
    made = []
    for tune in ("head", None):
        state, task = set_up(of(plan, variant="at", tune=tune), store)
        batch = sample_batch(task.spec, *task.batches.at(0)[:2], 0)
        made.append(perturb(state.network, task.spec.objective, batch)["adv"])
    assert torch.equal(*made)


def test_on_clean_images_nothing_goes_back_through_the_backbone(tuned: tuple[Plan, Store]) -> None:
    plan, store = tuned
    for tune in ("head", None):
        state, task = set_up(of(plan, variant="standard", tune=tune), store)
        tracked: list[bool] = []
        state.network.backbone.register_forward_hook(lambda *_, seen=tracked: seen.append(_[2].requires_grad))
        compute_gradients(state.network, task.spec, sample_batch(task.spec, *task.batches.at(0)[:2], 0))
        assert tracked == [tune is None]


def test_arms_carry_what_is_tuned_and_old_ones_keep_keys_and_study(tmp_path: Path) -> None:
    def planned(**more: Any) -> Plan:
        return make_plan(parse_study(tiny_config(tmp_path, arms=[VARIANTS | more])))

    plain, explicit, both = planned(), planned(tune="full"), planned(tune=["full", "head"])
    assert list(plain.stages) == list(explicit.stages)
    assert plain.digest == explicit.digest
    assert set(plain.stages) < set(both.stages)
    assert "tune" not in of(plain, variant="at").spec
    heads = [arm for arm in both.arms if arm.tune == "head"]
    assert [arm_columns(arm)["tune"] for arm in heads] == ["head", "head"]
    assert [labels(both)[arm.finetune] for arm in heads] == [
        "standard training, from SSL pre-training, linear fine-tuning",
        "AT, l-inf, from SSL pre-training, linear fine-tuning",
    ]
    assert all("-head-" in arm.finetune for arm in heads)
    assert len({arm.pretrain for arm in both.arms}) == 1


def test_passes_of_the_head_alone_have_no_backward_to_the_parameters(tuned: tuple[Plan, Store], tmp_path: Path) -> None:
    plan, store = tuned
    spec = TrainSpec.model_validate(of(plan, variant="at", tune="head").spec)
    assert step_passes(spec.objective, "head") == Passes(2 + 1, 2, 0)
    assert training_passes(spec) == 5
    records = read_table(store.output(of(plan, variant="at", tune="head").path, "training.parquet"))
    assert records.query("metric == 'passes'")["value"].tolist() == [5]
    arms = [VARIANTS | {"variant": "at", "tune": "head", "equal_passes": "at"}]
    longer = make_plan(parse_study(tiny_config(tmp_path, arms=arms)))
    (stage,) = longer.of_kind("finetune").values()
    assert stage.spec["training"]["epochs"] == 7 / 5


def test_the_head_alone_goes_on_to_the_same_bits(tuned: tuple[Plan, Store], tmp_path: Path) -> None:
    plan, store = tuned
    again = Store(tmp_path)
    stage = of(plan, variant="at", tune="head")
    for each in plan.stages.values():
        if each.kind in ("data", "pretrain"):
            runner.run(each, again, device="cpu")
    run_until(stage, again, 1)
    runner.run(stage, again, device="cpu")
    for name in ("last.safetensors", "best.safetensors", "training.parquet"):
        assert sha256(again.output(stage.path, name)) == sha256(store.output(stage.path, name)), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": [{"variant": "at_ssl_adv_nograd", "tune": "head"}]}, r"moves BatchNorm statistics \(forward\)"),
        ({"arms": [{"variant": "at", "tune": "backbone"}]}, r"arms\.0\.tune"),
        ({"pretrain": {"tune": "head"}}, r"unknown key 'tune'"),
        ({"pretraining": {"mine": {"train": {"clean": {"ssl": 1}}, "tune": "head"}}}, r"unknown key 'tune'"),
    ],
)
def test_what_the_head_alone_cannot_mean_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        make_plan(parse_study(tiny_config(tmp_path, **changes)))


def test_figures_and_findings_tell_the_head_alone_from_full_fine_tuning() -> None:
    ways = {"variant": ["at", "at_ssl_adv"], "norm": "linf", "init": ["random", "ssl"]}
    study = synthetic.study(seeds=[0, 1], arms=[ways, ways | {"tune": "head"}], evaluate={"eps": [0, 0.5, 1, 2]})
    made = synthetic.tables(study)
    arms = name_arms(made["arms"], study)
    assert arms["name"].nunique() == 8
    assert len(set(arm_styles(arms).values())) == 8
    rows = with_names(made["robustness"], arms)
    assert rows.loc[is_plain_at(rows), "tune"].unique().tolist() == ["full"]
    groups = dict(questions(arms))
    assert set().union(*groups.values()) == set(arms["name"])
    assert len(groups["Linear fine-tuning"]) == 4
    assert len(differences_to_at(rows, 0).query("name.str.endswith('linear fine-tuning')"))
    cells = from_tables(made["robustness"], pd.DataFrame(columns=list(tables.ALL_EXAMPLES)), made["arms"]).cells
    assert len(cells) == 4
    assert all(len(seeds) == 2 for seeds in cells.values()), "the head alone is not mistaken for another seed"


def test_tables_of_another_version_are_named(tmp_path: Path) -> None:
    plan = make_plan(parse_study(tiny_config(tmp_path)))
    (plan.folder / "tables").mkdir(parents=True)
    old = {name: column for name, column in tables.ARMS.items() if name != "tune"}
    tables.write_table(pd.DataFrame(columns=list(old)), old, plan.folder / "tables" / "arms.parquet")
    with pytest.raises(ValueError, match=r"arms\.parquet: column 'tune' is of another version; run `ssrob collect`"):
        read_tables(plan)
