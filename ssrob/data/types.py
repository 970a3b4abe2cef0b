"""What a data source provides: its labels at once, its images on request. Imports no torch."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssrob.config.data import Data

Pixels = NDArray[np.uint8]  # 0..255
Rows = NDArray[np.int64]
Digests = NDArray[np.uint64]
UNLABELLED = -1


class DataError(ValueError):
    """Data that cannot be used; the message names the field or file, what was found and what is allowed."""


def refusal(data: Data, field: str, text: str) -> DataError:
    """Return the error about one field of a data set's config."""
    return DataError(f"data set {data.name!r}: {field}: {text}")


@dataclass(frozen=True)
class Split:
    """One split of a source.

    labels: (N,) int64 in 0..K-1, or all -1 where there are none.
    read: takes rows, ascending, and yields for each where it lies (for error messages) and its content: an
        encoded image, or pixels (H, W) or (H, W, 3) uint8.
    one_each: every image is a file, so that any few of them are read at once.
    """

    labels: Rows
    read: Callable[[Rows], Iterator[tuple[str, bytes | Pixels]]]
    one_each: bool = False

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Opened:
    """An opened source. No classes: unlabelled. No test split: one is taken from train, if it is labelled."""

    classes: tuple[str, ...]
    train: Split
    test: Split | None = None


@dataclass(frozen=True)
class OpenedTest:
    """The images that an evaluation tests. notes: which they are, and what was left out, for people."""

    classes: tuple[str, ...]
    split: Split
    notes: tuple[str, ...] = ()


def split_of_arrays(images: Pixels, labels: Rows, where: str) -> Split:
    """Wrap images (N, H, W) or (N, H, W, 3) uint8 and labels (N,) that are in memory."""

    def read(rows: Rows) -> Iterator[tuple[str, bytes | Pixels]]:
        for row in rows:
            yield f"{where}: row {row}", images[row]

    return Split(labels, read)


def split_of_files(files: Sequence[str | Path], labels: Sequence[int]) -> Split:
    """Wrap image files with a label each."""
    longest = max((len(os.fsencode(file)) for file in files), default=1)
    names = np.fromiter(map(os.fsencode, files), f"S{longest}", len(files))  # one block, shared by forked processes

    def read(rows: Rows) -> Iterator[tuple[str, bytes | Pixels]]:
        for row in rows:
            file = Path(os.fsdecode(names[row]))
            try:
                yield str(file), file.read_bytes()
            except OSError as error:
                raise DataError(f"{file}: cannot be read ({error.strerror})") from error

    return Split(np.asarray(labels, dtype=np.int64), read, one_each=True)
