"""Effect, interval and p value of a contrast; every number is in percentage points."""

import functools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.power import TTestPower

from ssrob.analysis.moderation import NO_PRIOR, Prior
from ssrob.analysis.standard_error import FloatArray, StandardError, Variances, image_variances, variances_of

POWER = 0.8
# What a claim or control says of an effect d: d > 0, d < 0, d != 0, |d| < margin, d < margin.
Alternative = Literal["gain", "loss", "two_sided", "equivalent", "not_greater"]


@dataclass(frozen=True)
class Estimate:
    """An effect with its two-sided interval; what cannot be said is NaN."""

    effect: float
    seeds: int
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan  # two-sided, against no effect
    test: str = "none (1 seed)"
    error: StandardError | None = None
    variances: Variances | None = None

    def detectable(self, alternative: Alternative, alpha: float) -> float:
        """What the study could show of an alternative with 80 % power, see `least_shown`; NaN with one seed."""
        return least_shown(self.error, alternative, alpha) if self.error and self.seeds > 1 else math.nan

    @property
    def se(self) -> float:
        """The standard error; NaN if there is none."""
        return self.error.value if self.error else math.nan


def paired_t(values: FloatArray, alpha: float, prior: Prior = NO_PRIOR) -> Estimate:
    """Estimate a mean over seeds; values (1 + G, S): row 0 per seed, row g the same with group g of images left out.

    Assumes that seeds are independent, that their values are about normal (not testable with few seeds), and
    that the test images are a random sample which all seeds share. Without any spread nothing is said (NaN).
    """
    seeds = values.shape[1]
    effect = float(values[0].mean())
    if seeds < 2:
        return Estimate(effect, seeds)
    images = image_variances(values)
    variances = variances_of(float(values[0].var(ddof=1)), seeds, images, len(values) - 2, prior)
    error = variances.standard_error(seeds)
    test = ("moderated t" if prior.df else "paired t") + ("" if images is None else " (seeds, images)")
    if error.value < 1e-9:
        return Estimate(effect, seeds, test=test)
    half = error.half_width(alpha / 2)
    p = min(1.0, 2 * error.tail(abs(effect)))
    return Estimate(effect, seeds, effect - half, effect + half, p, test, error, variances)


def detectable_ratio(df: float, alpha: float) -> float:
    """Return the effect that a two-sided t test finds with 80 % power, in half-widths of its interval."""
    inverse, ratios = _detectable_ratios(alpha)
    return float(np.interp(1 / df, inverse, ratios))


@functools.cache
def _detectable_ratios(alpha: float) -> tuple[FloatArray, FloatArray]:
    """Tabulate it over 1 / df, in which it is nearly linear."""
    dfs = np.array([1e4, 60, 30, 20, 14, 10, 8, 6, 5, 4, 3.5, 3, 2.5, 2, 1.75, 1.5, 1.25, 1])
    effects = [TTestPower().solve_power(nobs=df + 1, alpha=alpha, power=POWER) * math.sqrt(df + 1) for df in dfs]
    return 1 / dfs, np.asarray(effects, dtype=np.float64) / -stdtrit(dfs, alpha / 2)


def p_value(estimate: Estimate, alternative: Alternative, margin: float) -> float:
    """Return the p value of an alternative; small means shown. NaN where nothing can be said.

    Directions take the two-sided p, so that `gain` at level alpha says that the whole interval lies above 0.
    `equivalent` is TOST (Schuirmann 1987): the larger of two one-sided p values, each at level alpha.
    """
    if math.isnan(estimate.p):
        return math.nan
    match alternative:
        case "gain":
            return estimate.p if estimate.effect > 0 else 1.0
        case "loss":
            return estimate.p if estimate.effect < 0 else 1.0
        case "two_sided":
            return estimate.p
        case "not_greater":
            return _one_sided(estimate, margin - estimate.effect)
        case "equivalent":
            return _one_sided(estimate, margin - abs(estimate.effect))


def p_opposite(estimate: Estimate, alternative: Alternative, margin: float) -> float:
    """Return the two-sided p value of an alternative's opposite; of an equivalence: a gain above the margin."""
    match alternative:
        case "gain":
            return p_value(estimate, "loss", margin)
        case "loss":
            return p_value(estimate, "gain", margin)
        case _:
            return min(1.0, 2 * _one_sided(estimate, estimate.effect - margin))


def least_shown(error: StandardError, alternative: Alternative, alpha: float) -> float:
    """Return what a study with such an error could show with 80 % power (points).

    Of a direction the effect. Of an equivalence the margin, if there is no effect at all.
    """
    if alternative in ("gain", "loss", "two_sided"):
        return error.half_width(alpha / 2) * detectable_ratio(error.df, alpha)
    missed = (1 - POWER) / 2 if alternative == "equivalent" else 1 - POWER
    return error.half_width(alpha) + error.half_width(missed)


def holm(p_values: list[float]) -> list[float]:
    """Correct p values for their number (Holm 1979). A NaN was planned and counts, as 1, and stays NaN.

    Not statsmodels' `multipletests`: it runs a full garbage collection at every call, which takes 0.15 s beside
    torch and pandas (AMD EPYC, n = 20), and a simulation corrects 100,000 families.
    """
    values = np.asarray(p_values, dtype=np.float64)
    filled = np.where(np.isnan(values), 1.0, values)
    order = filled.argsort(kind="stable")
    corrected = np.empty_like(filled)
    corrected[order] = np.maximum.accumulate(filled[order] * np.arange(len(values), 0, -1)).clip(max=1.0)
    return [float(p) for p in np.where(np.isnan(values), np.nan, corrected)]


def exact_mcnemar(ours: NDArray[np.bool_], theirs: NDArray[np.bool_], alpha: float) -> Estimate:
    """Compare two models on the same images, (N,) each: exact McNemar test, Bonett and Price (2012) interval.

    Assumes independent images and says nothing about another seed: one model of each kind was seen.
    """
    n = len(ours)
    only_ours, only_theirs = int((ours & ~theirs).sum()), int((~ours & theirs).sum())
    p = float(mcnemar([[0, only_ours], [only_theirs, 0]], exact=True).pvalue) if only_ours + only_theirs else 1.0
    up, down = (only_ours + 1) / (n + 2), (only_theirs + 1) / (n + 2)
    error = StandardError(0.0, 1.0, 1e4 * (up + down - (up - down) ** 2) / (n + 2))
    half, middle = error.half_width(alpha / 2), 100 * (up - down)
    effect = 100 * (only_ours - only_theirs) / n
    return Estimate(effect, 1, middle - half, middle + half, p, test="McNemar (1 seed)", error=error)


def _one_sided(estimate: Estimate, inside: float) -> float:
    """Return how surprising an effect would be that lies `inside` points within a bound, if the truth were at it."""
    if estimate.error is None or estimate.seeds < 2:
        return math.nan
    return estimate.error.tail(inside)
