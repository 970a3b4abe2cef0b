"""Folders of images with their labels in `metadata.csv` or `metadata.jsonl`, as Hugging Face's `imagefolder` has them.

A row has `file_name`, relative to the metadata's folder, and the label. Imports no torch.
"""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssrob.config.data import Data
from ssrob.data.parquet_columns import USUAL, names_of_labels, numbered
from ssrob.data.split_names import TESTED, split_of
from ssrob.data.types import DataError, Opened, OpenedTest, Split, refusal, split_of_files
from ssrob.registry.sources import IMAGE_ENDINGS

NAMES = ("metadata.csv", "metadata.jsonl")
FILE_NAME = "file_name"


@dataclass(frozen=True)
class Listed:
    """Images of one split and their labels, (N,) strings or int64, and the metadata that lists them."""

    source: Path
    files: list[Path]
    labels: Any


def find_metadata(data: Data) -> dict[str | None, Listed]:
    """Return what metadata list, by split (None: not said); empty where there are none with labels.

    A file is in the data set's folder or in that of a split; in the former the images' own folders are splits.
    """
    if data.label_column is None or data.path is None:
        return {}
    folders = [data.path, *sorted(each for each in data.path.glob("*") if each.is_dir() and split_of(each.name))]
    files = [file for folder in folders for name in NAMES if (file := folder / name).is_file()]
    rows = [
        (split_of(image.relative_to(data.path).parts[0]), file, image, label)
        for file in files
        for image, label in _rows(data, file)
    ]
    splits = dict.fromkeys(split for split, *_ in rows)
    if splits and data.test and not {*TESTED} & {*splits}:
        _check_no_other(data, folders[1:], rows[0][1])
    return {split: _listed(data, [row[1:] for row in rows if row[0] == split]) for split in splits}


def _check_no_other(data: Data, folders: list[Path], file: Path) -> None:
    """Refuse a split for testing that has images and no metadata, where that for training has some."""
    for folder in folders:
        if split_of(folder.name) in TESTED and any(each.suffix.lower() in IMAGE_ENDINGS for each in folder.rglob("*")):
            problem = f"{folder} has images without labels in metadata, and {file} has labels"
            raise refusal(data, "test", f"{problem}; write 'test: []' to take test_share of train")


def open_metadata(data: Data, listed: Mapping[str | None, Listed]) -> Opened:
    """Open the training images, and test or else validation images where there are any."""
    classes = _classes(data, listed)
    tested = next((split for split in TESTED if split in listed), None) if data.test else None
    train = listed.get("train") or listed.get(None)
    if train is None:
        raise refusal(
            data, "path", f"metadata of {data.path} lists no training images, only {', '.join(map(str, listed))}"
        )
    return Opened(classes, _split(data, train, classes), _split(data, listed[tested], classes) if tested else None)


def open_metadata_for_testing(data: Data, listed: Mapping[str | None, Listed]) -> OpenedTest:
    """Open the split that a model is tested on: test, else validation, else all there is."""
    classes = _classes(data, listed)
    chosen = next(split for split in (*TESTED, None, "train") if split in listed)
    split = _split(data, listed[chosen], classes)
    notes = [f"test images: {len(split):,} that {listed[chosen].source} lists"]
    if chosen == "train":
        notes.append(f"warning: {data.path} holds no split but train: was the model trained on these images?")
    notes += [f"left out: {name} ({len(each.files):,} images)" for name, each in listed.items() if name != chosen]
    return OpenedTest(classes, split, tuple(notes))


def _rows(data: Data, file: Path) -> list[tuple[Path, Any]]:
    """Read image and label of every row; none if no column holds labels: then folders are classes."""
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            read: Any = csv.DictReader(lines) if file.suffix == ".csv" else map(json.loads, filter(str.strip, lines))
            rows: list[dict[str, Any]] = list(read)
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{file}: cannot be read ({error}); expected a row an image, with {FILE_NAME}") from error
    asked = (data.label_column, *(() if "label_column" in data.model_fields_set else USUAL["label_column"]))
    column = next((name for name in asked if rows and name in rows[0]), None)
    if column is None:
        return []
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or not row.get(FILE_NAME) or row.get(column) in (None, ""):
            raise DataError(f"{file}: row {number}: expected {FILE_NAME} and {column}, found {row}")
        if Path(row[FILE_NAME]).is_absolute() or not (file.parent / row[FILE_NAME]).is_file():
            raise DataError(f"{file}: row {number}: names {row[FILE_NAME]}, which is not there")
    return [(file.parent / row[FILE_NAME], row[column]) for row in rows]


def _listed(data: Data, rows: list[tuple[Path, Path, Any]]) -> Listed:
    labels = [str(label) for *_, label in rows]
    whole = all(label.lstrip("-").isdigit() for label in labels)
    return Listed(rows[0][0], [image for _, image, _ in rows], np.array(labels, dtype=np.int64 if whole else object))


def _classes(data: Data, listed: Mapping[str | None, Listed]) -> tuple[str, ...]:
    kinds = {each.labels.dtype == np.int64: each.source for each in listed.values()}
    if len(kinds) > 1:
        raise refusal(data, "label_column", f"{kinds[True]} holds integers and {kinds[False]} names; expected one kind")
    everywhere = [each.labels for each in listed.values()]
    return tuple(data.classes or ()) or names_of_labels(data, np.concatenate(everywhere), everywhere)


def _split(data: Data, listed: Listed, classes: tuple[str, ...]) -> Split:
    return split_of_files(listed.files, numbered(data, listed.source, listed.labels, classes).tolist())
