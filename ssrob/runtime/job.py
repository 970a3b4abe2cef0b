"""One job of the workflow: a stage under its lock, with a GPU of its own, and a message if it fails.

Imports torch only when the stage has its GPU: torch looks for GPUs when it first needs one.
"""

import contextlib
import os
from collections.abc import Callable

from ssrob.config.plugins import import_plugins
from ssrob.hardware import gpu_lease
from ssrob.hardware.nodes import nodes
from ssrob.planning.stage import Stage
from ssrob.storage.lock import claimed
from ssrob.storage.store import Store

STOPPED = 143  # the exit code of a process that SIGTERM has ended


def run(stage: Stage, store: Store, device: str, say: Callable[[str], object]) -> int:
    """Run a stage and tell how it went; returns the exit code."""
    import_plugins(stage.settings.get("plugins", []), stage.path)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with contextlib.ExitStack() as held:
        try:
            if nodes().rank == 0:  # the others help a stage that the first has claimed
                held.enter_context(claimed(store.work(stage.path), lambda message: say(f"{stage.path} {message}")))
            asked = stage.settings.get("device", "auto") if device == "auto" else device
            wanted = stage.gpus // nodes().count if asked in ("auto", "cuda") else 0  # cpu wants none, cuda:N that one
            taken = held.enter_context(
                gpu_lease.lease(wanted, gpu_lease.jobs_per_gpu(stage.settings.get("jobs_per_gpu", 1)))
            )
            if taken and not _usable():
                say(f"{stage.path}: GPU {', '.join(taken)} is there, but PyTorch cannot use it: running on the CPU")
            return _run(stage, store, asked, say)
        except Exception as error:
            from ssrob.runtime import error_messages

            log = store.folder(stage.path) / "log.txt"
            more = f"\n  more in {log}" if log.is_file() else ""
            say(f"{stage.path}: {error_messages.describe(error, stage, store.work(stage.path))}{more}")
            return 1


def _usable() -> bool:
    import torch

    return torch.cuda.is_available()


def _run(stage: Stage, store: Store, device: str, say: Callable[[str], object]) -> int:
    from ssrob.runtime import runner

    try:
        summary = runner.run(stage, store, device=device)
    except runner.Interrupted as stop:
        say(f"{stage.path}: {stop}")
        return STOPPED
    say(f"{stage.kind:9} {stage.key}: {summary}")
    return 0
