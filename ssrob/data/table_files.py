"""Reading one file of a table, whichever format it has: Parquet, or Arrow as `datasets` saves it. Imports no torch."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ssrob.data.types import DataError, Rows
from ssrob.formatting import one_line

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
        return int(table.metadata.num_rows if isinstance(table, pq.ParquetFile) else table.num_rows)


def column_of(file: Path, column: str, kind: Any) -> Any:
    """Read a whole column as a type, such as `pa.int64()`."""
    with _opened(file) as table:
        whole = table.read(columns=[column]) if isinstance(table, pq.ParquetFile) else table
        return whole.column(column).cast(kind)


def batches_of(file: Path, column: str, rows: Rows) -> Iterator[tuple[int, Any]]:
    """Yield a column in parts of at most `BATCH` rows, each with the number of its first row.

    Parts, and row groups of a Parquet file, that hold none of the ascending `rows` are not read.
    """

    def wanted(start: int, count: int) -> bool:
        first, last = np.searchsorted(rows, [start, start + count])
        return bool(first < last)

    with _opened(file) as table:
        if not isinstance(table, pq.ParquetFile):
            starts = (start for start in range(0, table.num_rows, BATCH) if wanted(start, BATCH))
            yield from ((start, table.column(column).slice(start, BATCH)) for start in starts)
            return
        start = 0
        for group in range(table.num_row_groups):
            count = table.metadata.row_group(group).num_rows
            before, start = start, start + count
            batches = table.iter_batches(BATCH, [group], [column]) if wanted(before, count) else ()
            for batch in batches:
                yield before, batch.column(0)
                before += len(batch)


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """Open a Parquet file, or an Arrow file as a table whose values stay on the disk: it is mapped into memory."""
    try:
        if file.suffix.lower() == ".parquet":
            with pq.ParquetFile(file) as table:
                yield table
        else:
            with pa.memory_map(str(file)) as source, _arrow_reader(source) as reader:
                yield reader.read_all()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: not a whole {file.suffix[1:]} file ({one_line(error)}); copy it again") from error


def _arrow_reader(source: Any) -> Any:
    size = source.size()
    start, end = source.read_at(6, 0) if size else b"", source.read_at(8, max(0, size - 8)) if size else b""
    if start == b"ARROW1":
        return pa.ipc.open_file(source)
    if end != _END_OF_STREAM:
        raise pa.ArrowInvalid("its end is missing")
    return pa.ipc.open_stream(source)
