"""A look at some images of a source before work starts: at their first bytes alone, which costs little. No torch."""

import numpy as np

from ssrob.config.data import Data
from ssrob.data.decode import read_header
from ssrob.data.refused_images import RefusedImages
from ssrob.data.types import Opened, Rows, Split, refusal

FILES, ROWS = 200, 100  # looked at in each split: files from all over it; the first rows of a table, read at once


def check_images(data: Data, opened: Opened) -> None:
    """Refuse images that are empty, none, or not of one size; raises one DataError. The data stage decodes them all."""
    refused, sizes, count = RefusedImages(), dict[tuple[int, ...], str](), 0
    for split in filter(None, (opened.train, opened.test)):
        for where, content in split.read(sample_rows(split)):
            count += 1
            with refused.gathered():
                size, _ = read_header(content, where)
                sizes.setdefault(tuple(sorted(size)), where)  # some may be stored on their side
    refused.check(f" of {count} that were looked at")
    if data.size is None and len(sizes) > 1:
        found = " and ".join(f"{short} x {long} ({where})" for (short, long), where in [*sizes.items()][:2])
        raise refusal(data, "size", f"images must be of one size, found {found}; set it to have them resized")


def any_colour(split: Split) -> bool:
    """Return whether one of the images that are looked at is not grey."""
    refused = RefusedImages()  # `check_images` reports what cannot be read
    for where, content in split.read(sample_rows(split)):
        with refused.gathered():
            if not read_header(content, where)[1]:
                return True
    return False


def sample_rows(split: Split) -> Rows:
    """Return the rows (N,) of a split that are looked at, ascending."""
    if split.one_each:
        return np.unique(np.linspace(0, len(split) - 1, FILES, dtype=np.int64))
    return np.arange(min(ROWS, len(split)))
