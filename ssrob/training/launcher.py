"""One stage in several processes, each with a device of its own, started and watched by `torch.distributed.elastic`.

The process that runs the stage watches; on further nodes `ssrob run` watches the replicas of that node alone. Replica 0
is on the first node, trains as a stage without replicas does, and writes all files. What ends one replica ends all.
"""

import ctypes
import datetime
import logging
import os
import pickle
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, redirect_stderr
from dataclasses import dataclass
from multiprocessing import active_children, resource_tracker
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from ssrob.config.plugins import import_plugins
from ssrob.hardware import device
from ssrob.hardware.nodes import Nodes, nodes
from ssrob.planning.stage import Stage
from ssrob.runtime.runner import Context, keep_memory, log_file
from ssrob.runtime.signals import ENDING
from ssrob.storage import heartbeat
from ssrob.storage.store import Store
from ssrob.training.distributed import LostReplica, ReplicaGroup

POLL_SECONDS = 0.2
MEET_SECONDS = 600  # for the other nodes to come
CAUSE_FIRST_SECONDS = 1.0  # a replica that has lost another one ends after it, so that the cause is seen first
Work = Callable[[Context, ReplicaGroup], None]


class ReplicaDied(RuntimeError):
    """A replica was ended by a signal."""


@dataclass(frozen=True)
class _Start:
    """What a new process is given."""

    work: Work
    stage: Stage
    root: Path
    device: str
    watcher: int
    quiet: bool

    @property
    def folder(self) -> Path:
        """Where replicas and the process that watches leave each other messages."""
        return Store(self.root).work(self.stage.path) / "replicas"

    @property
    def stop(self) -> Path:
        """The file that asks replica 0 to stop."""
        return self.folder / "stop"

    def failure(self, rank: int) -> Path:
        """The file with the error of a replica."""
        return self.folder / f"failure-{rank}"


def run(context: Context, size: int, work: Work) -> None:
    """Run `work` in so many processes, or this node's share of them; raises what went wrong in the one that failed
    first; Interrupted is one of these.

    work: called in every process with a context and its place among the replicas; replica 0 writes all files. Each
    process has the stage's number of threads and, on GPUs, the GPU of its number on its node.
    """
    place, kind = nodes(), context.device.type
    share, left = divmod(size, place.count)
    if left:
        raise ValueError(f"training.replicas: {size} cannot be shared equally by {place.count} nodes")
    if kind == "cuda" and torch.cuda.device_count() < share:
        raise ValueError(f"training.replicas: {share} need as many GPUs, found {torch.cuda.device_count()}")
    start = _Start(work, context.stage, context.store.root, kind, os.getpid(), not sys.stderr.isatty())
    if place.rank == 0:
        shutil.rmtree(start.folder, ignore_errors=True)
        start.folder.mkdir(parents=True)
        context.running.follow(start.folder / heartbeat.FILE)
    with tempfile.TemporaryDirectory() as logs:
        launch = elastic_launch(_config(start.stage.key, share, place, logs), _replica)
        results = _watch(launch, start, context.stopping)
    if place.rank == 0:
        context.summary, facts = results[0]
        context.provenance |= facts


def _config(name: str, share: int, place: Nodes, logs: str) -> LaunchConfig:
    """Describe the launch to torch. No restarts: what starts the stage again goes on from its checkpoint."""
    for logger in ("torch.distributed.elastic", "torchelastic-events-null", "torch.multiprocessing"):
        logging.getLogger(logger).propagate = False  # this module reports a failure, once
        logging.getLogger(logger).addHandler(logging.NullHandler())
    several = place.count > 1
    return LaunchConfig(
        min_nodes=place.count,
        max_nodes=place.count,
        nproc_per_node=share,
        run_id=name,
        rdzv_backend="static" if several else "c10d",
        rdzv_endpoint=place.meet_at if several else "127.0.0.1:0",
        rdzv_configs={"rank": place.rank, "timeout": MEET_SECONDS} if several else {},
        local_addr=None if several else "127.0.0.1",
        logs_specs=DefaultLogsSpecs(log_dir=logs),
        max_restarts=0,
    )


def _watch(launch: Callable[[_Start], dict[int, Any]], start: _Start, stopping: Callable[[], bool]) -> dict[int, Any]:
    """Launch in a thread that signals do not reach, pass on a wish to stop, and return what the replicas returned."""
    with ThreadPoolExecutor(1, initializer=_block_signals) as thread:
        launched: Future[dict[int, Any]] = thread.submit(launch, start)
        try:
            while wait([launched], POLL_SECONDS).not_done:
                if stopping():
                    start.stop.touch()
            return launched.result()
        except ChildFailedError as failed:
            raise _cause(failed, start) from None
        finally:
            for child in active_children():
                child.kill()


def _block_signals() -> None:
    """Keep the signals of a whole group from this thread and, as they inherit it, from the replicas it starts."""
    resource_tracker.ensure_running()  # unblocks them when multiprocessing starts it
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)


def _cause(failed: ChildFailedError, start: _Start) -> BaseException:
    """Return the error of the replica that failed first."""
    rank, failure = failed.get_first_failure()
    if start.failure(rank).is_file():
        error: BaseException = pickle.loads(start.failure(rank).read_bytes())
        return error
    how = f"was ended by {failure.signal_name()}" if failure.exitcode < 0 else f"ended with code {failure.exitcode}"
    return ReplicaDied(f"replica {rank} {how}; what was trained since the last checkpoint is lost")


def _replica(start: _Start) -> tuple[str, dict[str, Any]]:
    """Be one replica; returns the summary and the provenance of the stage."""
    rank, size = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE"))
    _die_with(start.watcher)
    try:
        with ExitStack() as held:
            if start.quiet:
                held.enter_context(redirect_stderr(held.enter_context(open(os.devnull, "w"))))
            context = _context(start, rank, held)
            _join(context)
            fixed = start.stage.spec["training"].get("deterministic", True)
            held.enter_context(device.numerics(context.device, deterministic=fixed))
            start.work(context, ReplicaGroup(rank, size))
        return context.summary, context.provenance | _facts(size)
    except BaseException as error:
        error.add_note(traceback.format_exc())
        start.failure(rank).write_bytes(_pickled(error))
        if isinstance(error, LostReplica):
            time.sleep(CAUSE_FIRST_SECONDS)
        os._exit(1)  # with the connections that others wait at


def _context(start: _Start, rank: int, held: ExitStack) -> Context:
    """Set the process up as a stage's own process is, and return what its work needs; replica 0 reports."""
    stage, store = start.stage, Store(start.root)
    import_plugins(stage.settings.get("plugins", []), stage.path)
    torch.set_num_threads(stage.threads)
    keep_memory()
    local = int(os.environ["LOCAL_RANK"])
    mine = torch.device("cuda", local) if start.device == "cuda" else torch.device(start.device)
    if mine.type == "cuda":
        torch.cuda.set_device(mine)
    heartbeat.Bar.set_lock(threading.RLock())  # its own would be a semaphore, which outlives a killed process
    running = heartbeat.Progress()
    if rank:
        logging.getLogger("ssrob").setLevel(logging.CRITICAL)
        return Context(stage, store, mine, logging.getLogger("ssrob"), running=running)
    held.enter_context(heartbeat.beating(start.folder / heartbeat.FILE, running))
    log = held.enter_context(log_file(store.folder(stage.path) / "log.txt"))
    return Context(stage, store, mine, log, start.stop.exists, running=running)


def _join(context: Context) -> None:
    """Connect with the other replicas, at the address that the launcher has put into the environment."""
    if os.environ["MASTER_ADDR"] in ("127.0.0.1", "localhost"):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group(
        "nccl" if context.device.type == "cuda" else "gloo",
        timeout=datetime.timedelta(days=1),  # one may be writing; who has died is seen by the one that watches
    )


def _facts(size: int) -> dict[str, Any]:
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"replicas": size, "peak_memory_mb": round(size * memory, 1)}


def _pickled(error: BaseException) -> bytes:
    """Write an error for another process; one that cannot be read back becomes one that says the same."""
    try:
        content = pickle.dumps(error)
        pickle.loads(content)
    except Exception:
        return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
    return content


def _die_with(watcher: int) -> None:
    """Let the kernel end this process when the one that watches has died, however that was."""
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != watcher:
            os._exit(1)
