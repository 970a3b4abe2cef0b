"""The paper-scale study has all that the claims' verdicts need, and what the central comparison needs first."""

import pandas as pd
import pytest
from ssrob.config import load_study
from ssrob.cost import training_passes
from ssrob.findings import findings
from ssrob.order import blocks
from ssrob.plan import Plan, make_plan
from ssrob.stage_specs import TrainSpec
from ssrob.tables import ALL_EXAMPLES
from tests import synthetic
from tests.conftest import ROOT

PARTS = ["central", "tasks", "others", "controls"]


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(load_study(ROOT / "config" / "cifar10.yaml"))


def notes(plan: Plan, parts: set[str]) -> pd.Series:
    """Return the notes of the claims' primary cells if these parts of the study were all that was run."""
    chosen = [arm.finetune for arm in plan.arms if plan.parts[arm.finetune] in parts]
    tables, keys = synthetic.tables(plan.study), {path.partition("/")[2] for path in chosen}
    arms, robustness = (table[table["arm"].isin(keys)] for table in (tables["arms"], tables["robustness"]))
    specs = {key: TrainSpec.model_validate(plan.stages[f"finetune/{key}"].spec) for key in arms["arm"]}
    arms = arms.assign(passes=[training_passes(specs[key]) for key in arms["arm"]])
    found = findings(robustness, pd.DataFrame(columns=list(ALL_EXAMPLES)), arms, plan.study.findings)
    return found[found["primary"]].set_index("claim")["note"]


def test_the_central_comparison_comes_first_in_paired_blocks(plan: Plan) -> None:
    found = [block.name for block in blocks(plan)]
    assert found[:6] == [f"central, {norm}, seed {seed}" for norm in ("linf", "l2") for seed in (0, 1, 2)]
    assert [name.partition(",")[0] for name in found if name.endswith("linf, seed 0")] == PARTS
    central = blocks(plan)[0].arms
    ways = {(arm.variant, arm.init, arm.weight, arm.eps_scale) for arm in central if arm.budget is None}
    assert {("at", "random", None, scale) for scale in (0.5, 0.75, 1, 1.25)} < ways
    assert {(name, "random", w, 1) for name in ("at_ssl_clean", "at_ssl_adv") for w in (0.5, 2)} < ways
    assert {(name, "ssl", 0.5, 1) for name in ("at_ssl_joint", "at_ssl_separate")} < ways


def test_nothing_is_missing_for_any_claim(plan: Plan) -> None:
    for claim, note in notes(plan, set(PARTS)).items():
        assert "missing" not in note, (claim, note)


def test_the_central_comparison_alone_can_tell_c2_c3_and_c5a(plan: Plan) -> None:
    told = notes(plan, {"central"})
    for claim in ("C2", "C3", "C5a"):
        assert not told[[claim]].str.contains("missing").any(), claim
    assert told[["C4"]].str.contains("missing").all(), "the other ways come later"
