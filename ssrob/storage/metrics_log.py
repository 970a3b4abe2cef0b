"""What a running stage records: one JSON object per line, appended as it happens; a table at the end. No torch."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Self

import pandas as pd

from ssrob.storage.tables import RECORDS

LINE_BYTES = 4096  # more than two lines ever have


class Records:
    """An append-only file of {step, epoch, metric, value} lines that can be cut back to a known length."""

    def __init__(self, path: Path, length: int = 0):
        self.path = path
        path.touch()
        os.truncate(path, min(length, path.stat().st_size))
        with path.open("rb") as kept:
            self._digest = hashlib.file_digest(kept, "sha256")
        self._file: IO[bytes] = path.open("ab")

    def write(self, step: int, epoch: float, metrics: Mapping[str, float]) -> None:
        """Append one line per metric."""
        for metric, value in metrics.items():
            row = {"step": step, "epoch": epoch, "metric": metric, "value": value}
            line = json.dumps(row).encode() + b"\n"
            self._file.write(line)
            self._digest.update(line)

    def flush(self) -> int:
        """Put everything on disk and return the file's length in bytes, for `length` of a later opening."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    @property
    def sha256(self) -> str:
        """The checksum of everything written, that of a file cut back to what `flush` returned last."""
        return self._digest.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def begins_with(path: Path, length: int, sha256: str) -> bool:
    """Return whether the first bytes of a file of records are those that had this checksum."""
    try:
        with path.open("rb") as file:
            return hashlib.sha256(file.read(length)).hexdigest() == sha256
    except FileNotFoundError:
        return hashlib.sha256(b"").hexdigest() == sha256


def read_records(path: Path) -> Iterator[dict[str, float | str]]:
    """Read the complete lines; a line that is still being written is left out."""
    if not path.is_file():
        return
    with path.open() as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)


def last_record(path: Path) -> dict[str, Any] | None:
    """Return the last complete line without reading the rest; None if there is none, or a crash tore it."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LINE_BYTES))
            complete, _, _ = file.read().rpartition(b"\n")
        last: dict[str, Any] = json.loads(complete.rpartition(b"\n")[2])
    except (OSError, ValueError):
        return None
    return last


def records_table(path: Path) -> pd.DataFrame:
    """Return the records as a table with the columns of `tables.RECORDS`."""
    return pd.DataFrame(list(read_records(path)), columns=list(RECORDS))
