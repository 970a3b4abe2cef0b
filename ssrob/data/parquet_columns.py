"""Which columns of parquet files hold images and labels, and what the classes are called. Imports no torch."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ssrob.config.data import Data
from ssrob.data.saved_datasets import class_names, stated_in_folder
from ssrob.data.types import DataError, Rows, refusal

USUAL = {"image_column": ("image", "img"), "label_column": ("label", "labels", "fine_label")}


@dataclass(frozen=True)
class Columns:
    """The columns of one file; label None: unlabelled. named: labels are names. stated: class names in its schema."""

    image: str
    label: str | None
    named: bool = False
    stated: tuple[str, ...] = ()


def columns_of(data: Data, schemas: Mapping[Path, Any]) -> dict[Path, Columns]:
    """Find the columns of every file and check their types; a column not named goes by common names."""
    columns = {file: _columns(data, file, schema) for file, schema in schemas.items()}
    kinds = {each.named: file for file, each in columns.items()}
    if len(kinds) > 1:
        raise refusal(data, "label_column", f"{kinds[False]} holds integers and {kinds[True]} names; expected one kind")
    return columns


def _columns(data: Data, file: Path, schema: Any) -> Columns:
    image = _column(data, "image_column", file, schema)
    kind = schema.field(image).type
    inner = kind
    if pa.types.is_struct(kind) and (field := next((n for n in ("bytes", "path") if kind.get_field_index(n) >= 0), "")):
        inner = kind.field(field).type if field == "bytes" else pa.binary()
    if not (pa.types.is_binary(inner) or pa.types.is_large_binary(inner)):
        raise refusal(data, "image_column", f"expected binary or struct{{bytes, ...}} in {file}, found {kind}")
    if data.label_column is None:
        return Columns(image, None)
    label = _column(data, "label_column", file, schema)
    kind = schema.field(label).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    named = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if not (named or pa.types.is_integer(kind)):
        raise refusal(data, "label_column", f"expected integers or names in {file}, found {kind}")
    return Columns(image, label, named, _stated(file, schema, label))


def _column(data: Data, field: str, file: Path, schema: Any) -> str:
    asked: str = getattr(data, field)
    if asked in schema.names:
        return asked
    usual = [name for name in USUAL[field] if name in schema.names] if field not in data.model_fields_set else []
    if not usual:
        raise refusal(data, field, f"{file} has no column {asked!r}; it has: {', '.join(schema.names)}")
    return usual[0]


def stated_names(data: Data, stated: Mapping[Path, tuple[str, ...]]) -> tuple[str, ...]:
    """Return the config's class names, else those that the files state, which must agree; else none."""
    if data.label_column is None:
        return ()
    named = {file: names for file, names in stated.items() if names}
    one = next(iter(named), None)
    for other, names in named.items():
        if one is not None and names != named[one] and (data.classes is None or set(names) == set(named[one])):
            raise refusal(data, "classes", _difference(one, other, named))
    if data.classes is not None:
        return tuple(data.classes)
    return next(iter(named.values()), ())


def _difference(one: Path, other: Path, stated: Mapping[Path, tuple[str, ...]]) -> str:
    """Say how two files count their classes; other names may be other words for the same, another order cannot."""
    mine, theirs = stated[one], stated[other]
    if set(mine) == set(theirs):
        place = next(number for number in range(len(mine)) if mine[number] != theirs[number])
        means = f"class {place} is {mine[place]!r} in {one} and {theirs[place]!r} in {other}"
        return f"{means}: their labels do not mean the same; write one of them anew in the order of the other"
    return f"{one} and {other} state different class names; give them in the config"


def names_of_labels(data: Data, labels: Any, everywhere: Iterable[Any]) -> tuple[str, ...]:
    """Return class names where none are stated: labels that are names, sorted, from everywhere; else the numbers."""
    if labels.dtype != np.int64:
        return tuple(sorted(set[str]().union(*(each.tolist() for each in everywhere))))
    if not len(labels):
        raise refusal(data, "path", "expected at least one row, found files without any")
    highest = int(labels.max(initial=0))
    if highest >= len(labels):
        raise refusal(data, "label_column", f"labels must be 0..K-1, found {highest} among {len(labels)} rows")
    return tuple(map(str, range(highest + 1)))


def numbered(data: Data, file: Path, labels: Any, classes: tuple[str, ...]) -> Rows:
    """Return labels as numbers, (N,) int64: names by their place among the classes."""
    if labels.dtype == np.int64:
        return np.asarray(labels, dtype=np.int64)
    place = {name: number for number, name in enumerate(classes)}
    if strange := sorted(set(labels.tolist()) - set(classes)):
        raise refusal(data, "classes", f"{file} has the label {strange[0]!r}; known: {', '.join(classes)}")
    return np.asarray([place[name] for name in labels.tolist()], dtype=np.int64)


def _stated(file: Path, schema: Any, column: str) -> tuple[str, ...]:
    """Read class names from the schema: key `classes` (JSON or commas), or Hugging Face features."""
    metadata = schema.metadata or {}
    try:
        if b"classes" in metadata:
            text = metadata[b"classes"].decode()
            names = json.loads(text) if text.startswith("[") else text.split(",")
            return tuple(str(name).strip() for name in names)
        features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        return class_names(features, column) or stated_in_folder(file, column)
    except (ValueError, AttributeError) as error:
        raise DataError(f"{file}: its metadata states class names that cannot be read ({error})") from error
