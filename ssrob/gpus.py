"""One GPU per job on a shared machine: an advisory lease that the kernel frees when its holder dies. No torch.

Snakemake limits how many GPU jobs run but hands out no index. A job takes the lock file of a free index and sets
``CUDA_VISIBLE_DEVICES`` to it before torch is imported. Under SLURM the scheduler has done that already.
"""

import contextlib
import fcntl
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

WAIT_SECONDS = 0.5


def visible() -> list[str]:
    """Return the indices of the GPUs that this process may use; empty on a machine without any."""
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    if told is not None:
        return [index for index in told.split(",") if index.strip() not in ("", "-1")]
    devices = (re.fullmatch(r"nvidia(\d+)", path.name) for path in Path("/dev").glob("nvidia*"))
    return sorted(match.group(1) for match in devices if match)


@contextlib.contextmanager
def lease(folder: Path | None = None) -> Iterator[str | None]:
    """Hold one GPU for as long as the context lasts; waits for a free one. Gives its index, or None without GPUs."""
    indices = visible()
    if not indices or "SLURM_JOB_ID" in os.environ:
        yield None
        return
    folder = folder or Path(tempfile.gettempdir()) / f"ssrob-gpus-{os.getuid()}"
    folder.mkdir(parents=True, exist_ok=True)
    index, handle = _take(folder, indices)
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = index
    try:
        yield index
    finally:
        os.close(handle)
        if before is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = before


def _take(folder: Path, indices: list[str]) -> tuple[str, int]:
    while True:
        for index in indices:
            handle = os.open(folder / f"{index}.lock", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(handle)
            else:
                return index, handle
        time.sleep(WAIT_SECONDS)
