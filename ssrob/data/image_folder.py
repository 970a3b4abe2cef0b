"""The source `folder`: one folder of image files per class. Imports no torch."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ssrob.config.data import Data
from ssrob.data.metadata_files import find_metadata, open_metadata, open_metadata_for_testing
from ssrob.data.split_names import TESTED, split_of
from ssrob.data.types import UNLABELLED, Opened, OpenedTest, Split, refusal, split_of_files
from ssrob.registry.sources import IMAGE_ENDINGS

# Folders that systems and archivers put beside others: none of them is a class.
_OF_SYSTEMS = frozenset(
    {"__MACOSX", "__pycache__", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information"}
)


@dataclass
class Found:
    """The image files below a folder, as text, which takes little memory, and what is there beside them."""

    images: list[str] = field(default_factory=list)
    nested: int = 0  # images that lie in folders below
    others: Counter[str] = field(default_factory=Counter)  # other files, by suffix

    def add(self, folder: str | Path, names: Iterable[str], *, nested: bool) -> None:
        """Sort the files of one folder into images and others."""
        for name in names:
            if name.startswith("."):
                self.others["hidden"] += 1
            elif name.lower().endswith(IMAGE_ENDINGS):
                self.images.append(os.path.join(folder, name))
                self.nested += nested
            else:
                self.others[Path(name).suffix.lower() or "no suffix"] += 1


def folder(data: Data) -> Opened:
    """Open path/train/<class>/ and path/test/<class>/ (or val/), or path/<class>/ where there is no test split.

    Classes stand in the order of the config's `classes`, else of their names; files in the order of names, with those
    of folders below a class's. Unlabelled: every image below path/train, or below path, at any depth. Metadata with
    labels come before folders.
    """
    if found := find_metadata(data):
        return open_metadata(data, found)
    splits = find_splits(data)
    root, test = splits.get("train"), tested_of(splits)
    if data.label_column is None:
        files = list_images(root or _path(data)).images
        return Opened((), split_of_files(files, [UNLABELLED] * len(files)))
    if test is not None and root is None:
        raise refusal(
            data, "path", f"{data.path} holds {test.name}/ and no train/; expected both, or a folder per class"
        )
    root = root or _path(data)
    classes = _classes(data, root)
    splits_found = []
    for each in (root, test) if test else (root,):
        split, inside = _labelled(data, each, classes)
        if empty := _without_images(classes, inside):
            raise refusal(data, "path", f"expected {'/'.join(IMAGE_ENDINGS)} files in {each / empty[0]}, found none")
        splits_found.append(split)
    return Opened(classes, *splits_found)


def folder_for_testing(data: Data) -> OpenedTest:
    """Open the split that a model is tested on: test/, else val/, else all there is; no training image is needed."""
    if found := find_metadata(data):
        return open_metadata_for_testing(data, found)
    splits, path = find_splits(data), _path(data)
    train = splits.get("train")
    root = tested_of(splits) or _only_other(data, train) or train or path
    subset = train is not None and {*map(_composed, _subfolders(root))} <= {*map(_composed, _subfolders(train))}
    classes = tuple(data.classes or ()) or _classes(data, train if train is not None and subset else root)
    split, inside = _labelled(data, root, classes)
    notes = [f"test images: {len(split):,} in {root}", *_order(data, classes)]
    if root == train:
        notes.append(f"warning: {path} holds no split but {root.name}/: was the model trained on these images?")
    elif train is not None and not subset:
        notes.append(f"warning: {root.name}/ has classes that {train.name}/ lacks; labels count those of {root.name}/")
    if empty := _without_images(classes, inside):
        shown = ", ".join(empty[:5]) + (", ..." if len(empty) > 5 else "")
        notes.append(f"warning: {len(empty)} of {len(classes)} classes have no images in {root}: {shown}")
    return OpenedTest(classes, split, (*notes, *_left_out(path, root, inside)))


def list_images(root: Path) -> Found:
    """List the image files below a folder at any depth, but for hidden ones; links are followed, once."""
    found, seen = Found(), set[str]()
    for base, folders, names in os.walk(root, followlinks=True):
        here = os.path.realpath(base)
        if here in seen:
            folders.clear()
            continue
        seen.add(here)
        folders[:] = [name for name in folders if not name.startswith(".")]
        found.add(base, names, nested=base != str(root))
    found.images.sort(key=lambda file: file.split(os.sep))  # as paths are ordered
    return found


def _path(data: Data) -> Path:
    assert data.path is not None
    if not data.path.is_dir():
        raise refusal(data, "path", f"expected a folder, found no folder at {data.path}")
    return data.path


def find_splits(data: Data) -> dict[str, Path]:
    """Return the folders that are splits, by what they hold: of such a name, with folders of classes inside."""
    path = _path(data)
    asked = {split: _named(data, split) for split in ("train", "test") if data.changes(split) and getattr(data, split)}
    found = dict(asked)
    for name in _subfolders(path):
        split, folder = split_of(name), path / name
        if split is None or split in asked or folder in asked.values() or not _holds_classes(data, folder):
            continue
        if split in found:
            problem = f"{found[split].name}/ and {name}/ both look like it; say which, such as test: {name}"
            raise refusal(data, "train" if split == "train" else "test", problem)
        found[split] = folder
    if not data.test:  # `test: []`: a share of train is taken
        found = {split: folder for split, folder in found.items() if split == "train"}
    return found


def _holds_classes(data: Data, folder: Path) -> bool:
    """Return whether a folder is a split, not a class of that name: a class holds images, and others lie beside it."""
    alone = all(split_of(name) for name in _subfolders(folder.parent))
    return data.label_column is None or alone or bool(_subfolders(folder))


def _named(data: Data, split: str) -> Path:
    names = getattr(data, split)
    if len(names) != 1 or not (_path(data) / names[0]).is_dir():
        raise refusal(data, split, f"expected the name of one folder in {data.path}, found {names}")
    return _path(data) / str(names[0])


def tested_of(splits: dict[str, Path]) -> Path | None:
    """Return the split that a model is tested on, if there is one."""
    return next((splits[split] for split in TESTED if split in splits), None)


def _only_other(data: Data, train: Path | None) -> Path | None:
    """Return the one folder beside train/ that has its classes, whatever its name; refuse to choose among several."""
    if train is None:
        return None
    classes = set(_subfolders(train))
    beside = [_path(data) / name for name in _subfolders(_path(data)) if _path(data) / name != train]
    others = [each for each in beside if (inside := _subfolders(each)) and set(inside) <= classes]
    if len(others) > 1:
        names = ", ".join(f"{other.name}/" for other in others)
        raise refusal(data, "test", f"{names} stand beside {train.name}/; say which is tested, by its name")
    return others[0] if others else None


def _classes(data: Data, root: Path) -> tuple[str, ...]:
    found = _subfolders(root)
    if not found:
        raise refusal(data, "path", f"expected a folder of images per class in {root}, found no folder")
    if data.classes is not None and sorted(map(_composed, data.classes)) != sorted(map(_composed, found)):
        raise refusal(data, "classes", f"expected the folders of {root}, {found}; found {data.classes}")
    return tuple(data.classes or found)


def _labelled(data: Data, root: Path, classes: tuple[str, ...]) -> tuple[Split, list[Found]]:
    """Return a split, and what lies in the folder of each class."""
    there = {_composed(name): name for name in _subfolders(root)}
    if strange := set(there) - set(map(_composed, classes)):
        raise refusal(data, "path", f"{root / sorted(strange)[0]} is no class of train; known: {', '.join(classes)}")
    folders = [root / name if (root / name).is_dir() else root / there.get(_composed(name), name) for name in classes]
    inside = [list_images(folder) for folder in folders]
    labels = [label for label, found in enumerate(inside) for _ in found.images]
    return split_of_files([image for found in inside for image in found.images], labels), inside


def _without_images(classes: tuple[str, ...], inside: list[Found]) -> list[str]:
    return [name for name, found in zip(classes, inside, strict=True) if not found.images]


def _left_out(path: Path, root: Path, inside: list[Found]) -> Iterator[str]:
    """Say what was not tested: other splits, images of no class, files that are not images."""
    for other in (path / name for name in _subfolders(path)) if path != root else ():
        if other != root:
            yield f"left out: {other.name}/ ({len(list_images(other).images):,} images)"
    if nested := sum(found.nested for found in inside):
        yield f"also tested: {nested:,} nested images, in folders below their class's"
    beside = Found()
    beside.add(root, (name for name in os.listdir(root) if (root / name).is_file()), nested=False)
    if beside.images:
        yield f"left out: {len(beside.images):,} images in {root}, outside the folders of classes"
    others = sum((found.others for found in inside), beside.others)
    if others:
        kinds = ", ".join(f"{count:,} {suffix}" for suffix, count in sorted(others.items()))
        yield f"left out: {sum(others.values()):,} files that are not images ({kinds})"


def _subfolders(root: Path) -> list[str]:
    folders = (entry.name for entry in os.scandir(root) if entry.is_dir())
    return sorted(name for name in folders if not name.startswith(".") and name not in _OF_SYSTEMS)


def _composed(name: str) -> str:
    """Return a name with every accent composed with its letter: macOS stores the two separately."""
    return unicodedata.normalize("NFC", name)


def _order(data: Data, classes: tuple[str, ...]) -> Iterator[str]:
    """Say how labels are counted where people may count otherwise."""
    numbers = data.classes is None and all(name.isdecimal() for name in classes)
    if numbers and list(classes) != sorted(classes, key=int):
        order = f"in the order of their names as text: {', '.join(classes[:5])}, ..."
        yield f"warning: labels count the folders {order}; as torchvision does"
