"""How many images a data set has and of which shape: of the prepared data if it is there, else of its source. No torch.

Prepared data may outlive its source, and says more: every job asks, and a source may be large or gone.
"""

from dataclasses import dataclass

import numpy as np

from ssrob.data.sources import count_images, image_shape, open_source, stays_in_files
from ssrob.data.types import Rows
from ssrob.planning.stage import Stage, data_of
from ssrob.registry.sources import SOURCES
from ssrob.storage.store import Store, prepared_facts


@dataclass(frozen=True)
class Images:
    """What is known of a data set. in_files: training images that stay in their files."""

    train: int
    test: int
    all: int
    shape: tuple[int, int, int]  # H, W, C
    in_files: int = 0


@dataclass(frozen=True)
class Tested:
    """Test images: their classes, and labels (N,) and rows (N,) int64 in the source's test split."""

    classes: tuple[str, ...]
    labels: Rows
    rows: Rows


def tested_of(stage: Stage, store: Store) -> Tested | None:
    """Return the test images of a data stage: those that are prepared, else all of its source; None if not known."""
    if store.done(stage.path):
        labels, rows = (np.load(store.folder(stage.path) / f"test_{what}.npy") for what in ("labels", "rows"))
        return Tested(tuple(prepared_facts(store, stage.path)["classes"]), labels, rows)
    data = data_of(stage)
    opened = None if SOURCES[data.source].known else open_source(data)
    if opened is None or opened.test is None:
        return None
    return Tested(opened.classes, opened.test.labels, np.arange(len(opened.test)))


def counts_of(stage: Stage, store: Store) -> tuple[int, int] | None:
    """Return the images to train on and to test on of a data stage; None where they are not known yet."""
    if store.done(stage.path):
        counts = prepared_facts(store, stage.path)["counts"]
        return counts["train"], counts["test"]
    return count_images(data_of(stage))


def shape_of(stage: Stage, store: Store) -> tuple[int, int, int] | None:
    """Return height, width and channels of the images of a data stage; None where they are not known yet."""
    if store.done(stage.path):
        channels, height, width = prepared_facts(store, stage.path)["shape"]
        return height, width, channels
    return image_shape(data_of(stage))


def images_of(stage: Stage, store: Store) -> Images | None:
    """Return all that is known of a data stage's images; None where it is not known yet."""
    counts, shape = counts_of(stage, store), shape_of(stage, store)
    if counts is None or shape is None:
        return None
    train, test = counts
    if store.done(stage.path):
        about = prepared_facts(store, stage.path)
        in_files = train if about.get("storage") == "files" else 0
        return Images(train, test, sum(about["counts"].values()), shape, in_files)
    data = data_of(stage)
    in_files = train if stays_in_files(data, train, shape) else 0
    return Images(train, test, round(train / (1 - data.validation)) + test, shape, in_files)
