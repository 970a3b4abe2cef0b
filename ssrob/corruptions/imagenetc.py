"""Reader of the published ImageNet-C: folders corruption/severity/class/image, as its archives are unpacked."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssrob.data.decode import decode
from ssrob.data.types import DataError, Pixels
from ssrob.registry.corruptions import NAMES, SEVERITIES
from ssrob.registry.sources import IMAGE_ENDINGS


def is_tree(folder: Path) -> bool:
    """Return whether a folder of published corruptions holds folders of images, not arrays."""
    return any(_folder(folder, name, severity).is_dir() for name in NAMES for severity in SEVERITIES)


class CorruptedFolders:
    """The corrupted images of a data set's test split, by their numbers in it.

    classes: those of the data, each a folder of images in every corruption and severity. Images are numbered as the
    data set numbers its own: by class, and within a class by name. labels (N,) int64 are those of all images, names
    the corruptions that there are.
    """

    def __init__(self, root: Path, classes: Sequence[str]):
        self.classes = tuple(classes)
        self.root, self.names = root, tuple(name for name in NAMES if (root / name).is_dir())
        self.first = next((name, each) for name in NAMES for each in SEVERITIES if _folder(root, name, each).is_dir())
        listed = [_images(_folder(root, *self.first) / name) for name in classes]
        self.files = [f"{name}/{file}" for name, files in zip(classes, listed, strict=True) for file in files]
        self.labels: NDArray[np.int64] = np.repeat(np.arange(len(classes)), [len(files) for files in listed])
        if not self.files:
            raise DataError(f"{_folder(root, *self.first)}: expected images of {len(classes)} classes, found none")

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W, 3) of the first image."""
        return self.at(*self.first, np.zeros(1, np.int64)).shape[1:]

    def check_whole(self, name: str, severity: int) -> None:
        """Raise a DataError if a class is not there, or if its first class has other images than elsewhere."""
        folder, complete = _folder(self.root, name, severity), _folder(self.root, *self.first)
        there = {each.name for each in folder.iterdir()}
        if missing := [each for each in self.classes if each not in there]:
            raise DataError(f"{folder}: expected a folder for each class, found no {', '.join(missing[:5])}")
        mine, theirs = (_images(each / self.classes[0]) for each in (folder, complete))
        if differing := sorted({*mine} ^ {*theirs}):
            one, other = folder / self.classes[0], complete / self.classes[0]
            raise DataError(f"{one}: expected the images of {other}, but only one of them has {differing[0]}")

    def at(self, name: str, severity: int, index: NDArray[np.int64]) -> Pixels:
        """Return images of these numbers (N,) as (N, H, W, 3) uint8; raises DataError for one that is not there."""
        folder = _folder(self.root, name, severity)
        images = [_decoded(folder / self.files[number]) for number in index]
        if len(shapes := {image.shape for image in images}) > 1:
            raise DataError(f"{folder}: expected images of one size, found {' and '.join(map(str, sorted(shapes)))}")
        return np.stack(images)


def tree_listing(folder: Path) -> Iterator[str]:
    """Name what a tree holds: each corruption and severity, and the images of its first class with their sizes."""
    for severity in sorted(each for each in folder.glob("*/*") if each.is_dir()):
        one = min((each for each in severity.iterdir() if each.is_dir()), default=severity)
        sizes = [f"{name} {(one / name).stat().st_size}" for name in _images(one)]
        yield f"{severity.relative_to(folder)} {one.name} {' '.join(sizes)}"


def _folder(root: Path, name: str, severity: int) -> Path:
    return root / name / str(severity)


def _images(folder: Path) -> list[str]:
    try:
        return sorted(each.name for each in folder.iterdir() if each.name.lower().endswith(IMAGE_ENDINGS))
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror}); it must hold a class's images") from error


def _decoded(file: Path) -> Pixels:
    try:
        return decode(file.read_bytes(), str(file), None)[0]
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error
