"""Statistics of findings against scipy, statsmodels and simulated effects."""

import math

import numpy as np
import pytest
from scipy import stats
from ssrob.analysis.moderation import NO_PRIOR, Prior
from ssrob.analysis.standard_error import StandardError, image_variances
from ssrob.analysis.statistics import detectable_ratio, exact_mcnemar, holm, least_shown, p_opposite, p_value, paired_t
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
    assert p_value(found, "equivalent", 1.0) == pytest.approx(expected[0])
    assert p_value(found, "not_greater", 1.0) == pytest.approx(expected[2][1])


def test_a_direction_is_shown_when_the_whole_interval_lies_on_its_side() -> None:
    found = paired_t(without_images(np.array([1.0, 1.2, 1.1])), ALPHA)
    assert found.low > 0
    assert p_value(found, "gain", 1.0) == found.p < ALPHA
    assert p_value(found, "loss", 1.0) == 1
    assert p_opposite(found, "loss", 1.0) == found.p
    assert p_opposite(found, "equivalent", 0.5) < ALPHA < p_opposite(found, "equivalent", 1.1)


@pytest.mark.parametrize("df", [1, 2, 2.2, 4.5, 19, 200])
def test_the_detectable_effect_has_80_per_cent_power(df: float) -> None:
    critical = stats.t.ppf(0.975, df)
    shift = detectable_ratio(df, ALPHA) * critical
    power = stats.nct.sf(critical, df, shift) + stats.nct.cdf(-critical, df, shift)
    assert power == pytest.approx(0.8, abs=2e-3)  # interpolated over 1 / df
    values = np.random.default_rng(0).normal(size=3)
    found = paired_t(without_images(values), ALPHA)
    expected = detectable_ratio(2, ALPHA) * (found.high - found.effect)
    assert found.detectable("gain", ALPHA) == pytest.approx(expected)


def test_a_tail_is_the_inverse_of_the_half_width() -> None:
    error = StandardError(0.3, 2.7, 0.2, 49)
    for tail in (0.4, 0.1, 0.025, 1e-3, 1e-6):
        assert error.tail(error.half_width(tail)) == pytest.approx(tail, rel=1e-6)
        assert error.tail(-error.half_width(tail)) == pytest.approx(1 - tail, rel=1e-6)


def test_an_interval_is_that_of_one_part_where_the_other_is_nothing() -> None:
    few, many = StandardError(4.0, 2, 0.0, 49), StandardError(0.0, 2, 4.0, 49)
    assert few.half_width(0.025) == pytest.approx(2 * stats.t.ppf(0.975, 2))
    assert many.half_width(0.025) == pytest.approx(2 * stats.t.ppf(0.975, 49))
    assert (few.df, many.df) == pytest.approx((2, 49))


def test_an_equivalence_shows_at_least_the_margin_that_it_would_find_with_80_per_cent_power() -> None:
    error = StandardError(0.0, 2, 0.25)
    margin = least_shown(error, "equivalent", ALPHA)
    draws = 0.5 * np.random.default_rng(0).normal(size=200_000)
    assert np.mean(np.abs(draws) + error.half_width(ALPHA) < margin) == pytest.approx(0.8, abs=0.005)


def test_an_image_effect_shared_by_seeds_is_counted_once() -> None:
    """Seeds that differ by an offset alone: what images add is the variance of their mean, exactly (jackknife)."""
    images = np.random.default_rng(0).normal(size=40)
    differences = images + np.array([[0.0], [1.0], [-2.0]])
    expected = images.var(ddof=1) / 40
    assert image_variances(left_out(differences, 40)) == (pytest.approx(expected), 0.0)


def test_image_noise_of_each_seed_alone_shrinks_with_the_seeds() -> None:
    generator = np.random.default_rng(0)
    found = [image_variances(left_out(generator.normal(size=(4, 200)), 20)) for _ in range(200)]
    of_mean, alone = np.mean(found, axis=0)
    assert of_mean == pytest.approx(1 / 800, rel=0.1)
    assert alone == pytest.approx(1 / 200, rel=0.2)  # cut where it exceeds four times the first


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_standard_error_is_never_below_what_the_images_imply(seeds: int) -> None:
    """Seeds that agree by chance: the spread over seeds is far below the images' own part in it."""
    generator = np.random.default_rng(seeds)
    for _ in range(50):
        noise = generator.normal(size=(seeds, 200)) + generator.normal(size=200)
        agreed = noise - noise.mean(1, keepdims=True) + noise.mean()
        values = left_out(agreed, 20)
        implied = image_variances(values)
        assert implied is not None
        for prior in (NO_PRIOR, Prior(1e-9, 30.0)):
            found = paired_t(values, ALPHA, prior)
            assert found.se**2 >= implied[0] * (1 - 1e-9)
            assert implied[0] > 0.5 / 200


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
    assert math.isnan(p_value(found, "equivalent", 1.0))


def test_one_seed_has_no_interval() -> None:
    found = paired_t(without_images(np.array([1.0])), ALPHA)
    assert (found.effect, found.seeds) == (1.0, 1)
    assert math.isnan(found.low)
