"""Findings from simulated studies with a known truth: what is compared, what is required, and what is said."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from ssrob.analysis import findings, from_tables, judged_claim
from ssrob.analysis.comparisons import AT_EPS, Comparisons
from ssrob.analysis.contrasts import SCALES, beyond_frontier, difference, frontier_at, slope
from ssrob.analysis.controls import TWO, passes_of
from ssrob.analysis.sweeps import GROUPS, Cell, Sweeps
from ssrob.analysis.sweeps import from_tables as read_sweeps
from ssrob.analysis.verdicts import verdict
from ssrob.config.findings import Findings, Primary
from ssrob.config.loader import parse_study
from ssrob.planning.plan import make_plan
from ssrob.registry.losses import LOSSES
from ssrob.storage.tables import FINDINGS, write_table
from tests.simulated import (
    CLAIM_CELLS,
    GRID,
    JOINT,
    PLAIN,
    RANDOM_METHODS,
    SSL_METHODS,
    SSL_PLAIN,
    Size,
    Truth,
    World,
    draw,
    lengthened,
    longer,
    method_cell,
    no_gradient,
    pretrained_longer,
    study,
    sweeps_of,
    tables_of,
    truths,
)

QUIET = Size(seeds=5, images=2000, seed_sd=0.05)  # effects of 8 points stand out from such noise
SETTINGS = Findings(detectable=100)
EFFECT = 8.0
BELOW, ABOVE = np.flatnonzero((GRID >= 0.25) & (GRID <= 0.75)), np.flatnonzero(GRID > 1)


def drawn(world: World, size: Size = QUIET, seed: int = 0) -> Sweeps:
    return sweeps_of(draw(world, size, np.random.default_rng(seed)))


def verdicts(world: World, claim: str, settings: Findings = SETTINGS, size: Size = QUIET) -> list[tuple[str, str]]:
    return [verdict(each) for each in judged_claim(drawn(world, size), settings, claim)]


def table(world: World, settings: Findings = SETTINGS, size: Size = QUIET) -> pd.DataFrame:
    return findings(*tables_of(draw(world, size, np.random.default_rng(0))), settings)


def exact(curves: dict[Cell, np.ndarray], seeds: int = 2) -> Sweeps:
    """Return sweeps with given accuracies in per cent, the same for every seed, without images."""
    world = drawn(World(dict.fromkeys(curves, Truth())), Size(seeds=seeds, images=40))
    cells = {
        cell: {
            seed: dataclasses.replace(sweep, accuracy=np.tile(curves[cell], (1 + GROUPS, 1)))
            for seed, sweep in world.cells[cell].items()
        }
        for cell in curves
    }
    return Sweeps(GRID, cells)


@pytest.mark.parametrize("claim", CLAIM_CELLS)
def test_a_true_claim_with_all_controls_is_supported(claim: str) -> None:
    effect = 0.0 if claim == "C5b" else EFFECT
    settings = SETTINGS.model_copy(update={"margin": EFFECT})
    outcomes = verdicts(truths(effect)[claim], claim, settings)
    assert {name for name, _ in outcomes} == {"supported"}, outcomes


def test_effects_are_those_of_the_truth() -> None:
    """Twenty studies on average: the mean over the interval, in points, ours minus plain AT."""
    world = study("C2").with_truth(Truth(below=3, at=1, above=-2), *RANDOM_METHODS)
    found = []
    for seed in range(20):
        sweeps = drawn(world, Size(seeds=3, images=400), seed)
        parts = [difference(sweeps, RANDOM_METHODS[0], PLAIN, at) for at in (BELOW, np.array([4]), ABOVE)]
        found.append([part.estimate(0.05).effect for part in parts])
    assert np.mean(found, axis=0) == pytest.approx([3, 1, -2], abs=0.6)  # three standard errors


CONTROLS = {
    "C2": [PLAIN._replace(eps_scale=0.75), *map(longer, RANDOM_METHODS[:1]), *map(no_gradient, RANDOM_METHODS[:1])],
    "C3": [PLAIN._replace(eps_scale=1.25), *map(longer, RANDOM_METHODS[:1]), *map(no_gradient, RANDOM_METHODS[:1])],
    "C4": [
        PLAIN._replace(eps_scale=0.5),
        longer(method_cell(JOINT)),
        no_gradient(method_cell(JOINT)),
        PLAIN._replace(variant=TWO),
    ],
    "C5a": [PLAIN._replace(eps_scale=0.5), pretrained_longer()],
    "C5b": [PLAIN._replace(eps_scale=0.5), *map(longer, SSL_METHODS[:1]), *map(no_gradient, SSL_METHODS[:1])],
}


@pytest.mark.parametrize(("claim", "control"), [(claim, each) for claim in CONTROLS for each in CONTROLS[claim]])
def test_no_claim_is_supported_without_a_control(claim: str, control: Cell) -> None:
    effect = 0.0 if claim == "C5b" else EFFECT
    settings = SETTINGS.model_copy(update={"margin": EFFECT})
    world = truths(effect)[claim]
    alike = [cell for cell in world.truths if cell.budget and control.budget and cell.variant == control.variant]
    (name, note), *_ = verdicts(world.without(control, *alike), claim, settings)
    assert name == "inconclusive"
    assert "missing" in note
    assert str(control) in note


@pytest.mark.parametrize(("claim", "size"), [("C2", EFFECT), ("C3", EFFECT), ("C4", EFFECT), ("C5a", EFFECT)])
def test_the_opposite_contradicts_also_without_controls(claim: str, size: float) -> None:
    world = truths(-size)[claim]
    controls = [cell for cell in world.truths if cell.budget or cell.variant.endswith("_nograd") or cell.eps_scale != 1]
    assert {name for name, _ in verdicts(world.without(*controls), claim)} == {"contradicted"}


def test_a_benefit_after_pretraining_contradicts_c5b_and_a_harm_does_not() -> None:
    assert {name for name, _ in verdicts(truths(EFFECT)["C5b"], "C5b")} == {"contradicted"}
    assert {name for name, _ in verdicts(truths(-EFFECT)["C5b"], "C5b")} == {"inconclusive"}


def test_a_slide_along_the_frontier_supports_neither_c2_nor_c3() -> None:
    world = study("C2").with_truth(Truth(like=0.6), *RANDOM_METHODS)
    size = Size(seeds=8, images=2000, seed_sd=0.05)
    for claim in ("C2", "C3"):
        assert all(name == "inconclusive" and "frontier" in note for name, note in verdicts(world, claim, size=size))


def test_the_slope_in_the_weight_is_part_of_c3_where_there_are_weights() -> None:
    steps = {0.1: -2.0, 0.5: -8.0, 2.0: -12.0}
    steeper, flat = truths(EFFECT)["C3"], truths(EFFECT)["C3"]
    for weight, loss in steps.items():
        cells = [method_cell(cell.variant, weight=weight) for cell in RANDOM_METHODS]
        steeper = steeper.with_truth(Truth(above=loss), *cells)
        flat = flat.with_truth(Truth(above=-8.0), *cells)
    assert {name for name, _ in verdicts(steeper, "C3")} == {"supported"}
    assert not any("not tested" in note for _, note in verdicts(steeper, "C3"))
    assert all(
        "a larger one has more of a loss was not tested" in note for _, note in verdicts(truths(EFFECT)["C3"], "C3")
    )
    assert all(name == "inconclusive" and "slope" in note for name, note in verdicts(flat, "C3"))


def test_slopes_are_those_of_a_line_fit() -> None:
    cells = [method_cell("at_ssl_adv", weight=weight) for weight in (0.1, 0.5, 2.0)]
    values = [60.0, 58.0, 51.0]
    sweeps = exact({cell: np.full(len(GRID), value) for cell, value in zip(cells, values, strict=True)})
    found = slope(sweeps, cells, ABOVE).per_seed
    assert found is not None
    assert found[0] == pytest.approx(np.polyfit([0.1, 0.5, 2.0], values, 1)[0])


def curves(scales: tuple[float, ...] = SCALES) -> dict[Cell, np.ndarray]:
    return {PLAIN._replace(eps_scale=scale): Truth(like=scale).curve() for scale in scales}


@pytest.mark.parametrize("like", [0.55, 0.7, 0.9, 1.0, 1.1, 1.25])
def test_plain_at_of_any_scale_lies_on_the_frontier(like: float) -> None:
    """Between the scales the interpolated curve is a little under the true one: 0.05 points at this curvature."""
    ours = method_cell("at_ssl_adv")
    found = beyond_frontier(exact(curves() | {ours: Truth(like=like).curve()}), ours, PLAIN, (BELOW, ABOVE)).per_seed
    assert found is not None
    assert found[0] == pytest.approx(0, abs=0.05)


def test_the_distance_from_the_frontier_is_in_points_below_eps() -> None:
    ours = method_cell("at_ssl_adv")
    found = beyond_frontier(
        exact(curves() | {ours: Truth(like=0.75, below=2.0).curve()}), ours, PLAIN, (BELOW, ABOVE)
    ).per_seed
    assert found is not None
    assert found[0] == pytest.approx(2.0, abs=0.05)


def test_beyond_the_ends_of_the_frontier_only_what_is_safe_is_said() -> None:
    ours = method_cell("at_ssl_adv")

    def distance(truth: Truth) -> float | None:
        found = beyond_frontier(exact(curves() | {ours: truth.curve()}), ours, PLAIN, (BELOW, ABOVE))
        return None if found.per_seed is None else float(found.per_seed[0, 0])

    end = Truth(like=1.25)
    assert distance(dataclasses.replace(end, above=3)) == pytest.approx(0, abs=0.01)  # more robust than any: its end
    assert distance(Truth(like=0.5, above=-9, below=4)) is None  # a smaller eps_train might do as well
    assert distance(Truth(above=-20)) == pytest.approx(
        -float(np.mean(Truth(like=0.5).curve()[BELOW]) - np.mean(Truth().curve()[BELOW])), abs=0.01
    )


def test_the_frontier_is_the_best_of_a_curve_that_turns_back() -> None:
    above, below = np.array([10.0, 14.0, 13.0, 11.0]), np.array([60.0, 58.0, 55.0, 50.0])
    found = frontier_at(np.array([[11.0]]), above[:, None, None], below[:, None, None])
    assert 58 < found[0, 0] < 60  # on the first branch, not the second with 50


def test_eps_train_belongs_to_neither_interval_and_the_floor_leaves_points_out() -> None:
    low = Truth().curve() - np.where(GRID == 2, 12, 0)  # 2 per cent at 2 x eps
    comparisons = Comparisons(exact({PLAIN: low}), SETTINGS)
    assert GRID[comparisons.kept(PLAIN, (0.25, 0.75))].tolist() == [0.25, 0.5, 0.75]
    assert GRID[comparisons.kept(PLAIN, (1.0, 2.0))].tolist() == [1.25, 1.5]
    assert GRID[comparisons.kept(PLAIN, AT_EPS)].tolist() == [1.0]
    assert comparisons.remark(PLAIN, (1.0, 2.0)) == "left out, as plain AT is under 5 %: 2 × eps"


def test_nothing_above_the_floor_is_inconclusive() -> None:
    outcomes = verdicts(study("C3"), "C3", SETTINGS.model_copy(update={"floor": 60.0}))
    assert all(name == "inconclusive" and "floor" in note for name, note in outcomes)


def test_the_joint_way_must_beat_every_other() -> None:
    tie = truths(EFFECT)["C4"].with_truth(Truth(below=8, at=8, above=8), method_cell("at_ssl_separate"))
    ((name, note),) = verdicts(tie, "C4")
    assert (name, "AT + rotation, separate attacks" in note) == ("inconclusive", True)
    ((name, note),) = verdicts(truths(EFFECT)["C4"].without(method_cell("at_ssl_separate")), "C4")
    assert (name, "missing: AT + rotation, separate attacks" in note) == ("inconclusive", True)


def test_the_joint_way_must_also_beat_ways_that_a_study_adds() -> None:
    mine = method_cell("my_method")
    outcomes = verdicts(World({**truths(EFFECT)["C4"].truths, mine: Truth(below=8, at=12, above=8)}), "C4")
    assert outcomes[0][0] == "contradicted"
    assert "my_method" in outcomes[0][1]


def test_cheaper_ways_are_compared_at_equal_passes() -> None:
    ((name, note),) = verdicts(truths(EFFECT)["C4"].without(lengthened(method_cell("at_ssl_clean"))), "C4")
    longer_clean = "AT + rotation on clean images, w 0.5 (passes of AT + rotation in attack and training)"
    assert (name, longer_clean in note) == ("inconclusive", True)


SMALL = Size(seeds=3, images=200, seed_sd=1.0)


def test_what_a_small_study_does_not_show_is_underpowered_and_not_inconclusive() -> None:
    for name, note in verdicts(study("C2"), "C2", Findings(), SMALL):
        assert name == "underpowered"
        assert "3 seeds and 200 images could only detect" in note
        assert "the study asks for 2" in note
    for name, note in verdicts(study("C2"), "C2", Findings(), Size(seeds=10, images=10_000)):
        assert name == "inconclusive", note


def test_a_significant_effect_decides_whatever_the_power_and_its_size_is_doubted() -> None:
    for effect, decided in ((10.0, "supported"), (-5.0, "contradicted")):  # found now and then
        for name, note in verdicts(truths(effect)["C2"], "C2", Findings(), SMALL):
            assert name == decided
            assert "its size is likely overstated" in note
    clear = verdicts(truths(20.0)["C2"], "C2", Findings(), SMALL)  # found in every such study
    assert all(name == "supported" and "overstated" not in note for name, note in clear)
    large = verdicts(truths(EFFECT)["C2"], "C2", Findings(), QUIET)
    assert all(name == "supported" and "overstated" not in note for name, note in large)


def test_two_seeds_are_never_a_verdict() -> None:
    outcomes = verdicts(truths(20.0)["C2"], "C2", Findings(), Size(seeds=2, images=2000, seed_sd=0.05))
    assert all(name == "underpowered" and "a verdict takes 3" in note for name, note in outcomes)


def test_an_equivalence_that_a_small_study_does_not_show_is_underpowered() -> None:
    outcomes = verdicts(truths(0.0)["C5b"], "C5b", Findings(), SMALL)
    assert all(name == "underpowered" and "could only show a margin of" in note for name, note in outcomes)


def test_a_clear_loss_is_no_equivalence_and_the_note_says_that_it_is_a_loss() -> None:
    for name, note in verdicts(study("C5b").with_truth(Truth(at=-20), *SSL_METHODS), "C5b", Findings(), SMALL):
        assert (name, "a loss is no benefit, and no equivalence either" in note) == ("inconclusive", True)


def test_one_seed_is_a_mcnemar_test_and_never_a_verdict() -> None:
    found = table(truths(EFFECT)["C2"], size=Size(seeds=1, images=2000))
    row = found[(found["claim"] == "C2") & found["primary"]].iloc[0]
    assert row["test"].startswith("McNemar (1 seed)")
    assert "at 0.5 × eps" in row["cell"]
    assert row["note"].startswith(f"{RANDOM_METHODS[0]} gains ")
    assert " points at 0.5 × eps against plain AT; one seed says nothing about another" in row["note"]
    assert row["p"] < 0.05
    assert (row["verdict"], row["seeds"]) == ("underpowered", 1)


def test_one_seed_without_images_has_an_effect_alone() -> None:
    robustness, examples, arms = tables_of(draw(study(), Size(seeds=1, images=100), np.random.default_rng(0)))
    found = findings(robustness, examples.iloc[:0], arms, SETTINGS)
    assert found["p"].isna().all()
    assert found["effect"].notna().any()
    assert set(found["verdict"]) <= {"", "inconclusive", "underpowered"}


def test_tables_and_sweeps_say_the_same() -> None:
    made = draw(truths(EFFECT)["C2"], QUIET, np.random.default_rng(0))
    direct, read = sweeps_of(made), read_sweeps(*tables_of(made))
    assert read.cells.keys() == direct.cells.keys()
    for cell, seeds in direct.cells.items():
        for seed, sweep in seeds.items():
            assert read.cells[cell][seed].accuracy == pytest.approx(sweep.accuracy)
            assert np.array_equal(read.cells[cell][seed].survived, sweep.survived)


def test_the_table_has_its_columns_its_primary_rows_and_one_order(tmp_path) -> None:
    robustness, examples, arms = tables_of(draw(study(), QUIET, np.random.default_rng(0)))
    found = findings(robustness, examples, arms, SETTINGS)
    write_table(found, FINDINGS, tmp_path / "findings.parquet")
    primary = found[found["primary"]]
    assert primary["claim"].tolist() == ["C2", "C2", "C3", "C3", "C4", "C5a", "C5b", "C5b"]
    assert set(primary["verdict"]) <= {"supported", "contradicted", "inconclusive", "underpowered"}
    assert set(found[~found["primary"]]["verdict"]) == {""}
    assert found["note"].str.endswith(".").all()
    again = findings(robustness.sample(frac=1, random_state=1), examples.sample(frac=1, random_state=2), arms, SETTINGS)
    pd.testing.assert_frame_equal(found, again)


def test_the_difference_at_eps_train_is_a_row_of_its_own() -> None:
    found = table(study("C2"))
    rows = found[found["question"] == "the difference at eps_train itself"]
    assert len(rows) == 2
    assert rows["cell"].str.endswith("at 1 × eps").all()
    assert not rows["primary"].any()


@pytest.mark.parametrize(
    ("keep", "judged"),
    [
        ([], []),
        ([PLAIN], []),
        ([PLAIN, RANDOM_METHODS[0]], ["C2", "C2", "C3", "C3"]),
        ([method_cell(JOINT)], []),
        ([method_cell(JOINT), RANDOM_METHODS[0]], ["C4"]),
        ([SSL_PLAIN], []),
    ],
)
def test_claims_have_rows_where_what_they_compare_was_trained(keep: list[Cell], judged: list[str]) -> None:
    robustness, examples, arms = tables_of(draw(study(), Size(seeds=2, images=60), np.random.default_rng(0)))
    names = {f"{cell}-{cell.norm}-s{seed}" for cell in keep for seed in range(2)}
    kept = [each[each["arm"].isin(names)] for each in (robustness, examples, arms)]
    found = findings(*kept, SETTINGS)
    primary = found[found["primary"]]
    assert primary["claim"].tolist() == judged
    assert set(primary["verdict"]) <= {"inconclusive", "underpowered"}
    assert primary[primary["effect"].isna()]["note"].str.contains("missing").all()


def test_a_seed_without_an_accuracy_is_left_out() -> None:
    robustness, examples, arms = tables_of(draw(truths(EFFECT)["C2"], QUIET, np.random.default_rng(0)))
    broken = robustness["arm"].str.startswith("AT + rotation on adversarial images, w 0.5-") & (robustness["seed"] == 2)
    robustness.loc[broken & (robustness["eps_multiple"] == 0.5), "accuracy"] = math.nan
    found = findings(robustness, examples, arms, SETTINGS)
    assert found[found["primary"]]["seeds"].tolist()[:2] == [5, 4]


def test_two_models_for_one_cell_and_seed_are_not_guessed_between() -> None:
    robustness, examples, arms = tables_of(draw(truths(EFFECT)["C2"], QUIET, np.random.default_rng(0)))
    twin = robustness[robustness["arm"].str.startswith("AT-")].assign(arm=lambda rows: rows["arm"] + "-other")
    found = findings(pd.concat([robustness, twin]), examples, arms, SETTINGS)
    assert found.iloc[0]["verdict"] == "inconclusive"
    assert "more than one model fits" in found.iloc[0]["note"]


def test_models_without_a_perturbation_are_left_out() -> None:
    robustness, examples, arms = tables_of(draw(World({PLAIN: Truth()}), QUIET, np.random.default_rng(0)))
    standard = robustness.assign(variant="standard", norm=None, arm="standard")
    assert list(from_tables(pd.concat([robustness, standard]), examples, arms).cells) == [PLAIN]


def test_other_cells_than_the_primary_are_exploratory() -> None:
    l2 = {cell._replace(norm="l2"): truth for cell, truth in truths(EFFECT)["C2"].truths.items()}
    found = table(World({**study("C2").truths, **l2}), SETTINGS)
    assert (found[found["cell"].str.contains("l2, ")]["primary"] == False).all()  # noqa: E712
    elsewhere = table(World({**study("C2").truths, **l2}), SETTINGS.model_copy(update={"primary": Primary(norm="l2")}))
    assert elsewhere.iloc[0]["verdict"] == "supported"


@pytest.mark.parametrize("task", [name for name, row in LOSSES.items() if row.self_supervised])
def test_the_budget_is_named_as_the_plan_names_it(task: str) -> None:
    config = {
        "study": "names",
        "data": {"name": "digits", "source": "digits"},
        "model": {"name": "resnet", "depth": 8, "width": 4},
        "threat": {"linf": {"eps": 0.1}},
        "arms": [
            {"variant": "at", "task": task, "equal_passes": "at_ssl_adv"},
            {"variant": "at", "task": task, "equal_passes": {"variant": "at", "init": "ssl"}},
        ],
    }
    budgets = [arm.budget for arm in make_plan(parse_study(config)).arms]
    assert budgets == [passes_of(method_cell("at_ssl_adv")._replace(task=task)), passes_of(SSL_PLAIN, task)]
