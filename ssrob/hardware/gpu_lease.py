"""GPUs for jobs that share a machine: advisory leases that the kernel frees when their holder dies. No torch.

Snakemake limits how many GPU jobs run but hands out no index. A job takes the lock files of free indices and sets
``CUDA_VISIBLE_DEVICES`` to them before torch is imported. Within a job of SLURM the scheduler has done that already,
unless it gave the job more GPUs than one stage uses: then its stages lease from those.

    <index>.lock          held by a job that needs the GPU alone; shared by jobs that let others run beside them
    <index>-<slot>.lock   one for each job that may be beside others
    queue-<indices>.lock  held by the job whose turn it is, so that one that needs several GPUs is not always overtaken
"""

import contextlib
import fcntl
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ssrob.storage.lock import only_process

WAIT_SECONDS = 0.5
JOBS_PER_GPU = "SSROB_JOBS_PER_GPU"


def device_name(name: str) -> str:
    """Return the name of a device; raises ValueError unless it is auto, cpu, cuda or cuda:N."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise ValueError(f"device: expected auto, cpu, cuda or cuda:N, found {name!r}")
    return name


def visible() -> list[str]:
    """Return the indices of the GPUs that this process may use; empty on a machine without any."""
    value = os.environ.get("CUDA_VISIBLE_DEVICES")
    if value is not None:
        return [index for index in value.split(",") if index.strip() not in ("", "-1")]
    devices = [path for path in Path("/dev").glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name)]
    # CUDA counts from 0 what a container was given, whose files keep the numbers that they have outside.
    return [str(index) for index in range(len(devices))]


def jobs_per_gpu(configured: int = 1) -> int:
    """Return how many jobs may share a GPU: from the environment variable if it is set, else from the config."""
    value = os.environ.get(JOBS_PER_GPU, str(configured))
    if not value.isdecimal() or int(value) < 1:
        raise ValueError(f"{JOBS_PER_GPU} must be a whole number >= 1, found {value!r}")
    return int(value)


@contextlib.contextmanager
def lease(count: int = 1, jobs: int = 1, folder: Path | None = None) -> Iterator[list[str]]:
    """Hold `count` GPUs, all or none, for as long as the context lasts; waits for free ones.

    jobs: how many jobs may be on each of them at once, this one included. Gives the indices; none without GPUs, or
    within a SLURM job that has no more than these. Raises ValueError if there are fewer GPUs than are asked for.
    """
    indices, slurm = visible(), os.environ.get("SLURM_JOB_ID")
    if not indices or not count or (slurm and len(indices) <= count):
        yield []
        return
    if count > len(indices):
        raise ValueError(f"{count} GPUs are asked for, {len(indices)} are visible here ({', '.join(indices)})")
    job = f"-{slurm}" if slurm else ""  # each job counts its own GPUs from 0
    folder = folder or Path(tempfile.gettempdir()) / f"ssrob-gpus-{os.getuid()}{job}"
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        taken = _wait(folder, indices, count, jobs, held)
        held.enter_context(_environment("CUDA_VISIBLE_DEVICES", ",".join(taken)))
        yield taken


def _wait(folder: Path, indices: list[str], count: int, jobs: int, held: contextlib.ExitStack) -> list[str]:
    """Wait for our turn, then until `count` GPUs are free at once; no GPU is held while waiting."""
    with only_process(folder / f"queue-{'-'.join(indices).replace('/', '_')}.lock"):
        while True:
            with contextlib.ExitStack() as tried:
                taken: list[str] = []
                for index in indices:
                    if len(taken) < count and _take(folder, index, jobs, tried):
                        taken.append(index)
                if len(taken) == count:
                    held.push(tried.pop_all())
                    return taken
            time.sleep(WAIT_SECONDS)


def _take(folder: Path, index: str, jobs: int, held: contextlib.ExitStack) -> bool:
    """Take a GPU alone, or one of its slots beside other jobs that allow it."""
    with contextlib.ExitStack() as tried:
        if not _lock(folder / f"{index}.lock", fcntl.LOCK_EX if jobs == 1 else fcntl.LOCK_SH, tried):
            return False
        slots = (folder / f"{index}-{slot}.lock" for slot in range(jobs))
        if jobs > 1 and not any(_lock(slot, fcntl.LOCK_EX, tried) for slot in slots):
            return False
        held.push(tried.pop_all())
    return True


def _lock(file: Path, kind: int, held: contextlib.ExitStack) -> bool:
    handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return False
    held.callback(os.close, handle)
    return True


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
