"""The standard error of a mean over seeds, and what part of it seeds and test images have (points^2)."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import stdtr, stdtrit

from ssrob.analysis.moderation import NO_PRIOR, Prior

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IMAGES_IN_SPREAD = 0.85  # see `Variances`


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
        """Return the standard error of a planned number of seeds, and of a multiple of the images."""
        alone, df = self.alone / more_images, self.seed_df * (planned_seeds - 1) / (seeds - 1)
        seed = self.seed - self.alone + alone
        return Variances(seed, df, alone, self.shared / more_images, self.images_df).standard_error(planned_seeds)


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
