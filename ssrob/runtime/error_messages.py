"""What went wrong with a stage, in one message that says what helps. Finished work is never lost by any of these."""

import errno
from pathlib import Path

import torch

from ssrob.formatting import first_line
from ssrob.planning.stage import Stage
from ssrob.registry.stages import STAGES
from ssrob.runtime import checkpoint

GOES_ON = "run the workflow again: it goes on from where it was"
DISK = {
    errno.ENOSPC: f"the disk is full; make room and {GOES_ON}",
    errno.EDQUOT: f"the quota of the disk is used up; make room and {GOES_ON}",
    errno.EROFS: "the disk is read-only; make it writable or set `results` to another folder",
    errno.EACCES: "this user may not write there; change the permissions or set `results` to another folder",
    errno.EIO: f"the disk reports an error; look at its state before you {GOES_ON}",
}


def describe(error: BaseException, stage: Stage, work: Path) -> str:
    """Return the error in words, with the advice that helps; `work` is the stage's folder of unfinished things."""
    if isinstance(error, OSError) and error.errno in DISK:
        return f"{error.filename or work}: {DISK[error.errno]}"
    if isinstance(error, torch.OutOfMemoryError):
        less = STAGES[stage.kind].less_memory
        others = "`nvidia-smi` shows whether other jobs use the same GPU; if it is full without them, try"
        return f"the GPU has too little free memory. {others} {less}. ({first_line(error)})"
    if isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error):
        return f"the machine has too little memory; run fewer jobs at once (`--jobs`, `--cores`) and {GOES_ON}"
    if isinstance(error, ArithmeticError):
        return f"{error}; {_last_checkpoint(work)}"
    return f"{type(error).__name__}: {error}"


def _last_checkpoint(work: Path) -> str:
    file = work / "checkpoint.pt"
    try:
        return f"the last good checkpoint is of step {checkpoint.load(file)['step']}: {file}"
    except (OSError, checkpoint.DamagedCheckpoint, KeyError):
        return "there is no earlier checkpoint"
