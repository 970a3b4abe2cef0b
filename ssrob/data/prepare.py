"""Decode a source once and cut it into splits, as arrays that open without being read.

train_images.npy (N, H, W, C) uint8, train_labels.npy (N,) int64   training images, then the validation images;
                                       of images that stay in their files, those of validation alone
test_images.npy, test_labels.npy                                   the test split
train_rows.npy, test_rows.npy (N,) int64                           where each image stands in the source
train_digests.npy (N,) uint64          hashes of training images that stay in their files, without validation
data.json                              name, classes, shape, counts, mean, std and fingerprints
"""

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssrob.config.data import Data
from ssrob.data.arrays import count_levels, keep_one_channel, moments, write_images
from ssrob.data.content import digest_of, source_fingerprint
from ssrob.data.decode import crop_of, decode
from ssrob.data.held_out import LEFT_OUT, kept_classes, kept_labels
from ssrob.data.refused_images import RefusedImages
from ssrob.data.sources import open_source, stays_in_files
from ssrob.data.splits import balanced, proportional, sizes
from ssrob.data.stored_images import StoredImages
from ssrob.data.types import DataError, Opened, Rows, refusal
from ssrob.seeding import example_keys
from ssrob.storage.store import sha256, write_json

ARRAYS = tuple(f"{split}_{what}.npy" for split in ("train", "test") for what in ("images", "labels", "rows"))


@dataclass(frozen=True)
class Chosen:
    """Rows of the source's splits; `test` are rows of train where the source has no test split."""

    train: Rows
    validation: Rows
    test: Rows


def prepare(data: Data, out: Path) -> None:
    """Write a data set's arrays and `data.json` into the folder `out`; the same source gives the same bytes.

    Two fingerprints are recorded: `source_fingerprint` of the stored images and labels of the whole source,
    whatever is chosen from it, and `fingerprint` of what was written. The config may pin either.
    """
    opened = open_source(data)
    source = source_fingerprint(opened)
    chosen, classes = choose(data, opened), kept_classes(data, opened.classes)
    out.mkdir(parents=True, exist_ok=True)
    stored = _in_files(data, opened, chosen)
    shape, levels = _write_arrays(data, opened, chosen, out, stored)
    fingerprint = digest_of({name: sha256(out / name) for name in ARRAYS} | {"classes": classes})
    if data.fingerprint not in (None, fingerprint, source):
        found = f"found {source} (source) and {fingerprint} (prepared)"
        raise refusal(data, "fingerprint", f"expected {data.fingerprint}, {found}")
    mean, std = moments(levels)
    if min(std) == 0:
        raise refusal(data, "train", f"channel {std.index(0)} has the same value in all images")
    counts = {name: len(getattr(chosen, name)) for name in ("train", "validation", "test")}
    kept = {"storage": "files"} if stored else {}
    facts: dict[str, Any] = {"classes": classes, "shape": shape, "counts": counts, "mean": mean, "std": std}
    write_facts(data, out, fingerprint, source, **facts, **kept)


def write_facts(data: Data, out: Path, fingerprint: str, source: str, **facts: object) -> None:
    """Write `data.json`, which `Prepared` reads first; fingerprint, source: of what was written and of its source."""
    names = {"name": data.name, "source": data.source}
    write_json(out / "data.json", names | facts | {"fingerprint": fingerprint, "source_fingerprint": source})


def check_same_name(prepared: Path, stages: Path) -> None:
    """Compare `prepared` with the data stages of its name below `stages`: a name stands for one source."""
    mine = _about(prepared / "data.json")
    for file in sorted(stages.glob(f"{mine['name']}-*/data.json")):
        other = _about(file)
        if other["name"] == mine["name"] and other["source_fingerprint"] != mine["source_fingerprint"]:
            raise DataError(
                f"data set {mine['name']!r}: its source has fingerprint {mine['source_fingerprint']}, but "
                f"{file} was made from {other['source_fingerprint']}; give the changed data its own name"
            )


def choose(data: Data, opened: Opened) -> Chosen:
    """Cut a source into splits; a function of its labels and the config, random by `split_seed`."""
    classes = kept_classes(data, opened.classes)
    labels = kept_labels(data, opened.classes, opened.train.labels)
    test_labels = kept_labels(data, opened.classes, opened.test.labels) if opened.test else labels
    rows = np.flatnonzero(labels != LEFT_OUT)
    test = np.flatnonzero(test_labels != LEFT_OUT) if opened.test else rows[:0]
    cut = sizes(data, len(rows), len(test) if opened.test else None, labelled=bool(classes))
    if cut.held_out:
        test = rows[proportional(labels[rows], row_keys(rows, data, "test share"), cut.held_out)]
        rows = np.setdiff1d(rows, test)
    used = rows[balanced(labels[rows], row_keys(rows, data, "train images"), cut.used)]
    validation = used[proportional(labels[used], row_keys(used, data, "validation"), cut.validation)]
    test = np.sort(test[balanced(test_labels[test], row_keys(test, data, "test images"), cut.test)])
    train = np.setdiff1d(used, validation)
    for name, chosen in (("train", labels[train]), ("test", test_labels[test])):
        if missing := set(range(len(classes))) - set(chosen.tolist()):
            label = classes[min(missing)]
            raise refusal(data, name, f"class {label!r} has too few images to be in train and test")
    return Chosen(train, validation, test)


def row_keys(rows: Rows, data: Data, purpose: str) -> Rows:
    """Draw one random number per source row, the same one whatever other rows there are."""
    keys: Rows = example_keys(torch.from_numpy(rows), data.split_seed, "split", purpose).numpy()
    return keys


def _in_files(data: Data, opened: Opened, chosen: Chosen) -> StoredImages | None:
    """Return the training images if they stay in their files, with the shape of the first one that can be used."""
    height, width, channels = 0, 0, 3
    for where, content in opened.train.read(chosen.train):
        with contextlib.suppress(DataError):  # named with all others, when all are decoded
            height, width, channels = decode(content, where, crop_of(data))[0].shape
            break
    if not stays_in_files(data, len(chosen.train), (height, width, channels)):
        return None
    return StoredImages(opened.train, chosen.train, (channels, height, width), crop_of(data))


def _write_arrays(
    data: Data, opened: Opened, chosen: Chosen, out: Path, stored: StoredImages | None
) -> tuple[tuple[int, int, int], Rows]:
    """Write both splits, with one channel if every image is grey; return (C, H, W) and the levels of `moments`."""
    rows = {"train": np.concatenate([chosen.train, chosen.validation]), "test": chosen.test}
    splits = {"train": opened.train, "test": opened.test or opened.train}
    shape, levels, all_grey, refused = None, None, True, RefusedImages()
    if stored:
        levels, all_grey, digests, refused = stored.survey()
        np.save(out / "train_digests.npy", digests)
    for name, split in splits.items():
        np.save(out / f"{name}_labels.npy", kept_labels(data, opened.classes, split.labels)[rows[name]])
        np.save(out / f"{name}_rows.npy", rows[name])
        written = chosen.validation if stored and name == "train" else rows[name]
        shape, grey, unusable = write_images(out / f"{name}_images.npy", split, written, crop_of(data), shape)
        refused.add(unusable)
        all_grey = all_grey and grey
    refused.check()
    if all_grey:
        for name in splits:
            keep_one_channel(out / f"{name}_images.npy")
    assert shape is not None
    channels = 1 if all_grey else 3
    if levels is None:
        levels = count_levels(np.load(out / "train_images.npy", mmap_mode="r")[: len(chosen.train)])
    return (channels, shape[0], shape[1]), levels[:channels]


def _about(file: Path) -> dict[str, Any]:
    about: dict[str, Any] = json.loads(file.read_text())
    return about
