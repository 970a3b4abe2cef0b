"""The paper-scale study has all that the claims' verdicts need, and what the central comparison needs first."""

import pandas as pd
import pytest
from ssrob.analysis import from_tables, judged_claim
from ssrob.analysis.evidence import Evidence
from ssrob.config.findings import paper_claims
from ssrob.config.loader import load_study
from ssrob.planning.cost import training_passes
from ssrob.planning.plan import Plan, make_plan
from ssrob.planning.specs import TrainSpec
from ssrob.scheduling.due import identity
from ssrob.scheduling.priority import blocks
from ssrob.storage.tables import ALL_EXAMPLES
from tests import synthetic
from tests.conftest import ROOT

CLAIMS = list(paper_claims())
READINGS = paper_claims()["C2"].compare
PARTS = ["central", "tasks", "others", "controls"]


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(load_study(ROOT / "config" / "cifar10.yaml"))


def lacking(plan: Plan, parts: set[str]) -> dict[str, list[str]]:
    """Return, by claim, the parts and controls that could not be tested if these parts were all that was run."""
    chosen = [arm.finetune for arm in plan.arms if plan.parts[arm.finetune] in parts]
    tables, keys = synthetic.tables(plan.study), {path.partition("/")[2] for path in chosen}
    arms, robustness = (table[table["arm"].isin(keys)] for table in (tables["arms"], tables["robustness"]))
    trained = {
        arm.finetune.partition("/")[2]: [path for path in (arm.finetune, arm.pretrain) if path] for arm in plan.arms
    }
    specs = {key: [TrainSpec.model_validate(plan.stages[path].spec) for path in trained[key]] for key in arms["arm"]}
    arms = arms.assign(passes=[sum(map(training_passes, specs[key])) for key in arms["arm"]])
    sweeps = from_tables(robustness, pd.DataFrame(columns=list(ALL_EXAMPLES)), arms)
    judged = {claim: judged_claim(sweeps, plan.study.findings, claim) for claim in CLAIMS}
    return {claim: [each for one in judged[claim] for each in untested(one.evidence)] for claim in CLAIMS}


def untested(evidence: Evidence) -> list[str]:
    return [part.name for part in (*evidence.parts, *evidence.controls) if not part.tested]


def test_the_central_comparison_comes_first_in_paired_blocks(plan: Plan) -> None:
    found = [block.name for block in blocks(plan)]
    assert found[:10] == [f"central, {norm}, seed {seed}" for norm in ("linf", "l2") for seed in plan.study.seeds]
    assert [name.partition(",")[0] for name in found if name.endswith("linf, seed 0")] == PARTS
    central = blocks(plan)[0].arms
    ways = {(arm.variant, arm.init, arm.weight, arm.eps_scale) for arm in central if arm.budget is None}
    assert {("at", "random", None, scale) for scale in (0.5, 0.75, 1, 1.25)} < ways
    assert {(name, "random", w, 1) for name in ("at_ssl_clean", "at_ssl_adv") for w in (0.5, 2)} < ways
    assert {(name, "ssl", 0.5, 1) for name in ("at_ssl_joint", "at_ssl_separate")} < ways


def test_nothing_is_missing_for_any_claim(plan: Plan) -> None:
    assert lacking(plan, set(PARTS)) == {claim: [] for claim in CLAIMS}


def test_the_central_comparison_alone_can_tell_c2_c3_and_c5a(plan: Plan) -> None:
    missing = lacking(plan, {"central"})
    assert {claim for claim, names in missing.items() if not names} == {"C2", "C3", "C5a"}, missing


def test_the_slope_in_the_weight_is_part_of_c3(plan: Plan) -> None:
    central = [arm for arm in plan.arms if plan.parts[arm.finetune] == "central"]
    assert {arm.weight for arm in central if arm.variant in READINGS} == {0.5, 2}


@pytest.mark.parametrize("name", ["digits", "cifar10-small"])
def test_a_study_on_two_cores_trains_all_that_the_claims_need(name: str) -> None:
    plan = make_plan(load_study(ROOT / "config" / f"{name}.yaml"))
    assert lacking(plan, set(plan.parts.values())) == {claim: [] for claim in CLAIMS}
    first = lacking(plan, {"central"})
    assert {claim for claim, names in first.items() if not names} == {"C2", "C3", "C5a"}, first
    needed = [arm for arm in plan.arms if plan.parts[arm.finetune] in ("central", "pretrained", "joint")]
    seeds = {identity(arm): set[int]() for arm in needed}
    for arm in needed:
        seeds[identity(arm)].add(arm.seed)
    assert set(map(frozenset, seeds.values())) == {frozenset(plan.study.seeds)}, "every arm of a claim has all seeds"
