"""One stage in several processes, each with a device of its own: started, followed and ended together.

The process that runs the stage only watches. Replica 0 reports to it (log, progress, results) and is asked to stop
through it; what happens to any replica ends all, whatever they are waiting for, with one error.
"""

import contextlib
import ctypes
import datetime
import logging
import os
import pickle
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from ssrob.config.plugins import import_plugins
from ssrob.hardware import device
from ssrob.planning.stage import Stage
from ssrob.runtime.runner import Context, keep_memory
from ssrob.storage import heartbeat
from ssrob.storage.store import Store
from ssrob.training.distributed import LostReplica, ReplicaGroup

POLL_SECONDS = 0.2
GRACE_SECONDS = 5.0  # for the replica that failed first to say why, after another one has noticed
DECIDED_ELSEWHERE = (signal.SIGTERM, signal.SIGINT)  # sent to a whole group; the process that watches decides
Work = Callable[[Context, ReplicaGroup], None]


class ReplicaDied(RuntimeError):
    """A replica was ended by a signal."""


@dataclass(frozen=True)
class _Start:
    """What a new process is given."""

    stage: Stage
    root: Path
    device: str
    rank: int
    size: int
    port: int
    parent: int


class _Replica:
    """A started process, seen from the one that watches."""

    def __init__(self, work: Work, start: _Start):
        spawn = get_context("spawn")
        self.rank = start.rank
        self.connection, theirs = spawn.Pipe()
        self.process: SpawnProcess = spawn.Process(target=_main, args=(work, start, theirs), daemon=True)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, DECIDED_ELSEWHERE)  # inherited, until it ignores them
        self.process.start()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self.failure: BaseException | None = None

    def messages(self) -> list[tuple[str, Any]]:
        """Return the messages since the last time; a failure is kept."""
        received = []
        with contextlib.suppress(EOFError, ConnectionResetError):
            while self.connection.poll():
                received.append(self.connection.recv())
        for kind, content in received:
            if kind == "failed":
                self.failure, trace = content
                self.failure.add_note(trace)
        return received

    def died(self) -> ReplicaDied | None:
        """Return an error if it has ended without saying how."""
        code = self.process.exitcode
        if not code:
            return None
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return ReplicaDied(f"replica {self.rank} {how}; what was trained since the last checkpoint is lost")


def run(context: Context, size: int, work: Work) -> None:
    """Run `work` in so many processes; raises what went wrong in the one that failed first; Interrupted is
    one of these.

    work: called in every process with a context and its place in the team; replica 0 writes all files. Each process
    has the stage's number of threads and, on GPUs, the GPU of its rank.
    """
    if context.device.type == "cuda" and torch.cuda.device_count() < size:
        raise ValueError(f"training.replicas: {size} need as many GPUs, found {torch.cuda.device_count()}")
    meeting = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]
    root, device = context.store.root, context.device.type
    replicas: list[_Replica] = []
    try:
        for rank in range(size):
            start = _Start(context.stage, root, device, rank, size, meeting.port, os.getpid())
            replicas.append(_Replica(work, start))
        _watch(replicas, context)
    finally:
        for replica in replicas:
            replica.process.kill()
        for replica in replicas:
            replica.process.join()
            replica.connection.close()


def _watch(replicas: list[_Replica], context: Context) -> None:
    """Pass on the messages of replicas until all have ended; raises at the first failure."""
    bar, asked, running = None, False, replicas
    while running:
        running = [replica for replica in replicas if replica.process.is_alive()]
        wait([each for replica in running for each in (replica.connection, replica.process.sentinel)], POLL_SECONDS)
        if context.stopping() and not asked:
            replicas[0].connection.send("stop")
            asked = True
        for replica in replicas:
            for kind, content in replica.messages():
                if kind == "open":
                    bar = context.progress(**content)
                elif kind == "update" and bar is not None:
                    bar.update(content)
                elif kind == "log":
                    context.log.log(*content)
                elif kind == "done":
                    context.summary = content[0]
                    context.provenance.update(content[1])
        if any(replica.failure or replica.died() for replica in replicas):
            raise _first(replicas)
    if bar is not None:
        bar.close()


def _first(replicas: list[_Replica]) -> BaseException:
    """Return the failure that the others are consequences of; waits a moment for it."""
    until = time.monotonic() + GRACE_SECONDS
    while True:
        for replica in replicas:
            replica.messages()
        failures = [failure for replica in replicas if (failure := replica.failure or replica.died())]
        causes = [failure for failure in failures if not isinstance(failure, LostReplica)]
        if causes or time.monotonic() > until:
            return (causes or failures)[0]
        wait([replica.process.sentinel for replica in replicas if replica.process.is_alive()], POLL_SECONDS)


class _Reporting(heartbeat.Progress):
    """Progress that is shown by the process that watches."""

    def __init__(self, connection: Connection):
        super().__init__()
        self._connection = connection

    def open(self, kind: str, *, total: int, unit: str, initial: int = 0) -> heartbeat.Bar:
        """Return a silent bar whose counts are sent."""
        self._connection.send(("open", {"total": total, "unit": unit, "initial": initial}))
        return _ReportingBar(self._connection)


class _ReportingBar(heartbeat.Bar):
    def __init__(self, connection: Connection):
        super().__init__(disable=True)
        self._connection = connection

    def update(self, n: float | None = 1) -> bool | None:
        """Send the count."""
        self._connection.send(("update", n))
        return None


class _ReportingLog(logging.Handler):
    def __init__(self, connection: Connection):
        super().__init__()
        self._connection = connection

    def emit(self, record: logging.LogRecord) -> None:
        """Send the message."""
        self._connection.send(("log", (record.levelno, record.getMessage())))


def _main(work: Work, start: _Start, connection: Connection) -> None:
    """Be one replica."""
    for number in DECIDED_ELSEWHERE:
        signal.signal(number, signal.SIG_IGN)
    _die_with(start.parent)
    try:
        context = _context(start, connection)
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all are on this machine
        dist.init_process_group(
            "nccl" if context.device.type == "cuda" else "gloo",
            store=dist.TCPStore("127.0.0.1", start.port),  # type: ignore[attr-defined]
            rank=start.rank,
            world_size=start.size,
            timeout=datetime.timedelta(days=1),  # one may be writing; who has died is seen by the one that watches
        )
        training = start.stage.spec["training"]
        with device.numerics(context.device, deterministic=training.get("deterministic", True)):
            work(context, ReplicaGroup(start.rank, start.size))
        if start.rank == 0:
            connection.send(("done", (context.summary, context.provenance | _facts(start.size))))
    except BaseException as error:
        connection.send(("failed", (_portable(error), traceback.format_exc())))


def _context(start: _Start, connection: Connection) -> Context:
    """Set the process up as a stage's own process is, and return what its work needs; replica 0 reports."""
    import_plugins(start.stage.settings.get("plugins", []), start.stage.path)
    torch.set_num_threads(start.stage.threads)
    keep_memory()
    device = torch.device("cuda", start.rank) if start.device == "cuda" else torch.device(start.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    log = logging.getLogger("ssrob")
    log.propagate = False
    log.setLevel(logging.INFO if start.rank == 0 else logging.CRITICAL)
    log.addHandler(_ReportingLog(connection))
    running = _Reporting(connection) if start.rank == 0 else heartbeat.Progress()
    return Context(start.stage, Store(start.root), device, log, connection.poll, running=running)


def _facts(size: int) -> dict[str, Any]:
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"replicas": size, "peak_memory_mb": round(size * memory, 1)}


def _portable(error: BaseException) -> BaseException:
    """Return the error if it can be sent to another process, else one that says the same."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _die_with(parent: int) -> None:
    """Let the kernel end this process when the one that watches has died, however that was."""
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)
