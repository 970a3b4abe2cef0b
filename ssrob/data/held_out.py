"""Classes of a source that a data set leaves out: the others are renumbered from 0. Imports no torch."""

from collections.abc import Sequence

import numpy as np

from ssrob.config.data import Data
from ssrob.data.types import Rows, refusal

LEFT_OUT = -2  # -1 says that there are no labels


def kept_classes(data: Data, classes: Sequence[str]) -> tuple[str, ...]:
    """Return the classes that `only` and `hold_out` leave, in the source's order; a DataError on unknown names."""
    for field in ("only", "hold_out"):
        if unknown := sorted(set(getattr(data, field)) - set(classes)):
            raise refusal(data, field, f"expected some of {', '.join(classes)}, found {', '.join(unknown)}")
    kept = tuple(name for name in data.only or classes if name not in data.hold_out)
    if classes and not kept:
        raise refusal(data, "hold_out", f"at least one class must be left, found {', '.join(data.hold_out)}")
    return tuple(name for name in classes if name in kept)


def kept_labels(data: Data, classes: Sequence[str], labels: Rows) -> Rows:
    """Number labels (N,) among the classes that are kept; `LEFT_OUT` where an image is not."""
    if not (data.only or data.hold_out):
        return labels
    kept = kept_classes(data, classes)
    numbers = np.array([kept.index(name) if name in kept else LEFT_OUT for name in classes], np.int64)
    return numbers[labels]


def kept_share(data: Data, names: Sequence[str], sizes: Sequence[int]) -> tuple[int, int]:
    """Return how many images and classes are kept, from the sizes of all classes; without names, of the first ones."""
    if names:
        kept = kept_classes(data, names)
        return sum(size for name, size in zip(names, sizes, strict=True) if name in kept), len(kept)
    count = (len(data.only) or len(sizes)) - len(data.hold_out)
    return sum(sizes[:count]), count
