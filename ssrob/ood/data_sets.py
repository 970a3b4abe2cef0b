"""Image sets that are data sets: which of their images are scored, and that nothing was trained on these."""

import numpy as np
import torch

from ssrob.data.prepared import Prepared
from ssrob.data.test_split import open_test
from ssrob.data.types import Pixels, Rows
from ssrob.ood.image_sets import check_outside, fitted
from ssrob.seeding import example_keys


def scored_images(data: Prepared, count: int) -> Pixels:
    """Return images of a data set, `count` at most: of its test split, then, for lack of these, of all."""
    test = data.counts["test"]
    parts = [open_test(data.folder, min(count, test))[0]] if test else []
    if count > test:
        others = _at_hand(data)
        parts.append(others[choose(len(others), count - test)])
    return np.concatenate(parts)


def choose(images: int, count: int) -> Rows:
    """Choose `count` of so many images, the same every time, as ascending positions."""
    keys = example_keys(torch.arange(images), 0, "ood subset").numpy()
    return np.sort(np.argsort(keys)[:count])


def check_no_overlap(outside: Prepared, trained: Prepared, count: int) -> None:
    """Raise a DataError if images of `outside` that are scored are among the training images of `trained`."""
    images = fitted(scored_images(outside, count), trained.shape)
    check_outside(outside.name, images, trained.digests(), trained.name)


def _at_hand(data: Prepared) -> Pixels:
    """Return validation and training images; without those that stay in their files, as they are too many to decode."""
    seen = [data.validation()[0], *([] if data.in_files else [data.train()[0]])]
    return np.concatenate(seen)
