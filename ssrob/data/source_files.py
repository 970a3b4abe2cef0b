"""Which files a data source lies in, so that a change of them is seen without decoding one. Imports no torch."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

from ssrob.config.data import Data
from ssrob.registry.sources import SOURCES


class SourceFiles(TypedDict):
    """How many files, how many bytes, and a hash of their names, sizes and times."""

    files: int
    bytes: int
    listing: str


def source_files(data: Data) -> SourceFiles | None:
    """List the files of a source; None for one that comes with a library, or whose files are not there."""
    row = SOURCES[data.source]
    if row.known is not None or data.path is None or not data.path.exists():
        return None
    digest, count, size = hashlib.blake2b(digest_size=16), 0, 0
    for name, length, changed in sorted(_files(data.path, row.endings)):
        digest.update(f"{name}\0{length}\0{changed}\n".encode(errors="surrogateescape"))
        count, size = count + 1, size + length
    return {"files": count, "bytes": size, "listing": digest.hexdigest()}


def _files(path: Path, endings: tuple[str, ...]) -> Iterator[tuple[str, int, int]]:
    """Yield name, bytes and time of change (ns) of every file: of one, or of those in a folder at any depth."""
    if path.is_file():
        yield path.name, path.stat().st_size, path.stat().st_mtime_ns
    seen = set[str]()
    for base, folders, names in os.walk(path, followlinks=True):
        folders[:] = [each for each in folders if not each.startswith(".")]
        if (real := os.path.realpath(base)) in seen:
            folders.clear()
            continue
        seen.add(real)
        inside = "" if base == str(path) else os.path.relpath(base, path)
        for name in names:
            if (not endings or name.lower().endswith(endings)) and not name.startswith("."):
                with contextlib.suppress(OSError):  # a link to nothing
                    status = os.stat(os.path.join(base, name))
                    yield os.path.join(inside, name), status.st_size, status.st_mtime_ns
