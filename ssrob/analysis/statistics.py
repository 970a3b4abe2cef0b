"""Effect, interval and p value of a contrast; every number is in percentage points."""

import functools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.power import TTestPower

FloatArray = NDArray[np.float64]
POWER = 0.8
# What a claim or control wants of an effect d: d > 0, d < 0, d != 0, |d| < margin, d < margin.
Wants = Literal["gain", "loss", "either", "within", "not_above"]


@dataclass(frozen=True)
class Estimate:
    """An effect with its two-sided interval; what cannot be said is NaN."""

    effect: float
    seeds: int
    low: float = math.nan
    high: float = math.nan
    se: float = math.nan
    p: float = math.nan  # two-sided, against no effect
    detectable: float = math.nan
    test: str = "none (1 seed)"


def paired_t(values: FloatArray, alpha: float) -> Estimate:
    """Estimate a mean over seeds; values (1 + G, S): row 0 per seed, row g the same with group g of images left out.

    Assumes that seeds are independent, that their values are about normal (not testable with few seeds), and
    that the test images are a random sample which all seeds share. The squared standard error is s^2 / S, the
    spread over seeds, plus the share of the images' sampling variance that all seeds have in common (two
    crossed random effects, see `shared_image_variance`; zero without rows to resample). Student's t with S -
    1 degrees of freedom: too few for the second term, so the interval errs on the wide side. Without any
    spread nothing is said (NaN).
    """
    seeds = values.shape[1]
    effect = float(values[0].mean())
    if seeds < 2:
        return Estimate(effect, seeds)
    images = shared_image_variance(values)
    se = math.sqrt(float(values[0].var(ddof=1)) / seeds + (images or 0.0))
    test = "paired t" if images is None else "paired t (seeds, images)"
    if se < 1e-9:
        return Estimate(effect, seeds, test=test)
    half = float(stdtrit(seeds - 1, 1 - alpha / 2)) * se
    p = 2 * float(stdtr(seeds - 1, -abs(effect) / se))
    detectable = standard_effect(seeds, alpha) * se * math.sqrt(seeds)
    return Estimate(effect, seeds, effect - half, effect + half, se, p, detectable, test)


def shared_image_variance(values: FloatArray) -> float | None:
    """Return the variance of the mean over seeds that stems from the images themselves; None if nothing is left out.

    Delete-a-group jackknife (Kott 2001), for the mean over seeds and for each seed. With image effects of
    variance a and image-by-seed effects of variance b over N images and S seeds, the first estimates (a + b /
    S) / N and the second (a + b) / N; b / (S N) is already in the spread over seeds, so that a / N is what is
    still missing.
    """
    left_out = values[1:]
    if len(left_out) < 2 or not np.isfinite(left_out).all():
        return None
    seeds, factor = values.shape[1], (len(left_out) - 1)
    of_mean = factor * float(left_out.mean(axis=1).var())
    of_seeds = factor * float(left_out.var(axis=0).mean())
    shared: float = of_mean - (of_seeds - of_mean) / (seeds - 1)
    return max(0.0, shared)


@functools.cache
def standard_effect(seeds: int, alpha: float) -> float:
    """Return the mean, in standard deviations of one seed, that a two-sided paired t test finds with 80 % power."""
    return float(TTestPower().solve_power(nobs=seeds, alpha=alpha, power=POWER))


def p_value(estimate: Estimate, wants: Wants, margin: float) -> float:
    """Return the p value of what is wanted; small means shown. NaN where nothing can be said.

    Directions take the two-sided p, so that `gain` at level alpha says that the whole interval lies above 0.
    `within` is TOST (Schuirmann 1987): the larger of two one-sided p values, each at level alpha.
    """
    if math.isnan(estimate.p):
        return math.nan
    match wants:
        case "gain":
            return estimate.p if estimate.effect > 0 else 1.0
        case "loss":
            return estimate.p if estimate.effect < 0 else 1.0
        case "either":
            return estimate.p
        case "not_above":
            return _one_sided(estimate, margin - estimate.effect)
        case "within":
            return _one_sided(estimate, margin - abs(estimate.effect))


def p_opposite(estimate: Estimate, wants: Wants, margin: float) -> float:
    """Return the p value of the opposite of what is wanted, two-sided; for an equivalence: a gain above the margin."""
    match wants:
        case "gain":
            return p_value(estimate, "loss", margin)
        case "loss":
            return p_value(estimate, "gain", margin)
        case _:
            return min(1.0, 2 * _one_sided(estimate, estimate.effect - margin))


def holm(p_values: list[float]) -> list[float]:
    """Correct p values for their number (Holm 1979). A NaN was planned and counts, as 1, and stays NaN."""
    found = np.asarray(p_values, dtype=np.float64)
    filled = np.where(np.isnan(found), 1.0, found)
    order = filled.argsort(kind="stable")
    corrected = np.empty_like(filled)
    corrected[order] = np.maximum.accumulate(filled[order] * np.arange(len(found), 0, -1)).clip(max=1.0)
    return [float(p) for p in np.where(np.isnan(found), np.nan, corrected)]


def exact_mcnemar(ours: NDArray[np.bool_], theirs: NDArray[np.bool_], alpha: float) -> Estimate:
    """Compare two models on the same images, (N,) each: exact McNemar test, Bonett and Price (2012) interval.

    Assumes independent images and says nothing about another seed: one model of each kind was seen.
    """
    n = len(ours)
    only_ours, only_theirs = int((ours & ~theirs).sum()), int((~ours & theirs).sum())
    p = float(mcnemar([[0, only_ours], [only_theirs, 0]], exact=True).pvalue) if only_ours + only_theirs else 1.0
    up, down = (only_ours + 1) / (n + 2), (only_theirs + 1) / (n + 2)
    se = math.sqrt((up + down - (up - down) ** 2) / (n + 2))
    half = _normal_quantile(1 - alpha / 2) * se
    effect = 100 * (only_ours - only_theirs) / n
    low, high = 100 * (up - down - half), 100 * (up - down + half)
    return Estimate(effect, 1, low, high, 100 * se, p, test="McNemar (1 seed)")


def _one_sided(estimate: Estimate, inside: float) -> float:
    """Return P(T >= inside / se): small when the effect lies well inside a bound."""
    if math.isnan(estimate.se) or estimate.seeds < 2:
        return math.nan
    return float(stdtr(estimate.seeds - 1, -inside / estimate.se))


def _normal_quantile(probability: float) -> float:
    return float(stdtrit(np.inf, probability))
