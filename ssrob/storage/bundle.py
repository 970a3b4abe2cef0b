"""Files that belong together, as a folder, a tar or a zip. Unpacking runs nothing and writes nothing outside."""

import contextlib
import errno
import functools
import lzma
import shutil
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ssrob.storage.files import check_writable
from ssrob.storage.store import StoreError

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip")
OTHERS = (".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")  # endings of archives that are not written
# What an archive raises that is cut short, damaged, encrypted or packed by a method that Python does not know.
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, RuntimeError)
UNPACKED = ".unpacked-"  # beginning of the folder in which an archive is unpacked
MODE = 0o644  # readable by others: a stage's own files may not be
LEVEL = 3  # of gzip: weights hardly shrink, and a higher level takes many times longer

Files = Mapping[str, Path | str]  # place in the bundle -> a file, or a text


def write(files: Files, to: Path) -> None:
    """Write a folder, or an archive if the name ends like one; a kill leaves nothing under the final name."""
    check_place(to)
    to.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{to.name}-", dir=to.parent))
    try:
        if to.name.endswith(ARCHIVES):
            _pack(files, partial / to.name, partial / "text")
        else:
            _copy(files, partial / to.name)
        (partial / to.name).rename(to)
    finally:
        shutil.rmtree(partial)


def check_place(to: Path) -> None:
    """Refuse a place where something is already, or where nothing can be written."""
    if to.name.endswith(OTHERS) and not to.name.endswith(ARCHIVES):
        raise StoreError(f"{to}: expected a folder or a name that ends in {', '.join(ARCHIVES)}")
    if to.exists() or to.is_symlink():
        raise StoreError(f"{to}: already exists; name another place with --to, or remove it")
    check_writable(to.parent, str(to), "name another place with --to")


@contextlib.contextmanager
def opened(source: Path, near: Path) -> Iterator[Path]:
    """Give a bundle as a folder; an archive is unpacked below `near` for as long as the context lasts."""
    if source.is_dir():
        yield source
        return
    if not source.is_file():
        raise StoreError(f"{source}: no such folder or archive")
    near.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=UNPACKED, dir=near) as folder:
        try:
            _unpack(source, Path(folder))
        except (*DAMAGED, ValueError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # the disk, not the archive
                raise
            kinds = ", ".join(ARCHIVES)
            raise StoreError(f"{source}: not an archive that can be unpacked ({error}); known: {kinds}") from None
        yield Path(folder)


def _copy(files: Files, folder: Path) -> None:
    for place, content in files.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            (folder / place).write_text(content)
        else:
            shutil.copy2(content, folder / place)
        (folder / place).chmod(MODE)


def _pack(files: Files, archive: Path, text: Path) -> None:
    """Write an archive in one pass; what is not a file yet goes through the file `text`."""
    inside = archive.name.removesuffix(next(end for end in ARCHIVES if archive.name.endswith(end)))
    with contextlib.ExitStack() as stack:
        add: Callable[[Path, str], object]
        if archive.name.endswith(".zip"):
            add = stack.enter_context(zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED)).write
        elif archive.name.endswith("gz"):
            add = functools.partial(
                stack.enter_context(tarfile.open(archive, "w:gz", compresslevel=LEVEL)).add, filter=_readable
            )
        else:
            add = functools.partial(stack.enter_context(tarfile.open(archive, "w")).add, filter=_readable)
        for place, content in files.items():
            if isinstance(content, str):
                text.write_text(content)
            add(text if isinstance(content, str) else content, f"{inside}/{place}")


def _readable(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mode = MODE
    return member


def _unpack(archive: Path, folder: Path) -> None:
    if tarfile.is_tarfile(archive):  # asked first: a tar may hold a zip, which makes it look like one
        with tarfile.open(archive) as opened_tar:
            opened_tar.extractall(folder, filter="data")  # refuses links and names that lead outside
    else:
        with zipfile.ZipFile(archive) as opened_zip:
            opened_zip.extractall(folder)  # drops what would lead outside from a name
