"""A stage runs once at a time, whoever starts it: a lock that the kernel frees when its holder dies. No torch.

Two workflows on one results folder, or a workflow that was killed and started again while its jobs went on, meet here:
the second one waits, and then finds the stage done.
"""

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ssrob.storage import heartbeat

LOCK = "lock"  # in the stage's work folder
POLL_SECONDS = 1.0  # seconds between two looks where the disk has no locks


@contextlib.contextmanager
def claimed(work: Path, say: Callable[[str], object]) -> Iterator[None]:
    """Hold the work folder of a stage; waits while another process has it, and says so."""
    handle = _take(work, say)
    try:
        with contextlib.suppress(OSError):  # on a full disk it is held without a name
            os.truncate(handle, 0)
            os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def only_process(file: Path, busy: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Hold a lock file, or a folder that is there, which the kernel frees when its holder ends in any way.

    While another process holds it, `busy` is called first: it raises, or says that this one waits.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(file, os.O_RDONLY if file.is_dir() else os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _flock(handle, busy)
        yield
    finally:
        os.close(handle)


def _flock(handle: int, busy: Callable[[], object]) -> None:
    """Lock an open file; call `busy` before waiting for another process that has it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        busy()
        fcntl.flock(handle, fcntl.LOCK_EX)


def _take(work: Path, say: Callable[[str], object]) -> int:
    while True:
        work.mkdir(parents=True, exist_ok=True)
        handle = os.open(work / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(handle, work, say)
            if _still_there(handle, work):  # its holder takes the folder away when the stage is done
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _lock(handle: int, work: Path, say: Callable[[str], object]) -> None:
    def busy() -> None:
        holder = os.pread(handle, 200, 0).decode(errors="replace") or "another process"
        say(f"is run by {holder}, of another workflow or of one that was killed; waiting until it is done")

    try:
        _flock(handle, busy)
    except OSError:  # a shared disk without locks: the sign of life decides, some seconds late
        if heartbeat.read(work / heartbeat.FILE, time.time()) is not None:
            say("is run by another process; waiting until it is done")
        while heartbeat.read(work / heartbeat.FILE, time.time()) is not None:
            time.sleep(POLL_SECONDS)


def _still_there(handle: int, work: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), (work / LOCK).stat())
    except FileNotFoundError:
        return False
