"""Pre-training must not see images that a study tests on: what is known of that before a job starts. No torch."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ssrob.config.data import Data
from ssrob.data.held_out import LEFT_OUT, kept_labels
from ssrob.data.image_folder import find_splits, tested_of
from ssrob.data.quick_check import sample_rows
from ssrob.data.source_files import source_files
from ssrob.data.sources import class_names, open_source
from ssrob.data.types import refusal
from ssrob.registry.sources import SOURCES

MOST_READ = 2**27  # bytes of a source that are read before work starts: about a second
# What sets test images aside where no split is given.
CUTS = ("train", "label_column", "split_seed", "test_share", "hold_out", "only")


def has_test_split(data: Data) -> bool:
    """Return whether the source says itself which images are for testing."""
    known = SOURCES[data.source].known
    if known is not None:
        return known.test is not None
    assert data.path is not None
    if data.source == "folder":
        return tested_of(find_splits(data)) is not None
    return bool(_files(data, data.test))


def check_no_overlap(data: Data, extra: Data) -> None:
    """Raise a DataError if pre-training on `extra` is known to see test images of `data`.

    Copies of images under other names are not detected.
    """
    if both := _files(extra, extra.train) & _files(data, data.test):
        raise refusal(extra, "train", f"{min(both)} holds the test images of {data.name!r}")
    for tested, seen in itertools.product(_folders(data, tested=True), _folders(extra)):
        if tested.is_relative_to(seen) or seen.is_relative_to(tested):
            raise refusal(extra, "path", f"{seen} holds the test images of {data.name!r} ({tested})")
    if not _same_images(data, extra):
        return
    if lacking := [
        name for name in data.hold_out if name not in extra.hold_out and name in (extra.only or data.hold_out)
    ]:
        raise refusal(extra, "hold_out", f"must have what {data.name!r} holds out, {', '.join(lacking)} missing")
    if has_test_split(data):
        return
    for field in CUTS:
        mine, theirs = getattr(data, field), getattr(extra, field)
        if mine != theirs:
            problem = f"it has images of {data.name!r}, which sets its test images aside by {field} {mine!r}"
            raise refusal(extra, field, f"{problem}; expected the same, found {theirs!r}")


def check_unseen(outside: Data, trained: Data) -> None:
    """Raise a DataError if images of no known class, `outside`, are known to be among what is trained on.

    Classes are compared by name, spelling aside; where either has none, files and folders are; some images are by
    their bytes.
    """
    known = {_plain(name) for name in class_names(trained)}
    classes = class_names(outside)
    if both := [name for name in classes if _plain(name) in known]:
        problem = f"classes must not be among those of {trained.name!r}, found {', '.join(both[:5])}"
        raise refusal(outside, "classes", f"{problem}; name them otherwise if they are others")
    if not (known and classes):
        _check_source(outside, trained)
        _check_files(outside, trained)
    _check_copies(outside, trained)


def _check_source(outside: Data, trained: Data) -> None:
    """Refuse the same library's data set, whose class names are not known yet, unless other classes are named."""
    if outside.source != trained.source or SOURCES[outside.source].known is None:
        return
    mine, theirs = {*outside.only} - {*outside.hold_out}, {*trained.only} - {*trained.hold_out}
    if not mine or not (mine <= {*trained.hold_out} or (theirs and not mine & theirs)):
        problem = f"must name classes that {trained.name!r} holds out, as both are {trained.source}"
        raise refusal(outside, "only", f"{problem}; found {', '.join(sorted(mine)) or 'none'}")


def _check_files(outside: Data, trained: Data) -> None:
    files = _files(outside, [*outside.train, *outside.test]) & _files(trained, trained.train)
    if files:
        raise refusal(outside, "train", f"{min(files)} holds images that {trained.name!r} is trained on")
    for mine, seen in itertools.product(_folders(outside), _folders(trained)):
        if mine.is_relative_to(seen) or seen.is_relative_to(mine):
            raise refusal(outside, "path", f"{mine} holds images that {trained.name!r} is trained on ({seen})")


def _check_copies(outside: Data, trained: Data) -> None:
    """Compare some images with all that are trained on, as they are stored; not where that would take long.

    The data stages compare all, by their pixels.
    """
    there = source_files(trained)
    if there is None or there["bytes"] > MOST_READ or SOURCES[outside.source].known is not None:
        return
    mine, theirs = open_source(outside), open_source(trained)
    looked = {}
    for split in filter(None, (mine.train, mine.test)):
        rows = sample_rows(split)
        kept = kept_labels(outside, mine.classes, split.labels)[rows] != LEFT_OUT
        looked.update({content: where for where, content in split.read(rows[kept]) if isinstance(content, bytes)})
    kept = kept_labels(trained, theirs.classes, theirs.train.labels) != LEFT_OUT
    for where, content in theirs.train.read(np.flatnonzero(kept)):
        if isinstance(content, bytes) and content in looked:
            raise refusal(outside, "path", f"{looked[content]} is the same image as {where}, of {trained.name!r}")


def _plain(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())


def _folders(data: Data, *, tested: bool = False) -> list[Path]:
    """Return the folder that a source `folder` trains on, or the one it tests on; none of another source."""
    if data.source != "folder" or data.path is None or not data.path.is_dir():
        return []
    splits = find_splits(data)
    folder = tested_of(splits) if tested else splits.get("train", data.path)
    return [] if folder is None else [folder.resolve()]


def _same_images(data: Data, extra: Data) -> bool:
    if data.source != extra.source:
        return False
    if data.source == "parquet":
        return bool(_files(data, data.train) & _files(extra, extra.train))
    return (data.path and data.path.resolve()) == (extra.path and extra.path.resolve())


def _files(data: Data, patterns: Sequence[str]) -> set[Path]:
    """Return the files of a parquet source that match; none of another source."""
    if data.source != "parquet" or data.path is None:
        return set()
    return {file.resolve() for pattern in patterns for file in data.path.glob(pattern)}
