"""Class-balanced subsets and stratified splits, as functions of random keys. Imports no torch."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssrob.config.data import Data
from ssrob.data.types import Rows


@dataclass(frozen=True)
class Sizes:
    """How many images a data set is cut into.

    held_out: images of train that become the test split, where the source has none of its own.
    used: training images, the validation split included.
    """

    held_out: int
    used: int
    validation: int
    test: int

    @property
    def train(self) -> int:
        """Images that are trained on."""
        return self.used - self.validation


def sizes(data: Data, train: int, test: int | None, *, labelled: bool = True) -> Sizes:
    """Return the sizes of the splits, given the source's train and test images (test None: it has no test split)."""
    held_out = _share(train, data.test_share) if test is None and labelled else 0
    used = min(train - held_out, data.train_images or train)
    available = (test or 0) + held_out
    return Sizes(held_out, used, _share(used, data.validation), min(available, data.test_images or available))


def balanced(labels: Rows, keys: Rows, count: int) -> Rows:
    """Choose `count` positions, equally many per class as far as they reach; labels, keys (N,) -> (count,).

    Keys are random and distinct. A prefix of the choice is the choice for a smaller count.
    """
    return np.lexsort((keys, _rank(labels, keys)))[:count]


def proportional(labels: Rows, keys: Rows, count: int) -> Rows:
    """Choose `count` positions, each class in proportion to its size to within an image; as `balanced`."""
    _, which, per_class = np.unique(labels, return_inverse=True, return_counts=True)
    share: NDArray[np.float64] = (_rank(labels, keys) + 0.5) / per_class[which]
    return np.lexsort((keys, share))[:count]


def _share(count: int, share: float) -> int:
    """Round a share of `count`, leaving something on both sides."""
    return min(max(round(count * share), 1), max(count - 1, 0))


def _rank(labels: Rows, keys: Rows) -> Rows:
    """Return each example's place (from 0) among those of its class, in order of the keys."""
    order = np.lexsort((keys, labels))
    ordered = labels[order]
    rank = np.empty(len(labels), dtype=np.int64)
    rank[order] = np.arange(len(labels)) - np.searchsorted(ordered, ordered)
    return rank
