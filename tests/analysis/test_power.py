"""Planning: what a pilot says of larger studies, against larger studies of the same world."""

import dataclasses
import math

import numpy as np
import pytest
from ssrob.analysis.comparisons import Comparisons
from ssrob.analysis.power import Cost, outlook
from ssrob.analysis.standard_error import Variances
from ssrob.config.findings import Findings
from tests.simulated import PLAIN, SSL_PLAIN, Size, Truth, World, draw, pretrained_longer, sweeps_of, truths

SETTINGS = Findings()
PILOT = Size(seeds=6, images=1000, seed_sd=1.0)
CELLS = truths(0.0)["C5a"].truths
COSTS = dict.fromkeys(CELLS, Cost(training=3600.0, testing=1.8 * PILOT.images))


def found(size: Size, seeds: int, images: int, seed: int = 0) -> float:
    """Return what C5a could detect at a planned size, by a study of another size."""
    sweeps = sweeps_of(draw(truths(0.0)["C5a"], size, np.random.default_rng(seed)))
    (row,) = outlook(Comparisons(sweeps, SETTINGS), seeds, {"C5a": images}, {})
    return row.detectable


def test_a_pilot_foresees_what_a_larger_study_detects() -> None:
    foreseen = [found(PILOT, 20, 4000, seed) for seed in range(8)]
    larger = [found(dataclasses.replace(PILOT, seeds=20, images=4000), 20, 4000, seed) for seed in range(4)]
    assert np.median(foreseen) == pytest.approx(np.median(larger), rel=0.25)  # six seeds know a variance to 60 %


def test_the_numbers_of_seeds_and_images_are_the_least_that_do() -> None:
    sweeps = sweeps_of(draw(truths(0.0)["C5a"], PILOT, np.random.default_rng(0)))
    (row,) = outlook(Comparisons(sweeps, SETTINGS), 20, {"C5a": 10_000}, COSTS)
    seeds = row.seeds[2.0]
    assert seeds is not None
    for n, fits in ((seeds, True), (seeds - 1, False)):
        (again,) = outlook(Comparisons(sweeps, SETTINGS), n, {"C5a": 10_000}, COSTS)
        assert (again.detectable <= 2.0) is fits
    images = row.images[2.0]
    assert images is not None
    (again,) = outlook(Comparisons(sweeps, SETTINGS), 20, {"C5a": images}, COSTS)
    assert again.detectable == pytest.approx(2.0, rel=0.05)


def test_core_hours_are_those_of_all_cells_that_the_claim_needs() -> None:
    sweeps = sweeps_of(draw(truths(0.0)["C5a"], PILOT, np.random.default_rng(0)))
    (row,) = outlook(Comparisons(sweeps, SETTINGS), 10, {"C5a": 2000}, COSTS)
    assert row.hours == pytest.approx(10 * 6 * (1 + 2000 * 1.8 / 3600))  # AT at four scales, pre-trained, longer
    (unknown,) = outlook(Comparisons(sweeps, SETTINGS), 10, {"C5a": 2000}, {})
    assert math.isnan(unknown.hours)
    assert unknown.advice == ""


def test_images_pay_where_they_are_the_larger_part_and_seeds_where_they_are() -> None:
    world = World({PLAIN: Truth(), SSL_PLAIN: Truth(), pretrained_longer(): Truth()})
    for size, advice in (
        (Size(seeds=20, images=200, seed_sd=0.1), "1,000 images more"),
        (Size(seeds=5, images=10_000, seed_sd=3.0), "a seed more"),
    ):
        sweeps = sweeps_of(draw(world, size, np.random.default_rng(0)))
        costs = dict.fromkeys(CELLS, Cost(training=3600.0, testing=1.8 * size.images))
        (row,) = outlook(Comparisons(sweeps, SETTINGS), size.seeds, {"C5a": size.images}, costs)
        assert row.advice == advice


def test_no_number_of_seeds_takes_the_images_part_away() -> None:
    variances = Variances(seed=0.3, seed_df=4, alone=0.2, shared=0.5, images_df=49)
    assert variances.planned(5, 50_000, 1.0).value == pytest.approx(math.sqrt(0.5), rel=1e-3)
    assert variances.planned(5, 5, 1e9).value == pytest.approx(math.sqrt(0.1 / 5), rel=1e-3)
    assert variances.planned(5, 5, 1.0) == variances.standard_error(5)
