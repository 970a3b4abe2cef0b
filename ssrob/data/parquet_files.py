"""The source `parquet`: encoded images and labels in files per split, Parquet or Arrow. Imports no torch."""

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from ssrob.config.data import Data
from ssrob.data.parquet_columns import Columns, columns_of, names_of_labels, numbered, stated_names
from ssrob.data.saved_datasets import check_complete, split_of_file, tables_below
from ssrob.data.split_names import TESTED, split_in
from ssrob.data.table_files import batches_of, column_of, rows_of, schema_of
from ssrob.data.types import UNLABELLED, DataError, Opened, OpenedTest, Pixels, Rows, Split, refusal


def parquet(data: Data) -> Opened:
    """Open the files that the patterns `train` and `test` match below `path`; reads labels and no image.

    The image column is binary (an encoded image) or a struct with a field `bytes` or `path`, the label column holds
    integers or names. Unlabelled data has no test split; neither has data whose `test` is an empty list.
    """
    train = _files(data, "train")
    test = _files(data, "test") if data.test and data.label_column is not None else []
    if both := set(train) & set(test):
        raise refusal(data, "test", f"{sorted(both)[0].name} is matched by train as well")
    classes, splits = _open(data, [files for files in (train, test) if files])
    return Opened(classes, *splits)


def parquet_for_testing(data: Data) -> OpenedTest:
    """Open the files that a model is tested on: those of `test`, else by name test, validation, or all there is."""
    if data.path is not None and data.path.is_file():
        groups: dict[str | None, list[Path]] = {None: [data.path]}
    else:
        groups = _by_split(data)
    chosen = next(split for split in (*TESTED, None, "train") if groups.get(split))
    files, others = groups.pop(chosen), [file for each in groups.values() for file in each]
    if chosen is not None and not _given(data):
        _check_one_folder(data, files, "test")
    classes, (split, *_) = _open(data, [files], names_from=others)
    root = data.path if data.path in (None, *files) or len(files) > 3 else ", ".join(file.name for file in files)
    notes = [f"test images: {len(split):,} in {root} ({len(files)} files)"]
    if chosen == "train":
        notes.append(f"warning: {data.path} holds no split but train: was the model trained on these images?")
    if others:
        shown = ", ".join(file.name for file in others[:4]) + (", ..." if len(others) > 4 else "")
        notes.append(f"left out: {len(others)} other files ({shown})")
    return OpenedTest(classes, split, tuple(notes))


def _check_one_folder(data: Data, files: list[Path], split: str) -> None:
    """Refuse a split in several folders, which hold different data sets, or one in several forms."""
    if len(folders := sorted({str(file.parent) for file in files})) > 1:
        raise refusal(data, "path", f"{split} images lie in {' and '.join(folders[:3])}; give the path of one of them")


def _given(data: Data) -> bool:
    return "test" in data.model_fields_set


def _by_split(data: Data) -> dict[str | None, list[Path]]:
    """Group the files by split: by the config's patterns where it has some, else by their names."""
    assert data.path is not None
    if not data.path.is_dir():
        raise refusal(data, "path", f"expected a folder or a file, found nothing at {data.path}")
    if _given(data) and data.test:
        return {"test": _files(data, "test")}
    if "train" in data.model_fields_set:
        return {"train": _files(data, "train")}
    groups: dict[str | None, list[Path]] = {}
    for file in tables_below(data.path):
        groups.setdefault(split_of_file(file, data.path), []).append(file)
    if not groups:
        raise refusal(data, "path", f"expected .parquet or .arrow files in {data.path}, found none")
    return groups


def _files(data: Data, field: Literal["train", "test"]) -> list[Path]:
    assert data.path is not None
    patterns: list[str] = getattr(data, field)
    if not data.path.is_dir():
        raise refusal(data, "path", f"expected a folder, found no folder at {data.path}")
    if not patterns:
        raise refusal(data, field, "expected at least one file pattern, found none")
    files: set[Path] = set()
    for pattern in patterns:
        try:
            matched = {file for file in data.path.glob(pattern) if file.is_file()}
        except (ValueError, NotImplementedError) as error:
            raise refusal(data, field, f"{pattern!r} is no file pattern relative to path: {error}") from None
        if not matched and patterns == Data.model_fields[field].default:
            matched = set(_usual(data, data.path, field))
        if not matched:
            names = sorted(entry.name for entry in data.path.iterdir())
            shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
            hint = "; write 'test: []' to take test_share of train" if field == "test" else ""
            raise refusal(data, field, f"no file matches {pattern!r} in {data.path}, which holds: {shown}{hint}")
        files |= matched
    return sorted(files)


def _usual(data: Data, path: Path, field: Literal["train", "test"]) -> list[Path]:
    """Return the files of a split by Hugging Face's names: in folders, and validation where there is no test."""
    named = [(split_of_file(file, path) or split_in(path.name), file) for file in tables_below(path)]
    for split in TESTED if field == "test" else ("train",):
        if files := [file for each, file in named if each == split]:
            _check_one_folder(data, files, field)
            return files
    return []


def _open(data: Data, groups: list[list[Path]], names_from: Sequence[Path] = ()) -> tuple[tuple[str, ...], list[Split]]:
    """Open groups of files; returns class names and a split for each. `names_from`: where else names may stand."""
    check_complete(data, (file for group in groups for file in group))
    columns = columns_of(data, {file: schema_of(file) for group in groups for file in group})
    raw = {file: _labels(data, file, columns[file]) for file in columns}
    classes = stated_names(data, {file: each.stated for file, each in columns.items()})
    if not classes and names_from and data.label_column is not None:
        others = columns_of(data, {file: schema_of(file) for file in names_from})
        classes = stated_names(data, {file: each.stated for file, each in others.items()})
        raw |= {file: _labels(data, file, each) for file, each in others.items() if each.named and not classes}
    if not classes and data.label_column is not None:
        classes = names_of_labels(data, np.concatenate([raw[file] for file in groups[0]]), raw.values())
    splits = []
    for group in groups:
        labels = np.concatenate([numbered(data, file, raw[file], classes) for file in group])
        splits.append(
            Split(labels, functools.partial(_read, [(file, columns[file].image, len(raw[file])) for file in group]))
        )
    return classes, splits


def _labels(data: Data, file: Path, columns: Columns) -> Any:
    """Read the label column, (N,) int64 or strings."""
    if columns.label is None:
        return np.full(rows_of(file), UNLABELLED, dtype=np.int64)
    column = column_of(file, columns.label, pa.string() if columns.named else pa.int64())
    if column.null_count:
        row = column.to_pylist().index(None)
        raise refusal(data, "label_column", f"expected a label in every row of {file}, found none in row {row}")
    return column.to_numpy()


def _read(files: list[tuple[Path, str, int]], rows: Rows) -> Iterator[tuple[str, bytes | Pixels]]:
    """Yield the encoded images of ascending rows, counted from 0 over all files; opens no other file."""
    before = 0
    for file, column, count in files:
        first, last = np.searchsorted(rows, [before, before + count])
        if first < last:
            yield from _read_file(file, column, rows[first:last] - before)
        before += count


def _read_file(file: Path, column: str, rows: Rows) -> Iterator[tuple[str, bytes | Pixels]]:
    """Yield the encoded images of a file's ascending rows; reads the row groups that hold them."""
    for start, images in batches_of(file, column, rows):
        first, last = np.searchsorted(rows, [start, start + len(images)])
        for row in rows[first:last]:
            where = f"{file}: row {row}"
            yield where, _content(images[row - start].as_py(), file, where)


def _content(stored: Any, file: Path, where: str) -> bytes:
    """Return an encoded image, as it is stored or as the file that it names."""
    content, name = (stored.get("bytes"), stored.get("path")) if isinstance(stored, dict) else (stored, None)
    if content is not None:
        return bytes(content)
    if name is None:
        raise DataError(f"{where}: holds no image bytes")
    try:
        return Path(file.parent, name).read_bytes()
    except OSError as error:
        raise DataError(f"{where}: names an image that cannot be read ({name}: {error.strerror})") from error
