"""The data sources by name, and the check of a data set before any job starts. Imports no torch."""

import contextlib
import math
from collections.abc import Iterator
from contextvars import ContextVar

import numpy as np

from ssrob.config.data import Data
from ssrob.data.decode import crop_of, decode
from ssrob.data.held_out import LEFT_OUT, kept_classes, kept_labels, kept_share
from ssrob.data.quick_check import any_colour, check_images
from ssrob.data.splits import sizes
from ssrob.data.types import UNLABELLED, DataError, Opened, OpenedTest, Split, refusal
from ssrob.registry.lookup import load
from ssrob.registry.sources import SOURCES, Known

_OPENED: ContextVar[dict[str, Opened] | None] = ContextVar("opened", default=None)
LARGEST_ARRAY = 4 * 2**30  # bytes of pixels that are decoded once and lie on the device


def check_source(data: Data) -> None:
    """Check what can be checked of a data set in a second, decoding nothing; raises a DataError."""
    known = SOURCES[data.source].known
    if known is None:
        check_images(data, open_source(data))
        return
    _check_fields(data)
    if data.path is not None and data.path.exists() and not data.path.is_dir():
        raise refusal(data, "path", f"expected a folder to download into, found the file {data.path}")
    _check_sizes(data, *_known_sizes(data, known))


@contextlib.contextmanager
def opened_once() -> Iterator[None]:
    """Open each source once within the context, in which its files must not change: listing millions takes a while."""
    before = _OPENED.set({} if _OPENED.get() is None else _OPENED.get())
    try:
        yield
    finally:
        _OPENED.reset(before)


def open_source(data: Data) -> Opened:
    """Open a source, downloading what it needs, and check its labels and sizes against the config."""
    known, name = _OPENED.get(), data.model_dump_json()
    if known is None:
        return _opened(data)
    if name not in known:
        known[name] = _opened(data)
    return known[name]


def _opened(data: Data) -> Opened:
    _check_fields(data)
    opened: Opened = load(SOURCES[data.source].open)(data)
    if opened.test is not None and data.changes("test_share"):
        raise refusal(data, "test_share", "the data has a test split of its own; remove test_share")
    if opened.classes:
        _check_classes(data, opened.classes)
        _check_labels(data, "train", opened.train, opened.classes)
        if opened.test is not None:
            _check_labels(data, "test", opened.test, opened.classes)
    _check_sizes(data, *_kept_sizes(data, opened))
    return opened


def open_for_testing(data: Data) -> OpenedTest | None:
    """Open what an evaluation tests where there is no study; None: the source says no more of it than `open_source`.

    Classes may be without images, and there need be no training split. `test_share` asks for a study's share of train.
    """
    row = SOURCES[data.source]
    if row.for_testing is None or "test_share" in data.model_fields_set:
        return None
    _check_fields(data)
    if data.label_column is None:
        raise refusal(data, "label_column", "an evaluation needs labels, found null")
    opened: OpenedTest = load(row.for_testing)(data)
    _check_classes(data, opened.classes)
    _check_range(data, "test", opened.split, opened.classes)
    return opened


def count_images(data: Data) -> tuple[int, int] | None:
    """Count the images to train on (validation taken off) and to test on; None where that is not known."""
    known = SOURCES[data.source].known
    try:
        train, test, classes = _known_sizes(data, known) if known else _kept_sizes(data, open_source(data))
    except DataError:
        return None
    cut = sizes(data, train, test, labelled=classes > 0)
    return cut.train, cut.test


def image_shape(data: Data) -> tuple[int, int, int] | None:
    """Return height, width and channels of a source's images, by its first ones; None where they cannot be read."""
    known = SOURCES[data.source].known
    if known is not None:
        height, width, channels = known.shape
    else:
        try:
            train = open_source(data).train
            where, content = next(iter(train.read(np.arange(1))))
            pixels, grey = decode(content, where, crop_of(data))
            grey = grey and not any_colour(train)
        except DataError:
            return None
        height, width, channels = pixels.shape[0], pixels.shape[1], 1 if grey else 3
    return data.size or height, data.size or width, channels


def stays_in_files(data: Data, images: int, shape: tuple[int, ...]) -> bool:
    """Return whether training images of a shape (H, W, C) stay in their files: as the config says, else by size."""
    if data.storage is not None:
        return data.storage == "files"
    return SOURCES[data.source].known is None and images * math.prod(shape) > LARGEST_ARRAY


def class_names(data: Data) -> tuple[str, ...]:
    """Return the names of a data set's classes, those that it leaves out left out; empty if they are not known yet."""
    known = SOURCES[data.source].known
    names = known.names if known is not None else open_source(data).classes
    return kept_classes(data, names) if names else ()


def _known_sizes(data: Data, known: Known) -> tuple[int, int | None, int]:
    """Return training images, test images (None: no test split) and classes that a known source keeps."""
    if not (data.only or data.hold_out):
        return known.train, known.test, known.classes
    of_train = known.sizes or (known.train // known.classes,) * known.classes
    train, classes = kept_share(data, known.names, of_train)
    test = None if known.test is None else known.test * classes // known.classes
    return train, test, classes


def _kept_sizes(data: Data, opened: Opened) -> tuple[int, int | None, int]:
    """Return the same of an opened source."""
    train, test = (
        None if split is None else int((kept_labels(data, opened.classes, split.labels) != LEFT_OUT).sum())
        for split in (opened.train, opened.test)
    )
    return train or 0, test, len(kept_classes(data, opened.classes))


def _check_fields(data: Data) -> None:
    all_read = frozenset[str]().union(*(source.reads for source in SOURCES.values()))
    for field in sorted(all_read - SOURCES[data.source].reads):
        if data.changes(field):
            raise refusal(data, field, f"source {data.source!r} does not read it, found {getattr(data, field)!s}")
    if data.label_column is None:
        for field in ("test", "classes", "hold_out", "only", "test_share", "test_images"):
            if data.changes(field):
                raise refusal(data, field, f"not allowed for unlabelled data, found {getattr(data, field)}")


def _check_classes(data: Data, classes: tuple[str, ...]) -> None:
    if len(classes) < 2:
        raise refusal(data, "classes", f"expected at least 2 classes, found {list(classes)}")
    if len(set(classes)) < len(classes):
        twice = next(name for name in classes if classes.count(name) > 1)
        raise refusal(data, "classes", f"expected every name once, found {twice!r} twice")


def _check_labels(data: Data, name: str, split: Split, classes: tuple[str, ...]) -> None:
    _check_range(data, name, split, classes)
    empty = np.flatnonzero(np.bincount(split.labels, minlength=len(classes)) == 0)
    if len(empty):
        raise refusal(data, name, f"class {classes[empty[0]]!r} has no images; every class needs some")


def _check_range(data: Data, name: str, split: Split, classes: tuple[str, ...]) -> None:
    if len(split) and bool((split.labels == UNLABELLED).all()):
        secret = "its labels are all -1, as those of a test split that are kept secret"
        raise refusal(data, name, f"{secret}; name another split, such as test: 'validation*'")
    outside = np.flatnonzero((split.labels < 0) | (split.labels >= len(classes)))
    if len(outside):
        row = int(outside[0])
        found = f"found {split.labels[row]} in {name} row {row}"
        raise refusal(data, "label_column", f"labels must be 0..{len(classes) - 1}, {found}")


def _check_sizes(data: Data, train: int, test: int | None, classes: int) -> None:
    """Check that there are as many images as the config asks for, and enough for every split to have some."""
    whole = data.model_copy(update={"train_images": None, "test_images": None})
    available = sizes(whole, train, test, labelled=classes > 0)
    least = max(classes, 2)  # one to train on and one to validate on
    if available.used < least:
        raise refusal(data, "train", f"expected at least {least} images, found {available.used}")
    for field, most in (("train_images", available.used), ("test_images", available.test)):
        asked = getattr(data, field)
        if asked is not None and not least <= asked <= most:
            raise refusal(data, field, f"must be {least}..{most} (the images there are), found {asked}")
