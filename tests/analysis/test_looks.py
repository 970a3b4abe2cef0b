"""Planned looks: when they are reached, what they decide, what is needed after them, and what they cost."""

import numpy as np
import pytest
from ssrob.analysis import judged_claim
from ssrob.analysis.comparisons import Comparisons
from ssrob.analysis.looks import needed
from ssrob.analysis.sweeps import Cell, Sweeps
from ssrob.analysis.verdicts import verdict
from ssrob.config.findings import Findings
from tests.simulated import PLAIN, RANDOM_METHODS, SSL_PLAIN, Size, Truth, World, draw, study, sweeps_of, truths

LOOKS = Findings(looks=[3, 5, 10], detectable=100)
QUIET = Size(seeds=10, images=2000, seed_sd=0.05)


def drawn(world: World, seeds: int = 10, seed: int = 0) -> Sweeps:
    """Draw a study of ten seeds and return the first of them."""
    found = sweeps_of(draw(world, QUIET, np.random.default_rng(seed)))
    return limited(found, dict.fromkeys(found.cells, seeds))


def limited(sweeps: Sweeps, seeds: dict[Cell, int]) -> Sweeps:
    cells = {cell: {s: by_seed[s] for s in range(seeds[cell])} for cell, by_seed in sweeps.cells.items()}
    return Sweeps(sweeps.grid, cells)


def notes(sweeps: Sweeps, claim: str) -> list[tuple[str, str]]:
    return [verdict(each) for each in judged_claim(sweeps, LOOKS, claim)]


def test_nothing_is_decided_before_the_first_look() -> None:
    world = truths(8.0)["C2"]
    assert all(name == "inconclusive" and "first look is at 3" in note for name, note in notes(drawn(world, 2), "C2"))
    assert {name for name, _ in notes(drawn(world, 3), "C2")} == {"supported"}


def test_between_two_looks_the_earlier_one_stands() -> None:
    world = study("C2")
    for seeds, look, later in ((4, 3, "next look is at 5"), (9, 5, "next look is at 10"), (10, 10, "")):
        for name, note in notes(drawn(world, seeds), "C2"):
            assert name == "inconclusive"
            assert f"at the look with {look} seeds" in note
            assert (later in note) if later else ("next look" not in note)


def test_a_decided_claim_keeps_its_verdict_and_its_arms_may_stop() -> None:
    world = World({**truths(8.0)["C5a"].truths, **study("C2").truths})
    sweeps = drawn(world)
    after = needed(Comparisons(sweeps, LOOKS))
    assert list(after) == [3, 5, 10]
    assert all(SSL_PLAIN not in cells and {*RANDOM_METHODS, PLAIN} <= cells for cells in after.values())
    stopped = limited(sweeps, {cell: 10 if cell in after[3] else 3 for cell in sweeps.cells})
    ((name, note),) = notes(stopped, "C5a")
    assert name == "supported"
    assert "at the look with 3 seeds" in note
    assert all("at the look with 10 seeds" in note for _, note in notes(stopped, "C2"))


def test_a_look_waits_for_every_arm_of_an_open_claim() -> None:
    sweeps = drawn(study("C2"))
    seeds = dict.fromkeys(sweeps.cells, 5) | {RANDOM_METHODS[0]: 4}
    assert list(needed(Comparisons(limited(sweeps, seeds), LOOKS))) == [3]


def test_a_look_waits_for_every_weight_of_a_slope() -> None:
    """A weight that is a seed behind is not left out of the slope: C3 would be judged without it."""
    slopes = [cell._replace(weight=weight) for cell in RANDOM_METHODS for weight in (0.1, 0.5, 2.0)]
    sweeps = drawn(study("C3").with_truth(Truth(), *slopes), 5)
    behind = limited(sweeps, dict.fromkeys(sweeps.cells, 5) | {slopes[2]: 4})
    assert list(needed(Comparisons(sweeps, LOOKS))) == [3, 5]
    assert list(needed(Comparisons(behind, LOOKS))) == [3]
    assert all("at the look with 3 seeds" in note for _, note in notes(behind, "C3"))


def test_a_study_whose_claims_are_all_decided_needs_nothing() -> None:
    after = needed(Comparisons(drawn(truths(8.0)["C5a"], 3), LOOKS))
    assert after[3] == set()
    assert not any(after.values())


def test_every_look_has_its_share_of_the_level() -> None:
    sweeps = drawn(World({PLAIN: Truth(), SSL_PLAIN: Truth()}), 3)
    (once,) = judged_claim(sweeps, Findings(detectable=100), "C5a")
    (third,) = judged_claim(sweeps, LOOKS, "C5a")
    assert LOOKS.look_alpha == pytest.approx(0.05 / 3)
    width = (third.estimate.high - third.estimate.low) / (once.estimate.high - once.estimate.low)
    assert width > 1.2
