"""Published corruptions, arrays or folders of images: whether they are of a data set's test images. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssrob.corruptions.cifar10c import official, official_labels
from ssrob.corruptions.imagenetc import CorruptedFolders, is_tree
from ssrob.data.types import Pixels


@dataclass(frozen=True)
class Published:
    """A folder of published corruptions; classes: the names of folders in it, where images are files."""

    root: Path
    classes: Sequence[str] = ()

    @cached_property
    def folders(self) -> CorruptedFolders | None:
        """The images where each is a file."""
        return CorruptedFolders(self.root, self.classes) if is_tree(self.root) else None

    def at(self, name: str, severity: int, index: NDArray[np.int64]) -> Pixels:
        """Return corrupted images (N, H, W, 3) uint8 by their numbers (N,) in the test split."""
        if self.folders is not None:
            return self.folders.at(name, severity, index)
        return official(self.root, name, severity, index)

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Raise a ValueError unless the test images' shape (H, W, C) is that of these images."""
        expected = self.folders.shape if self.folders else (32, 32, 3)
        if shape != expected:
            size = f"{expected[0]}x{expected[1]}"
            raise ValueError(f"{self.root}: is of {size} colour images, found images of {shape}")

    def check_order(self, labels: NDArray[np.int64], index: NDArray[np.int64]) -> None:
        """Raise a ValueError unless these are the test images, which have labels (N,) and numbers (N,)."""
        test_order = self.folders.labels if self.folders else official_labels(self.root)
        other = index >= len(test_order)
        other[~other] = test_order[index[~other]] != labels[~other]
        if other.any():
            found = f"{int(other.sum())} of {len(labels)} labels differ from those of the test split"
            raise ValueError(f"{self.root}: {found}; it must be in the original order, of the same data set")

    def check_whole(self, names: Sequence[str], severities: Sequence[int]) -> None:
        """Raise a ValueError if an array is cut short, or a class or an image of the first class is not there."""
        for name in names:
            if self.folders is not None:
                for severity in severities:
                    self.folders.check_whole(name, severity)
            else:
                official(self.root, name, severities[0], np.zeros(0, np.int64))
