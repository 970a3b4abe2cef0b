"""The sign of life of a running stage: a small file in its work folder, rewritten every few seconds. No torch.

A process that was killed leaves the file behind, silent; one that ended in any other way has removed it.
"""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from tqdm import tqdm

FILE = "running.json"
SPENT = "spent.json"  # seconds of the attempts before
BEAT_SECONDS = 5.0  # seconds between two signs
SILENCE_SECONDS = 60.0  # seconds after which a stage counts as dead; a shared disk may be late by half of that


class Bar(tqdm):  # type: ignore[type-arg]  # generic for the type checker alone
    """A progress bar that counts in a log file too, where tqdm shows nothing and does not count."""

    def update(self, n: float | None = 1) -> bool | None:
        """Count `n` more."""
        if self.disable:
            self.n += n or 0
            return None
        return super().update(n)


class Progress:
    """How far a stage is: the last of the progress bars that it has opened, and how many there were before."""

    def __init__(self) -> None:
        self._bar: Bar | None = None
        self._about: dict[str, Any] = {"part": -1}
        self._began = self._bar_began = time.monotonic()

    def open(self, kind: str, *, total: int, unit: str, initial: int = 0) -> Bar:
        """Return a new bar with ETA on a terminal, silent elsewhere, and follow it."""
        self._bar = Bar(total=total, initial=initial, unit=unit, desc=kind, disable=None, leave=False)
        self._bar_began = time.monotonic()
        self._about = {"part": self._about["part"] + 1, "unit": unit, "total": total, "initial": initial}
        return self._bar

    def row(self) -> dict[str, Any]:
        """Return seconds since the start and, of the bar, its number from 0, unit, counts and units per second."""
        now = time.monotonic()
        row: dict[str, Any] = {"seconds": round(now - self._began, 1)}
        if self._bar is None:
            return row
        done = self._bar.n
        speed = (done - self._about["initial"]) / max(now - self._bar_began, 1e-3)
        return row | self._about | {"done": done, "speed": round(speed, 4)}


@contextlib.contextmanager
def beating(file: Path, progress: Progress, every: float = BEAT_SECONDS) -> Iterator[None]:
    """Keep a stage's sign of life up to date in a thread of its own, and remove it at the end."""
    stop = threading.Event()
    who = {"pid": os.getpid(), "host": socket.gethostname()}

    def beat() -> None:
        while True:
            with contextlib.suppress(OSError):  # a full or absent disk is the stage's to report
                _write(file, progress.row() | who)
            if stop.wait(every):
                return

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)


def read(file: Path, now: float) -> dict[str, Any] | None:
    """Return a stage's sign of life if it is running at the time `now` (seconds since 1970), else None.

    It runs if its last sign is fresh and, on this machine, if there is such a process.
    """
    if not (sign := _read(file)) or now - sign["written"] >= SILENCE_SECONDS:
        return None
    gone = sign["host"] == socket.gethostname() and not _exists(sign["pid"])
    return None if gone else sign


def spent(work: Path) -> float:
    """Return the seconds that earlier attempts at a stage took, with those of one that was killed, and note them."""
    total = 0.0
    with contextlib.suppress(OSError, ValueError):
        total += float(json.loads((work / SPENT).read_text()))
    total += float((_read(work / FILE) or {}).get("seconds", 0))
    note(work, total)
    return total


def note(work: Path, seconds: float) -> None:
    """Note for the next attempt what all have taken so far; a full disk costs this figure alone."""
    with contextlib.suppress(OSError):
        _write(work / SPENT, round(seconds, 2))


def left_behind(file: Path) -> str | None:
    """Return words about the process whose sign of life was never taken away, if there is one; it must be gone."""
    if not (sign := _read(file)):
        return None
    last = datetime.fromtimestamp(sign["written"]).isoformat(" ", "seconds")
    position = f" at {sign['done']:,.0f} of {sign['total']:,.0f} {sign['unit']}s" if sign.get("total") else ""
    who = f"process {sign.get('pid')} on {sign.get('host')}"
    return f"{who} exited without a message after {last}{position}: killed, out of memory, or the machine went down"


def _read(file: Path) -> dict[str, Any] | None:
    """Return a sign of life with the time at which it was written; None where there is none, or half of one."""
    try:
        sign: dict[str, Any] = json.loads(file.read_text())
        return sign | {"written": file.stat().st_mtime}
    except (OSError, ValueError):
        return None


def _write(file: Path, sign: object) -> None:
    """Replace the file in one step, without waiting for the disk: a lost sign is replaced by the next one."""
    partial = file.with_name(file.name + ".partial")
    partial.write_text(json.dumps(sign))
    os.replace(partial, file)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # signal 0 only asks
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # another user's
    return True
