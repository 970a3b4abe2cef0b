"""The source `parquet`: encoded images and integer labels in files per split. Imports no torch."""

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ssrob.config.study import Data
from ssrob.data.types import UNLABELLED, DataError, Opened, Pixels, Rows, Split, refusal

_BATCH = 1024  # rows held in memory while reading


def parquet(data: Data) -> Opened:
    """Open the files that the patterns `train` and `test` match below `path`; reads labels and no image.

    The image column is binary (an encoded image) or a struct with a field `bytes`, the label column holds
    integers. Unlabelled data has no test split; neither has data whose `test` is an empty list.
    """
    train = _files(data, "train")
    test = _files(data, "test") if data.test and data.label_column is not None else []
    if both := set(train) & set(test):
        raise refusal(data, "test", f"{sorted(both)[0].name} is matched by train as well")
    schemas = {file: _checked_schema(data, file) for file in [*train, *test]}
    splits = [_split(data, files) for files in (train, test) if files]
    return Opened(_class_names(data, schemas, splits[0].labels), *splits)


def _files(data: Data, field: Literal["train", "test"]) -> list[Path]:
    assert data.path is not None
    patterns: list[str] = getattr(data, field)
    if not data.path.is_dir():
        raise refusal(data, "path", f"expected a folder, found no folder at {data.path}")
    if not patterns:
        raise refusal(data, field, "expected at least one file pattern, found none")
    found: set[Path] = set()
    for pattern in patterns:
        try:
            matched = {file for file in data.path.glob(pattern) if file.is_file()}
        except (ValueError, NotImplementedError) as error:
            raise refusal(data, field, f"{pattern!r} is no file pattern relative to path: {error}") from None
        if not matched:
            names = sorted(entry.name for entry in data.path.iterdir())
            shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
            hint = "; write 'test: []' to take test_share of train" if field == "test" else ""
            raise refusal(data, field, f"no file matches {pattern!r} in {data.path}, which holds: {shown}{hint}")
        found |= matched
    return sorted(found)


def _checked_schema(data: Data, file: Path) -> Any:
    with _opened(file) as opened:
        schema = opened.schema_arrow
    for field in ("image_column", "label_column"):
        column = getattr(data, field)
        if column is not None and column not in schema.names:
            raise refusal(data, field, f"{file} has no column {column!r}; it has: {', '.join(schema.names)}")
    image = schema.field(data.image_column).type
    if pa.types.is_struct(image) and image.get_field_index("bytes") >= 0:
        image = image.field("bytes").type
    if not (pa.types.is_binary(image) or pa.types.is_large_binary(image)):
        raise refusal(data, "image_column", f"expected binary or struct{{bytes, ...}} in {file}, found {image}")
    if data.label_column is not None and not pa.types.is_integer(label := schema.field(data.label_column).type):
        raise refusal(data, "label_column", f"expected integers in {file}, found {label}")
    return schema


def _opened(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(file, error) from error


def _damaged(file: Path, error: Exception) -> DataError:
    return DataError(f"{file}: not a whole parquet file ({' '.join(str(error).split())[:160]}); copy it again")


def _split(data: Data, files: list[Path]) -> Split:
    labels = [_labels(data, file) for file in files]
    return Split(np.concatenate(labels), functools.partial(_read, files, data.image_column))


def _labels(data: Data, file: Path) -> Rows:
    with _opened(file) as opened:
        if data.label_column is None:
            return np.full(opened.metadata.num_rows, UNLABELLED, dtype=np.int64)
        try:
            column = opened.read(columns=[data.label_column]).column(0).cast(pa.int64())
        except (pa.ArrowException, OSError) as error:
            raise _damaged(file, error) from error
    if column.null_count:
        row = column.to_pylist().index(None)
        raise refusal(data, "label_column", f"expected a label in every row of {file}, found none in row {row}")
    labels: Rows = column.to_numpy()
    return labels


def _read(files: list[Path], column: str, rows: Rows) -> Iterator[tuple[str, bytes | Pixels]]:
    """Yield the encoded images of ascending rows, counted from 0 over all files."""
    before = 0
    for file in files:
        start = before
        for images in _batches(file, column):
            first, last = np.searchsorted(rows, [before, before + len(images)])
            for row in rows[first:last]:
                where, content = f"{file}: row {row - start}", images[row - before].as_py()
                if content is None:
                    raise DataError(f"{where}: column {column!r} holds no image bytes")
                yield where, content
            before += len(images)


def _batches(file: Path, column: str) -> Iterator[Any]:
    with _opened(file) as opened:
        try:
            for batch in opened.iter_batches(_BATCH, columns=[column]):
                images = batch.column(0)
                yield images.field("bytes") if pa.types.is_struct(images.type) else images
        except (pa.ArrowException, OSError) as error:
            raise _damaged(file, error) from error


def _class_names(data: Data, schemas: dict[Path, Any], labels: Rows) -> tuple[str, ...]:
    """Return the config's class names, else those the files state, else the labels as names."""
    if data.label_column is None:
        return ()
    if data.classes is not None:
        return tuple(data.classes)
    stated = {file: names for file, schema in schemas.items() if (names := _stated(file, schema, data.label_column))}
    if len(set(stated.values())) > 1:
        one = next(iter(stated))
        other = next(file for file in stated if stated[file] != stated[one])
        raise refusal(data, "classes", f"{one} and {other} state different class names; give them in the config")
    highest = int(labels.max(initial=0))
    if not stated and highest >= len(labels):
        raise refusal(data, "label_column", f"labels must be 0..K-1, found {highest} among {len(labels)} rows")
    return next(iter(stated.values()), None) or tuple(map(str, range(highest + 1)))


def _stated(file: Path, schema: Any, column: str) -> tuple[str, ...]:
    """Read class names from the schema: key `classes` (JSON or commas), or Hugging Face features."""
    metadata = schema.metadata or {}
    try:
        if b"classes" in metadata:
            text = metadata[b"classes"].decode()
            names = json.loads(text) if text.startswith("[") else text.split(",")
            return tuple(str(name).strip() for name in names)
        features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        return tuple(features.get(column, {}).get("names", ()))
    except (ValueError, AttributeError) as error:
        raise DataError(f"{file}: its metadata states class names that cannot be read ({error})") from error
