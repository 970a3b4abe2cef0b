"""The common spread over seeds, against simulated variances and special functions."""

import numpy as np
import pytest
from scipy.special import polygamma
from ssrob.analysis import moderation
from ssrob.analysis.moderation import NO_PRIOR, Prior, fit_prior, trigamma_inverse


@pytest.mark.parametrize("y", [0.2, 1.0, 3.5, 40.0])
def test_the_inverse_of_trigamma(y: float) -> None:
    assert trigamma_inverse(float(polygamma(1, y))) == pytest.approx(y)


def test_the_fit_finds_scale_and_degrees_of_freedom(monkeypatch: pytest.MonkeyPatch) -> None:
    """Independent variances: s^2 ~ sigma^2 chi^2(4) / 4 with 1 / sigma^2 ~ chi^2(6) / (6 x 0.5)."""
    monkeypatch.setattr(moderation, "SHARED", 0.0)
    generator = np.random.default_rng(0)
    sigma2 = 0.5 * 6 / generator.chisquare(6, 20_000)
    found = fit_prior(list(sigma2 * generator.chisquare(4, 20_000) / 4), [4] * 20_000)
    assert found.variance == pytest.approx(0.5, rel=0.03)
    assert found.df == pytest.approx(6, rel=0.1)


def test_comparisons_that_share_an_arm_count_for_less_than_four_times_their_seeds() -> None:
    generator = np.random.default_rng(0)
    for n in (2, 12, 200):
        found = fit_prior(list(generator.chisquare(2, n) / 2), [2] * n)
        assert found.df + 2 <= 2 * n / (1 + (n - 1) / 4) + 1e-9 < 8


def test_arms_that_differ_share_less() -> None:
    generator = np.random.default_rng(1)
    same = generator.chisquare(9, 20) / 9
    assert fit_prior(list(same * np.geomspace(0.01, 100, 20)), [9] * 20).df < fit_prior(list(same), [9] * 20).df / 4


def test_a_larger_spread_than_the_others_is_kept_and_a_smaller_one_is_raised() -> None:
    prior = Prior(1.0, 6.0)
    assert prior.moderated(25.0, 2) == (25.0, 2)
    assert prior.moderated(0.2, 2) == (pytest.approx((6 * 1 + 2 * 0.2) / 8), 8)
    assert NO_PRIOR.moderated(0.2, 2) == (0.2, 2)


@pytest.mark.parametrize("variances", [[], [0.3], [0.0, 0.0, 0.4]])
def test_one_comparison_has_nothing_to_share(variances: list[float]) -> None:
    assert fit_prior(variances, [2] * len(variances)) == NO_PRIOR
