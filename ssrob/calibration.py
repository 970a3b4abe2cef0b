"""Calibration: how far class probabilities are what they say. Imports no torch.

Logits are (N, K), labels (N,) integers 0..K-1.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

BINS = 15
_TEMPERATURES = (0.01, 100.0)

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """ece: expected calibration error over `bins` bins of equal mass, 0..1. nll: mean negative log-likelihood, nats.

    brier: mean squared distance of the probabilities from the label's, summed over the classes, 0..2.
    """

    ece: float
    nll: float
    brier: float
    bins: int


def calibration(logits: ArrayLike, labels: ArrayLike, *, temperature: float = 1.0, bins: int = BINS) -> Calibration:
    """Measure the calibration of softmax(logits / temperature)."""
    log_probabilities, classes = _checked(logits, labels, temperature)
    probabilities = np.exp(log_probabilities)
    label = np.arange(len(classes)), classes
    off = (probabilities**2).sum(axis=1) - 2 * probabilities[label] + 1
    hit = probabilities.argmax(axis=1) == classes
    error = expected_calibration_error(probabilities.max(axis=1), hit, bins)
    return Calibration(error, float(-log_probabilities[label].mean()), float(off.mean()), bins)


def expected_calibration_error(confidence: ArrayLike, hit: ArrayLike, bins: int = BINS) -> float:
    """Mean |accuracy - confidence| over bins of equal mass, weighted by their images (Nixon et al. 2019).

    confidence (N,) in 0..1, hit (N,) bool. Images are ordered by confidence and cut into bins whose sizes differ by
    one at most; images of equal confidence that a cut would part are shared out evenly, so that their order decides
    nothing.
    """
    scores, hits = np.asarray(confidence, np.float64), np.asarray(hit, np.float64)
    if not 1 <= bins <= len(scores):
        raise ValueError(f"bins must be 1..{len(scores)} (the images), found {bins}")
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    accuracy = (np.bincount(place, hits) / count)[place]
    gap = np.sort(scores) - accuracy[np.argsort(scores, kind="stable")]
    return float(sum(abs(part.sum()) for part in np.array_split(gap, bins)) / len(scores))


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """Return the temperature that minimises the NLL of validation images (Guo et al. 2017), within 0.01..100.

    The NLL is convex in 1 / temperature, so that the minimum is the only one.
    """

    def nll(inverse: float) -> float:
        log_probabilities, classes = _checked(logits, labels, 1 / inverse)
        return float(-log_probabilities[np.arange(len(classes)), classes].mean())

    low, high = (np.log(1 / temperature) for temperature in reversed(_TEMPERATURES))
    found = minimize_scalar(lambda log: nll(np.exp(log)), bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(-found.x))


def _checked(logits: ArrayLike, labels: ArrayLike, temperature: float) -> tuple[FloatArray, NDArray[np.int64]]:
    """Return log-probabilities (N, K) and labels (N,)."""
    values, classes = np.asarray(logits, np.float64), np.asarray(labels)
    if values.ndim != 2 or not len(values) or classes.shape != values.shape[:1]:
        raise ValueError(f"logits must be (N, K) and labels (N,), found {values.shape} and {classes.shape}")
    if classes.dtype.kind not in "iu" or classes.min() < 0 or classes.max() >= values.shape[1]:
        found = f"{classes.dtype} {classes.min()}..{classes.max()}"
        raise ValueError(f"labels must be integers 0..{values.shape[1] - 1}, found {found}")
    if not np.isfinite(values).all():
        raise ValueError(f"logits must be finite, found {int((~np.isfinite(values)).sum())} that are not")
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, found {temperature}")
    return log_softmax(values / temperature, axis=1), classes.astype(np.int64)
