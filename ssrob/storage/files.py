"""Files that a kill or a power cut leaves whole: the old content or the new one, never half of it. Imports no torch."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


@contextlib.contextmanager
def replacing(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Write a file beside `path` and put it in its place when its content is on the disk.

    What could not be written is taken away, which on a full disk makes room for other files. An OSError names `path`.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open(mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        sync(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_writable(folder: Path, what: str, remedy: str) -> None:
    """Raise a ValueError before work starts if nothing can be written to a folder, or it cannot be made.

    what: the setting or option that named it. remedy: what to do instead.
    """
    there = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    if not there.is_dir():
        raise ValueError(f"{what}: expected a folder, found the file {there}")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"{what}: {there} cannot be written to; {remedy}")


def user_cache(inside: str, *, filled: bool = False) -> Path:
    """Return a folder for downloads or caches of the user, in ``$XDG_CACHE_HOME`` or ``.cache`` of their home.

    Where that cannot be written, as in some containers, in a folder of theirs in the system's temporary folder.
    filled: what is there already will do, even if nothing can be added to it.
    """
    usual = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), inside)
    if filled and usual.is_dir() and any(usual.iterdir()):
        return usual
    if usual.is_absolute():  # not "~/.cache", which is what is left of a user without a home
        with contextlib.suppress(ValueError, OSError):
            check_writable(usual, "", "")
            usual.mkdir(parents=True, exist_ok=True)
            return usual
    instead = Path(tempfile.gettempdir(), f"ssrob-cache-{os.getuid()}")
    instead.mkdir(mode=0o700, exist_ok=True)
    if instead.stat().st_uid != os.getuid():
        raise OSError(f"{instead}: belongs to another user; set XDG_CACHE_HOME to a folder of yours")
    return instead / inside
