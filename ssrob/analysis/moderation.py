"""How far the seeds of a study's comparisons scatter, estimated for all of them together (Smyth 2004).

Three seeds of one comparison say little about their variance. All arms of a study are trained alike, so the
variances of its other comparisons say more. They are taken as draws from a scaled inverse chi-square distribution,
whose scale and degrees of freedom are fitted to their logarithms: the less they differ beyond what few seeds explain,
the more weight their common value gets.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import digamma, fdtri, polygamma

# Two differences to the same arm share half of their variance: their means correlate by 1/2, their variances by 1/4.
SHARED = 0.25
OUTLYING = 0.2  # level at which a comparison's variance is larger than the others': it then stands for itself


@dataclass(frozen=True)
class Prior:
    """What the other comparisons say about a variance over seeds (points^2), worth so many degrees of freedom."""

    variance: float
    df: float

    def moderated(self, variance: float, df: int) -> tuple[float, float]:
        """Return a comparison's variance drawn to the common one, and its degrees of freedom.

        A variance that is larger than the common one explains (F test at `OUTLYING`) is kept as it is.
        """
        if not self.df or variance > fdtri(df, self.df, 1 - OUTLYING) * self.variance:
            return variance, df
        return (self.df * self.variance + df * variance) / (self.df + df), self.df + df

    def scaled(self, factor: float) -> "Prior":
        """Return the prior of variances that are larger by a factor."""
        return Prior(self.variance * factor, self.df)


NO_PRIOR = Prior(1.0, 0.0)


def fit_prior(variances: Sequence[float], dfs: Sequence[int]) -> Prior:
    """Fit scale and degrees of freedom to variances over seeds, one a comparison, by the moments of their logarithms.

    Smyth 2004, section 6.2, for independent variances. These are not: comparisons share an arm (`SHARED`). So less
    scatter than usual is expected of them, and together they count for no more than n / (1 + (n - 1) / 4) of one.
    """
    usable = np.array([(s2, df) for s2, df in zip(variances, dfs, strict=True) if s2 > 1e-12], dtype=np.float64)
    if len(usable) < 2:
        return NO_PRIOR
    s2, df = usable.T
    logs = np.log(s2) - digamma(df / 2) + np.log(df / 2)
    scatter = float(logs.var(ddof=1) - (1 - SHARED) * polygamma(1, df / 2).mean())
    prior_df = 2 * trigamma_inverse(scatter) if scatter > 0 else 1e6
    scale = math.exp(logs.mean() + digamma(prior_df / 2) - math.log(prior_df / 2))
    most = df.mean() * (len(usable) / (1 + SHARED * (len(usable) - 1)) - 1)
    return Prior(scale, min(prior_df, float(most)))


def trigamma_inverse(value: float) -> float:
    """Solve trigamma(y) = value > 0 for y by Newton's method (Smyth 2004, appendix)."""
    y = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(polygamma(1, y))
        step = trigamma * (1 - trigamma / value) / float(polygamma(2, y))
        y += step
        if -step / y < 1e-8:
            break
    return y
