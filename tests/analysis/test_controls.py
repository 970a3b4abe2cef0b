"""Controls and rivals: which arms count as such, what too few seeds of one mean, and what the rows say of them."""

import dataclasses

import numpy as np
import pytest
from ssrob.analysis import findings, judged_claim
from ssrob.analysis.claims import exploratory_cells
from ssrob.analysis.comparisons import Comparisons
from ssrob.analysis.controls import TWO
from ssrob.analysis.evidence import Evidence, judge
from ssrob.analysis.statistics import p_value
from ssrob.analysis.sweeps import Cell, Sweeps
from ssrob.analysis.verdicts import verdict
from ssrob.config.findings import Findings, paper_claims
from ssrob.config.loader import parse_study
from ssrob.planning.cost import step_passes
from ssrob.planning.plan import make_plan
from ssrob.planning.specs import TrainSpec
from tests.simulated import (
    JOINT,
    METHODS,
    NO_GRADIENT_PASSES,
    PASSES,
    PLAIN,
    PRETRAINING,
    RANDOM_METHODS,
    READINGS,
    Size,
    Truth,
    World,
    draw,
    longer,
    method_cell,
    no_gradient,
    pretrained_longer,
    sweeps_of,
    tables_of,
    truths,
)

QUIET = Size(seeds=5, images=2000, seed_sd=0.05)  # effects of 8 points stand out from such noise
SETTINGS = Findings(detectable=100)
EFFECT = 8.0


def drawn(world: World, seed: int = 0) -> Sweeps:
    return sweeps_of(draw(world, QUIET, np.random.default_rng(seed)))


def verdicts(sweeps: Sweeps, claim: str) -> list[tuple[str, str]]:
    return [verdict(each) for each in judged_claim(sweeps, SETTINGS, claim)]


def one_seed(world: World, cell: Cell) -> Sweeps:
    """Draw a world in which one cell has but its first seed."""
    sweeps = drawn(world)
    sweeps.cells[cell] = {0: sweeps.cells[cell][0]}
    return sweeps


@pytest.mark.parametrize(
    ("claim", "control", "name"),
    [
        ("C5a", pretrained_longer(), "AT at equal passes"),
        ("C4", PLAIN._replace(variant=TWO), "two supervised perturbations"),
        ("C2", no_gradient(RANDOM_METHODS[0]), "BatchNorm statistics alone"),
    ],
)
def test_a_control_with_one_seed_is_missing(claim: str, control: Cell, name: str) -> None:
    found, note = verdicts(one_seed(truths(EFFECT)[claim], control), claim)[0]
    assert found == "inconclusive"
    assert f"controls are missing (more seeds for {name})" in note


def test_a_rival_with_one_seed_neither_contradicts_nor_supports() -> None:
    rival = method_cell("at_ssl_separate")
    for truth in (Truth(), Truth(below=16, at=16, above=16)):
        ((found, note),) = verdicts(one_seed(truths(EFFECT)["C4"].with_truth(truth, rival), rival), "C4")
        assert found == "underpowered"
        assert "one seed" in note


def test_a_part_that_was_not_tested_counts_as_no_evidence_in_the_correction() -> None:
    """The opposite of one part is shown, the other has one seed, whatever their order: the other cell is corrected."""
    sweeps = drawn(truths(EFFECT)["C4"])
    at = Comparisons(sweeps, SETTINGS).kept(PLAIN, (1.0, 1.0))
    lost = Comparisons(sweeps, SETTINGS).difference("lost", "loss", (method_cell(JOINT), PLAIN), at)
    assert lost.estimate is not None
    single = dataclasses.replace(lost, estimate=dataclasses.replace(lost.estimate, seeds=1))
    for parts in ([lost, single], [single, lost]):
        mixed, whole = judge([Evidence("a", "", parts, []), Evidence("b", "", [lost], [])], SETTINGS)
        assert np.isnan(mixed.against)
        assert whole.against == pytest.approx(2 * lost.estimate.p)


def test_views_as_augmentation_are_no_way_of_self_supervision() -> None:
    views = [method_cell(f"{name}_views") for name in (*READINGS, JOINT)]
    sweeps = drawn(World({**truths(EFFECT)["C4"].truths, **dict.fromkeys(views, Truth())}))
    assert [name for name, _ in verdicts(sweeps, "C4")] == ["supported"]
    listed = [
        cell
        for claim in ("C2", "C3", "C4")
        for cell in exploratory_cells(Comparisons(sweeps, SETTINGS), paper_claims()[claim])
    ]
    assert listed
    assert not set(listed) & set(views)


def test_a_way_that_a_study_adds_at_another_weight_is_no_rival() -> None:
    for weight, expected in ((1.0, "supported"), (0.5, "contradicted"), (None, "contradicted")):
        mine = method_cell("my_method")._replace(weight=weight)
        stronger = Truth(below=16, at=16, above=16)
        ((found, note),) = verdicts(drawn(World({**truths(EFFECT)["C4"].truths, mine: stronger})), "C4")
        assert found == expected, note


def test_arms_of_equal_cost_share_the_control_at_equal_passes() -> None:
    """at_ssl_adv costs as many passes as at_ssl_clean: one longer AT serves both, whatever it was named for."""
    world, shared = truths(EFFECT)["C2"].without(longer(method_cell("at_ssl_adv"))), longer(method_cell("at_ssl_clean"))
    assert [name for name, _ in verdicts(drawn(world), "C2")] == ["supported", "supported"]
    apart = drawn(world)
    stretched = {seed: dataclasses.replace(each, passes=26.5) for seed, each in apart.cells[shared].items()}
    apart.cells[shared] = stretched  # 2 % more
    outcomes = verdicts(apart, "C2")
    assert [name for name, _ in outcomes] == ["supported", "inconclusive"]
    assert "passes of AT + rotation on adversarial images" in outcomes[1][1]
    beaten = verdicts(drawn(world.with_truth(Truth(below=EFFECT), shared), seed=1), "C2")
    assert all("does not hold against AT at equal passes" in note for _, note in beaten)


def test_the_control_at_equal_passes_is_the_one_with_most_seeds() -> None:
    world, ours = truths(EFFECT)["C2"], method_cell("at_ssl_adv")
    outcomes = verdicts(one_seed(world, longer(ours)), "C2")
    assert [name for name, _ in outcomes] == ["supported", "supported"]


def test_the_joint_way_must_also_beat_plain_at_of_its_own_length() -> None:
    evidence = judged_claim(drawn(truths(EFFECT)["C4"]), SETTINGS, "C4")[0].evidence
    plain = next(part for part in evidence.controls if part.name == "plain AT")
    assert plain.cell.startswith(f"{method_cell(JOINT)} - AT | ")
    assert plain.alternative == "gain"


def test_simulated_cells_cost_what_such_arms_cost() -> None:
    names = ["at", *METHODS, TWO, *(f"{name}_nograd" for name in READINGS), f"{JOINT}_nograd"]
    config = {
        "study": "costs",
        "data": {"name": "digits", "source": "digits"},
        "model": {"name": "resnet", "depth": 8, "width": 4},
        "threat": {"linf": {"eps": 0.1, "steps": 10}},
        "arms": [{"variant": names}, {"variant": "at", "init": "ssl"}],
    }
    plan = make_plan(parse_study(config))
    specs = [
        TrainSpec.model_validate(stage.spec)
        for kind in ("finetune", "pretrain")
        for stage in plan.of_kind(kind).values()
    ]
    found = {spec.variant: step_passes(spec.objective).equivalent for spec in specs}
    silent_ones = {name: NO_GRADIENT_PASSES for name in names if name.endswith("_nograd")}
    assert found == {**PASSES, **silent_ones, "ssl": PRETRAINING}


def test_rows_show_the_p_value_that_decides() -> None:
    """Plain AT gains where a loss is wanted: p is 1 in that row, and the correction stands in primary rows alone."""
    found = findings(*tables_of(draw(truths(-EFFECT)["C3"], QUIET, np.random.default_rng(0))), SETTINGS)
    assert set(found[(found["claim"] == "C3") & found["primary"]]["p"]) == {1.0}
    sweeps = drawn(truths(0.0)["C5b"])
    evidence = judged_claim(sweeps, SETTINGS, "C5b")[0].evidence
    rows = findings(*tables_of(draw(truths(0.0)["C5b"], QUIET, np.random.default_rng(0))), SETTINGS)
    for part in evidence.controls:
        assert part.estimate is not None
        expected = p_value(part.estimate, "not_greater", SETTINGS.margin)
        assert rows[rows["cell"] == part.cell]["p"].iloc[0] == pytest.approx(expected)


def test_a_p_value_of_one_seed_is_that_of_mcnemar() -> None:
    comparisons = Comparisons(one_seed(truths(EFFECT)["C2"], PLAIN), SETTINGS)
    part = comparisons.difference("plain AT", "loss", (RANDOM_METHODS[0], PLAIN), np.array([1, 2, 3]))
    assert part.estimate is not None
    assert part.estimate.test.startswith("McNemar")
    assert part.deciding_p(SETTINGS) == part.estimate.p < 0.05
    assert not part.tested
