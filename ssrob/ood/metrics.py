"""How well a score separates two sets of images, with bootstrap intervals. Imports no torch.

Scores are higher for images of the training distribution ("inside"), which are the positive class.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

TPR = 0.95
_AT_ONCE = 2_000_000  # images resampled at a time: temporaries of 16 MB

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Interval:
    """An estimate and its bootstrap percentile interval, all 0..1."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Detection:
    """auroc: chance that an image inside scores above one outside; ties count half.

    aupr: average precision with the images inside as positives; it depends on how many there are of each.
    fpr: share of the images outside that pass a threshold which at least 95 % of those inside pass, the highest such.
    """

    auroc: Interval
    aupr: Interval
    fpr: Interval


def detection(
    inside: ArrayLike, outside: ArrayLike, *, seed: int = 0, resamples: int = 1000, level: float = 0.95
) -> Detection:
    """Compare the scores of images inside (N,) and outside (M,) the training distribution; no NaN.

    Intervals are percentiles over resamples of both sets of images. A value of exactly 0 or 1 has an interval of no
    width: n images cannot rule out 3 / n there.
    """
    places, size = _places(inside, outside)
    values = np.array(_metrics(*(np.bincount(place, minlength=size)[None] for place in places)))
    drawn = np.concatenate([_metrics(*counts) for counts in _resampled(places, size, seed, resamples)], axis=1)
    tail = 50 * (1 - level)
    low, high = np.percentile(drawn, [tail, 100 - tail], axis=1)
    return Detection(*(Interval(*map(float, row)) for row in zip(values[:, 0], low, high, strict=True)))


def _places(inside: ArrayLike, outside: ArrayLike) -> tuple[tuple[IntArray, IntArray], int]:
    """Return each image's place among the distinct scores, highest first, (N,) and (M,), and how many there are."""
    sets = [np.asarray(scores, np.float64) for scores in (inside, outside)]
    for name, scores in zip(("inside", "outside"), sets, strict=True):
        if scores.ndim != 1 or not len(scores) or np.isnan(scores).any():
            found = f"{scores.shape} with {int(np.isnan(scores).sum())} NaN"
            raise ValueError(f"scores of the images {name} must be (N,) numbers, found {found}")
    distinct, places = np.unique(-np.concatenate(sets), return_inverse=True)
    return (places[: len(sets[0])], places[len(sets[0]) :]), len(distinct)


def _resampled(
    places: tuple[IntArray, IntArray], size: int, seed: int, resamples: int
) -> Iterator[tuple[IntArray, IntArray]]:
    """Draw both sets with replacement, some at a time: images at each score, (R, size) twice."""
    generator = np.random.default_rng(seed)
    step = max(1, _AT_ONCE // (size + max(map(len, places))))
    for start in range(0, resamples, step):
        rows = np.arange(min(step, resamples - start))[:, None]
        drawn = (place[generator.integers(len(place), size=(len(rows), len(place)))] for place in places)
        inside, outside = (np.bincount((rows * size + place).ravel(), minlength=len(rows) * size) for place in drawn)
        yield inside.reshape(-1, size), outside.reshape(-1, size)


def _metrics(inside: IntArray, outside: IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return AUROC, AUPR and FPR at 95 % TPR, each (R,), from how many images there are at each score, (R, S)."""
    passed, wrongly = inside.cumsum(axis=1), outside.cumsum(axis=1)
    all_inside, all_outside = passed[:, -1:], wrongly[:, -1:]
    below = all_outside - wrongly
    auroc = (inside * (below + outside / 2)).sum(axis=1) / (all_inside * all_outside)[:, 0]
    precision = passed / np.maximum(passed + wrongly, 1)
    aupr = (inside * precision).sum(axis=1) / all_inside[:, 0]
    enough = (passed >= np.ceil(TPR * all_inside - 1e-9)).argmax(axis=1)  # 0.95 * 20 is 19 on paper
    fpr = np.take_along_axis(wrongly, enough[:, None], axis=1)[:, 0] / all_outside[:, 0]
    return auroc, aupr, fpr
