"""Effect, interval and p value of a contrast; every number is in percentage points."""

import functools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import stdtr, stdtrit
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.power import TTestPower

from ssrob.analysis.moderation import NO_PRIOR, Prior

FloatArray = NDArray[np.float64]
POWER = 0.8
IMAGES_IN_SPREAD = 0.85  # see `Variances`
# What a claim or control says of an effect d: d > 0, d < 0, d != 0, |d| < margin, d < margin.
Alternative = Literal["gain", "loss", "two_sided", "equivalent", "not_greater"]


@dataclass(frozen=True)
class StandardError:
    """A squared standard error (points^2) in two independent parts, each with its degrees of freedom."""

    seeds: float
    seeds_df: float
    images: float = 0.0
    images_df: float = math.inf

    @property
    def value(self) -> float:
        """The standard error."""
        return math.sqrt(self.seeds + self.images)

    @property
    def df(self) -> float:
        """Degrees of freedom of the whole (Satterthwaite 1946)."""
        spread = self.seeds**2 / self.seeds_df + self.images**2 / self.images_df
        return (self.seeds + self.images) ** 2 / spread if spread > 0 else math.inf

    def half_width(self, tail: float) -> float:
        """Return how far from the effect the bound lies that leaves the share `tail` (0 to 0.5) on its side.

        Each part has its own t quantile, and their squares are added (Graybill and Wang 1980): exact where one
        part dominates. A single t with Satterthwaite's degrees of freedom covers too little where the seeds'
        few decide.
        """
        own, shared = float(stdtrit(self.seeds_df, tail)), float(stdtrit(self.images_df, tail))
        return math.sqrt(own**2 * self.seeds + shared**2 * self.images)

    def tail(self, distance: float) -> float:
        """Return the one-sided p value of an effect at a signed distance from a bound, the inverse of `half_width`."""
        if distance < 0:
            return 1 - self.tail(-distance)
        if not self.images:
            return float(stdtr(self.seeds_df, -distance / self.value))
        least, most = math.log(1e-15), math.log(0.5)
        if self.half_width(math.exp(least)) <= distance:
            return 0.0
        return math.exp(brentq(lambda log_p: self.half_width(math.exp(log_p)) - distance, least, most, xtol=1e-9))


@dataclass(frozen=True)
class Variances:
    """Where the standard error of a mean over seeds comes from (points^2).

    seed: the variance of one seed's value, moderated, with its degrees of freedom; it contains `alone`, the images'
    part of one seed. shared: the images' part that all seeds have in common.
    """

    seed: float
    seed_df: float
    alone: float = 0.0
    shared: float = 0.0
    images_df: float = math.inf

    def standard_error(self, seeds: int) -> StandardError:
        """Return the standard error of the mean over so many seeds, its parts kept apart.

        The images alone imply v = shared + alone / S; the result is never below. How much of alone / S is counted with
        the few degrees of freedom of the seeds decides how wide intervals of two or three seeds are: with 15 %
        of it (`IMAGES_IN_SPREAD` is taken out) they cover 93 to 97.5 % (`benchmarks/coverage.py`); with
        none too little, with all of it 99 %.
        """
        images = IMAGES_IN_SPREAD * self.alone
        return StandardError((self.seed - images) / seeds, self.seed_df, self.shared + images / seeds, self.images_df)

    def planned(self, seeds: int, planned_seeds: int, more_images: float) -> StandardError:
        """Return the standard error of another number of seeds than today's, and of so many times the images."""
        alone, df = self.alone / more_images, self.seed_df * (planned_seeds - 1) / (seeds - 1)
        seed = self.seed - self.alone + alone
        return Variances(seed, df, alone, self.shared / more_images, self.images_df).standard_error(planned_seeds)


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


def variances_of(
    variance: float, seeds: int, images: tuple[float, float] | None, images_df: float, prior: Prior = NO_PRIOR
) -> Variances:
    """Combine the variance over seeds (of one seed, moderated by `prior`) with what the test images imply.

    images: as `image_variances`, of which that of one seed alone is cut at its variance; None if it is not known.
    """
    seed, df = prior.moderated(variance, seeds - 1)
    if images is None:
        return Variances(seed, df)
    alone = min(images[1], seed)
    return Variances(seed, df, alone, images[0] - alone / seeds, images_df)


def image_variances(values: FloatArray) -> tuple[float, float] | None:
    """Return what the test images alone imply: the variance of the mean over seeds, and the part a seed alone has.

    values: as for `paired_t`. Delete-a-group jackknife (Kott 2001). With image effects of variance a and image-by-seed
    effects of variance b over N images, these are (a + b / S) / N, which no number of seeds takes below a / N, and
    b / N, which the spread over seeds contains as well. None if nothing is left out.
    """
    left_out = values[1:]
    if len(left_out) < 2 or not np.isfinite(left_out).all():
        return None
    seeds, factor = values.shape[1], len(left_out) - 1
    of_mean = factor * float(left_out.mean(axis=1).var())
    of_seeds = factor * float(left_out.var(axis=0).mean())
    return of_mean, min(seeds * of_mean, max(0.0, (of_seeds - of_mean) * seeds / (seeds - 1)))


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
