"""The images that an evaluation without a study tests. Only these are decoded, once."""

import os
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import PIL

from ssrob.config.data import Data
from ssrob.data.arrays import keep_one_channel, write_images
from ssrob.data.content import content_hash, digest_of
from ssrob.data.decode import crop_of
from ssrob.data.prepare import choose, row_keys, write_facts
from ssrob.data.sources import open_for_testing, open_source
from ssrob.data.splits import balanced
from ssrob.data.test_split import subset
from ssrob.data.types import OpenedTest, Rows, refusal

MARK = "made_from.txt"  # written last, into folders made here and no others


@dataclass(frozen=True)
class TestedImages:
    """Prepared test images: a folder that `Prepared` and `open_test` read, and notes for people."""

    folder: Path
    notes: tuple[str, ...]


def prepare_for_testing(data: Data, cache: Path, images: int | None = None) -> TestedImages:
    """Prepare the test images of a source, or `images` of them (class-balanced, nested), in a folder below `cache`.

    What an earlier call has made is used again if it was made from the very same content, in the same way: the files
    are read each time, and hashed. What was made from other content is removed.
    """
    opened, rows = _chosen(data, images)
    content = content_hash({"test": (opened.split, rows)})
    how = data.model_dump(mode="json", exclude={"path", "fingerprint", "storage"}) | {
        "ssrob": version("ssrob"),
        "pillow": PIL.__version__,
    }
    made_from = digest_of({"how": how, "content": content, "rows": rows.tolist(), "classes": opened.classes})
    if data.fingerprint not in (None, content):
        raise refusal(data, "fingerprint", f"expected {data.fingerprint}, found {content} (of the tested images)")
    folder = cache / f"{data.name}-{made_from[:10]}"
    for mark in cache.glob(f"*/{MARK}"):  # the user may keep folders of their own beside
        if mark.parent != folder:
            shutil.rmtree(mark.parent)
    if not (folder / MARK).is_file():
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _write(data, opened, rows, content, partial)
        (partial / MARK).write_text(made_from)
        os.replace(partial, folder)
    return TestedImages(folder, opened.notes)


def _chosen(data: Data, images: int | None) -> tuple[OpenedTest, Rows]:
    """Open a source and choose the rows of its split that are tested, ascending."""
    opened = open_for_testing(data)
    if opened is None:
        whole = open_source(data)
        rows = choose(data, whole).test
        share = f"; {data.name} has no test split: they are the share that a study does not train on"
        note = f"test images: {len(rows):,}{'' if whole.test else share}"
        opened = OpenedTest(whole.classes, whole.test or whole.train, (note,))
    else:
        rows = np.arange(len(opened.split))
        if data.test_images is not None and data.test_images > len(rows):
            raise refusal(data, "test_images", f"must be 1..{len(rows)} (those there are), found {data.test_images}")
        if data.test_images is not None:
            keys = row_keys(rows, data, "test images")
            rows = np.sort(balanced(opened.split.labels, keys, data.test_images))
    labels = opened.split.labels[rows]
    some = subset(data.name, labels, rows, images)
    return opened, rows if some is None else rows[some]


def _write(data: Data, opened: OpenedTest, rows: Rows, content: str, out: Path) -> None:
    np.save(out / "test_labels.npy", opened.split.labels[rows])
    np.save(out / "test_rows.npy", rows)
    shape, grey, refused = write_images(out / "test_images.npy", opened.split, rows, crop_of(data))
    refused.check()
    assert shape is not None
    height, width, channels = shape
    if grey:
        keep_one_channel(out / "test_images.npy")
    counts = {"train": 0, "validation": 0, "test": len(rows)}
    shape = (1 if grey else channels, height, width)
    # Mean and standard deviation are of training images, which are not read here.
    write_facts(data, out, content, content, classes=opened.classes, shape=shape, counts=counts, mean=(), std=())
