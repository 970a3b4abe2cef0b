"""The source `folder`: one folder of image files per class. Imports no torch."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ssrob.config.study import Data
from ssrob.data.types import UNLABELLED, DataError, Opened, Pixels, Rows, Split, refusal

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


def folder(data: Data) -> Opened:
    """Open path/train/<class>/ and path/test/<class>/, or path/<class>/ where there is no test split.

    Classes stand in the order of the config's `classes`, else of their names; files in the order of names.
    Unlabelled: every image below path/train, or below path, at any depth.
    """
    assert data.path is not None
    if not data.path.is_dir():
        raise refusal(data, "path", f"expected a folder, found no folder at {data.path}")
    train, test = data.path / "train", data.path / "test"
    if test.is_dir() and not train.is_dir():
        raise refusal(data, "path", f"{data.path} holds test/ and no train/; expected both, or a folder per class")
    root = train if train.is_dir() else data.path
    if data.label_column is None:
        files = sorted(Path(base) / name for base, _, names in os.walk(root) for name in _images(names))
        return Opened((), _split(files, [UNLABELLED] * len(files)))
    classes = _classes(data, root)
    splits = [_labelled(data, each, classes) for each in (root, test) if each.is_dir()]
    return Opened(classes, *splits)


def _classes(data: Data, root: Path) -> tuple[str, ...]:
    found = _subfolders(root)
    if not found:
        raise refusal(data, "path", f"expected a folder of images per class in {root}, found no folder")
    if data.classes is not None and sorted(data.classes) != found:
        raise refusal(data, "classes", f"expected the folders of {root}, {found}; found {data.classes}")
    return tuple(data.classes or found)


def _labelled(data: Data, root: Path, classes: tuple[str, ...]) -> Split:
    if strange := set(_subfolders(root)) - set(classes):
        raise refusal(data, "path", f"{root / sorted(strange)[0]} is no class of train; known: {', '.join(classes)}")
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        inside = root / name
        images = sorted(_images(os.listdir(inside))) if inside.is_dir() else []
        if not images:
            raise refusal(data, "path", f"expected {'/'.join(SUFFIXES)} files in {inside}, found none")
        files += [inside / image for image in images]
        labels += [label] * len(images)
    return _split(files, labels)


def _subfolders(root: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))


def _images(names: list[str]) -> list[str]:
    return [name for name in names if name.lower().endswith(SUFFIXES) and not name.startswith(".")]


def _split(files: list[Path], labels: list[int]) -> Split:
    def read(rows: Rows) -> Iterator[tuple[str, bytes | Pixels]]:
        for row in rows:
            try:
                yield str(files[row]), files[row].read_bytes()
            except OSError as error:
                raise DataError(f"{files[row]}: cannot be read ({error.strerror})") from error

    return Split(np.asarray(labels, dtype=np.int64), read)
