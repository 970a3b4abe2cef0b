"""Reading one file of a table, whichever format it has: Parquet, or Arrow as `datasets` saves it. Imports no torch."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ssrob.data.types import DataError, Rows

ENDINGS = (".parquet", ".arrow")
BATCH = 1024  # rows held in memory while reading
_END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"  # without it an Arrow stream was cut between two of its batches


def is_table(path: Path) -> bool:
    """Return whether a path is a file of one of the formats, by its ending."""
    return path.suffix.lower() in ENDINGS and path.is_file()


def schema_of(file: Path) -> Any:
    """Read the schema of a file: columns with their types, and metadata."""
    with _opened(file) as table:
        return table.schema_arrow if isinstance(table, pq.ParquetFile) else table.schema


def rows_of(file: Path) -> int:
    """Count the rows of a file."""
    with _opened(file) as table:
        if isinstance(table, pq.ParquetFile):
            return int(table.metadata.num_rows)
        return sum(batch.num_rows for batch in _arrow_batches(table))


def column_of(file: Path, column: str, kind: Any) -> Any:
    """Read a whole column as a type, such as `pa.int64()`."""
    with _opened(file) as table:
        if isinstance(table, pq.ParquetFile):
            return table.read(columns=[column]).column(0).cast(kind)
        chunks = [batch.column(column) for batch in _arrow_batches(table)]
        return pa.chunked_array(chunks, type=table.schema.field(column).type).cast(kind)


def batches_of(file: Path, column: str, rows: Rows) -> Iterator[tuple[int, Any]]:
    """Yield a column in parts of at most `BATCH` rows, each with the number of its first row.

    Row groups of a Parquet file that hold none of the ascending `rows` are not read.
    """
    start = 0
    with _opened(file) as table:
        for count, parts in _parts(table, column):
            if np.searchsorted(rows, start) < np.searchsorted(rows, start + count):
                before = start
                for part in parts():
                    yield before, part
                    before += len(part)
            start += count


def _parts(table: Any, column: str) -> Iterator[tuple[int, Callable[[], Iterator[Any]]]]:
    """Yield the number of rows of each part that can be read alone, and what reads it."""
    if isinstance(table, pq.ParquetFile):
        for group in range(table.num_row_groups):
            yield table.metadata.row_group(group).num_rows, functools.partial(_row_group, table, group, column)
        return
    for batch in _arrow_batches(table):
        yield batch.num_rows, functools.partial(_slices, batch.column(column))


def _row_group(table: pq.ParquetFile, group: int, column: str) -> Iterator[Any]:
    for batch in table.iter_batches(BATCH, row_groups=[group], columns=[column]):
        yield batch.column(0)


def _slices(whole: Any) -> Iterator[Any]:
    for start in range(0, len(whole), BATCH):  # they stay on the disk: the file is mapped into memory
        yield whole.slice(start, BATCH)


def _arrow_batches(reader: Any) -> Iterator[Any]:
    if isinstance(reader, pa.ipc.RecordBatchFileReader):
        yield from (reader.get_batch(number) for number in range(reader.num_record_batches))
    else:
        yield from reader


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        if file.suffix.lower() == ".parquet":
            with pq.ParquetFile(file) as table:
                yield table
        else:
            with pa.memory_map(str(file)) as source, _arrow_reader(source) as table:
                yield table
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:160]
        raise DataError(f"{file}: not a whole {file.suffix[1:]} file ({reason}); copy it again") from error


def _arrow_reader(source: Any) -> Any:
    size = source.size()
    start, end = source.read_at(6, 0) if size else b"", source.read_at(8, max(0, size - 8)) if size else b""
    if start == b"ARROW1":
        return pa.ipc.open_file(source)
    if end != _END_OF_STREAM:
        raise pa.ArrowInvalid("its end is missing")
    return pa.ipc.open_stream(source)
