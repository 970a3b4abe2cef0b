"""Statistics of findings against scipy, statsmodels and simulated effects."""

import math

import numpy as np
import pytest
from scipy import stats
from ssrob.analysis.statistics import (
    exact_mcnemar,
    holm,
    p_opposite,
    p_value,
    paired_t,
    shared_image_variance,
    standard_effect,
)
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

ALPHA = 0.05


def without_images(values: np.ndarray) -> np.ndarray:
    return np.vstack([values, np.full((20, len(values)), np.nan)])


def left_out(differences: np.ndarray, groups: int) -> np.ndarray:
    """Return means over images (S, N) -> (1 + groups, S), row g without group g."""
    group = np.arange(differences.shape[1]) % groups
    rows = [differences.mean(1), *(differences[:, group != g].mean(1) for g in range(groups))]
    return np.array(rows)


@pytest.mark.parametrize("seeds", [2, 3, 7])
def test_seeds_alone_give_the_paired_t_test_of_scipy(seeds: int) -> None:
    ours, theirs = np.random.default_rng(seeds).normal(size=(2, seeds))
    found = paired_t(without_images(ours - theirs), ALPHA)
    expected = stats.ttest_rel(ours, theirs)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert found.test == "paired t"


@pytest.mark.parametrize(("effect", "seeds"), [(0.4, 4), (-0.7, 5), (1.3, 6)])
def test_equivalence_is_tost(effect: float, seeds: int) -> None:
    ours, theirs = np.random.default_rng(seeds).normal(size=(2, seeds)) * 0.4
    found = paired_t(without_images(ours + effect - theirs), ALPHA)
    expected = ttost_paired(ours + effect, theirs, -1.0, 1.0)
    assert p_value(found, "within", 1.0) == pytest.approx(expected[0])
    assert p_value(found, "not_above", 1.0) == pytest.approx(expected[2][1])


def test_a_direction_is_shown_when_the_whole_interval_lies_on_its_side() -> None:
    found = paired_t(without_images(np.array([1.0, 1.2, 1.1])), ALPHA)
    assert found.low > 0
    assert p_value(found, "gain", 1.0) == found.p < ALPHA
    assert p_value(found, "loss", 1.0) == 1
    assert p_opposite(found, "loss", 1.0) == found.p
    assert p_opposite(found, "within", 0.5) < ALPHA < p_opposite(found, "within", 1.1)


@pytest.mark.parametrize("seeds", [2, 3, 5, 20])
def test_the_detectable_effect_has_80_per_cent_power(seeds: int) -> None:
    effect = standard_effect(seeds, ALPHA)
    critical = stats.t.ppf(0.975, seeds - 1)
    shift = effect * math.sqrt(seeds)
    power = stats.nct.sf(critical, seeds - 1, shift) + stats.nct.cdf(-critical, seeds - 1, shift)
    assert power == pytest.approx(0.8, abs=1e-4)  # the solver stops there
    values = np.random.default_rng(0).normal(size=seeds)
    found = paired_t(without_images(values), ALPHA)
    assert found.detectable == pytest.approx(effect * values.std(ddof=1))


def test_an_image_effect_shared_by_seeds_is_counted_once() -> None:
    """Seeds that differ by an offset alone: what images add is the variance of their mean, exactly (jackknife)."""
    images = np.random.default_rng(0).normal(size=40)
    differences = images + np.array([[0.0], [1.0], [-2.0]])
    expected = images.var(ddof=1) / 40
    assert shared_image_variance(left_out(differences, 40)) == pytest.approx(expected)


def test_image_noise_of_each_seed_alone_adds_nothing_on_average() -> None:
    generator = np.random.default_rng(0)
    found = [shared_image_variance(left_out(generator.normal(size=(4, 200)), 20)) for _ in range(200)]
    # A quarter of the 1 / 200 that a seed's noise has; cut at zero, so the mean is not exactly zero.
    assert np.mean([each or 0.0 for each in found]) < 0.15 / 200


def test_intervals_cover_the_truth_over_new_images_too() -> None:
    """Seed, image and image-by-seed effects: 95 % intervals cover 0; those over seeds alone do not."""
    generator = np.random.default_rng(1)
    covered, alone = 0, 0
    for _ in range(400):
        noise = generator.normal(size=200) + generator.normal(size=(3, 200)) + 0.05 * generator.normal(size=(3, 1))
        found = paired_t(left_out(noise, 20), ALPHA)
        bare = paired_t(without_images(noise.mean(1)), ALPHA)
        covered += found.low <= 0 <= found.high
        alone += bare.low <= 0 <= bare.high
    assert covered / 400 > 0.93  # 0.95 less two standard errors of 400 draws
    assert alone / 400 < 0.91


def test_holm_is_that_of_statsmodels_and_counts_what_was_not_tested() -> None:
    p = [0.01, 0.04, 0.03, 0.2]
    assert holm(p) == pytest.approx(list(multipletests(p, method="holm")[1]))
    assert holm([0.03, math.nan])[0] == pytest.approx(0.06)
    assert math.isnan(holm([0.03, math.nan])[1])
    assert holm([]) == []


def test_mcnemar_is_a_sign_test_on_the_images_that_only_one_model_gets_right() -> None:
    ours = np.array([True] * 60 + [False] * 40)
    theirs = np.array([True] * 50 + [False] * 10 + [True] * 3 + [False] * 37)
    found = exact_mcnemar(ours, theirs, ALPHA)
    assert found.effect == pytest.approx(7.0)
    assert found.p == pytest.approx(stats.binomtest(3, 13).pvalue)
    assert found.low < 7 < found.high
    assert found.seeds == 1
    assert exact_mcnemar(ours, ours, ALPHA).p == 1
    assert found.test == "McNemar (1 seed)"


def test_mcnemar_interval_covers() -> None:
    generator = np.random.default_rng(2)
    covered = 0
    for _ in range(400):
        rank, other = generator.uniform(size=(2, 150))
        found = exact_mcnemar(rank < 0.6, np.where(other < 0.2, generator.uniform(size=150), rank) < 0.55, ALPHA)
        covered += found.low <= 5 <= found.high
    assert covered / 400 > 0.93


@pytest.mark.parametrize("values", [[0.0, 0.0, 0.0], [1.5, 1.5]])
def test_without_spread_nothing_is_said(values: list[float]) -> None:
    found = paired_t(without_images(np.array(values)), ALPHA)
    assert found.effect == values[0]
    assert math.isnan(found.p)
    assert math.isnan(p_value(found, "within", 1.0))


def test_one_seed_has_no_interval() -> None:
    found = paired_t(without_images(np.array([1.0])), ALPHA)
    assert (found.effect, found.seeds) == (1.0, 1)
    assert math.isnan(found.low)
