"""One job of the workflow: a stage under its lock, with a GPU of its own, and a message if it fails.

Imports torch only when the stage has its GPU: torch looks for GPUs when it first needs one.
"""

import contextlib
import os
from collections.abc import Callable

from ssrob.config.plugins import import_plugins
from ssrob.hardware import gpu_lease
from ssrob.hardware.nodes import REPLICA_LINES, nodes
from ssrob.planning.stage import Stage
from ssrob.storage.lock import claimed
from ssrob.storage.store import Store

STOPPED = 143  # the exit code of a process that SIGTERM has ended


def run(stage: Stage, store: Store, device: str, say: Callable[[str], object]) -> int:
    """Run a stage and report how it went; returns the exit code."""
    import_plugins(stage.settings.get("plugins", []), stage.path)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    asked = stage.settings.get("device", "auto") if device == "auto" else device
    with contextlib.ExitStack() as held:
        try:
            if REPLICA_LINES in os.environ:
                from ssrob.runtime import launcher

                say = launcher.leave_line
                return _run(stage, store, launcher.join(asked), say)
            _take(stage, store, asked, say, held)
            return (_share if nodes().rank or stage.replicas > 1 else _run)(stage, store, asked, say)
        except Exception as error:
            from ssrob.runtime import error_messages

            log = store.folder(stage.path) / "log.txt"
            more = f"\n  more in {log}" if log.is_file() else ""
            say(f"{stage.path}: {error_messages.describe(error, stage, store.work(stage.path))}{more}")
            return 1


def _take(stage: Stage, store: Store, device: str, say: Callable[[str], object], held: contextlib.ExitStack) -> None:
    """Hold the stage, which no other process may run meanwhile, and this node's share of its GPUs."""
    place = nodes()
    if place.rank == 0:
        held.enter_context(claimed(store.work(stage.path), lambda message: say(f"{stage.path} {message}")))
    wanted = stage.gpus // place.count if device in ("auto", "cuda") else 0  # cpu wants none, cuda:N that one
    jobs = gpu_lease.jobs_per_gpu(stage.settings.get("jobs_per_gpu", 1))
    taken = held.enter_context(gpu_lease.lease(wanted, jobs))
    if taken and not _usable():
        say(f"{stage.path}: GPU {', '.join(taken)} is there, but PyTorch cannot use it: running on the CPU")


def _usable() -> bool:
    import torch

    return torch.cuda.is_available()


def _share(stage: Stage, store: Store, device: str, say: Callable[[str], object]) -> int:
    """Run a stage in processes of its own, or this node's share of one that the first node runs."""
    if stage.replicas == 1:
        say(f"{stage.path}: nothing to do on node {nodes().rank}")
        return 0
    if store.done(stage.path):
        return _run(stage, store, device, say)
    from ssrob.runtime import launcher

    code, line = launcher.launch(stage, store, device)
    say(line)
    return code


def _run(stage: Stage, store: Store, device: str, say: Callable[[str], object]) -> int:
    from ssrob.runtime import runner

    try:
        summary = runner.run(stage, store, device=device)
    except runner.Interrupted as stop:
        say(f"{stage.path}: {stop}")
        return STOPPED
    say(f"{stage.kind:9} {stage.key}: {summary}")
    return 0
