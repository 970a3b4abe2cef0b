"""One stage in several processes with a device each, started and watched by `torch.distributed.elastic`.

The process that was asked to run the stage watches, on each node. Every process that it starts is an `ssrob run` of the
same stage, one replica: number 0, on the first node, logs and writes as a stage without replicas does. What ends one
ends all.
"""

import ctypes
import datetime
import logging
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from ssrob.hardware.device import device_of
from ssrob.hardware.nodes import REPLICA_LINES, nodes
from ssrob.planning.stage import Stage
from ssrob.runtime.signals import ENDING, handled
from ssrob.storage.store import Store

MEET_SECONDS = 600  # for the other nodes to connect
STOP_SECONDS = 60  # for the step at work and its checkpoint, before replicas are killed
LOST = "what was trained since the last checkpoint is lost"
LOGGERS = ("torch.distributed.elastic", "torchelastic-events-null")


class ReplicaDied(RuntimeError):
    """A replica ended without a message."""


def launch(stage: Stage, store: Store, device: str) -> tuple[int, str]:
    """Run a stage's replicas, or this node's share of them; return an exit code and one line about it.

    They are those of the replica that failed first, else of replica 0. Each process has the stage's number of threads
    and, on GPUs, the GPU of its number on its node. Raises ReplicaDied for one that was killed.
    """
    arguments = ("-m", "ssrob", "run", "--results", store.root, "--stage", stage.to_json(), "--device", device)
    command = [str(each).replace("$", "$$") for each in arguments]  # torch fills in variables of its own
    with tempfile.TemporaryDirectory() as folder, handled(ENDING, _stop):
        os.environ[REPLICA_LINES] = folder
        rank, code, otherwise = 0, 0, f"node {nodes().rank} has done its share"
        try:
            elastic_launch(_config(stage, device, folder), sys.executable)(*command)
        except SignalException:
            code, otherwise = 128 + signal.SIGTERM, "stopped before it began"
        except ChildFailedError as failed:
            rank, failure = failed.get_first_failure()
            code = max(failure.exitcode, 1)
            if not Path(folder, str(rank)).is_file():
                how = failure.signal_name() if failure.exitcode < 0 else f"an error, code {code}"
                raise ReplicaDied(f"replica {rank} was ended by {how}; {LOST}") from None
        finally:
            del os.environ[REPLICA_LINES]
        last = Path(folder, str(rank))
        return code, last.read_text() if last.is_file() else f"{stage.path}: {otherwise}"


def _stop(number: int, _: object) -> None:
    """Let the replicas be asked to stop, as torch does once it has started them."""
    raise SignalException("asked to stop", signal.Signals(number))


def _config(stage: Stage, device: str, folder: str) -> LaunchConfig:
    """Describe this node's share to torch. No restarts: what starts the stage again goes on from its checkpoint."""
    place = nodes()
    share, left = divmod(stage.replicas, place.count)
    if left:
        raise ValueError(f"training.replicas: {stage.replicas} cannot be shared equally by {place.count} nodes")
    if device_of(device).type == "cuda" and torch.cuda.device_count() < share:
        raise ValueError(f"training.replicas: {share} need as many GPUs, found {torch.cuda.device_count()}")
    for name in LOGGERS:  # the caller reports a failure, once
        logging.getLogger(name).propagate = False
        logging.getLogger(name).addHandler(logging.NullHandler())
    meet: dict[str, Any] = {"rdzv_backend": "c10d", "rdzv_endpoint": "127.0.0.1:0", "local_addr": "127.0.0.1"}
    if place.count > 1:
        there = {"rank": place.rank, "timeout": MEET_SECONDS}
        meet = {"rdzv_backend": "static", "rdzv_endpoint": place.meet_at, "rdzv_configs": there}
    hidden = Std.NONE if sys.stderr is sys.__stderr__ else Std.ERR  # of a quiet process replicas are quiet, too
    return LaunchConfig(
        min_nodes=place.count,
        max_nodes=place.count,
        nproc_per_node=share,
        run_id=stage.key,
        logs_specs=DefaultLogsSpecs(log_dir=folder, redirects=hidden),
        max_restarts=0,
        shutdown_timeout=STOP_SECONDS,
        **meet,
    )


def join(device: str) -> str:
    """Connect this process with the other replicas; return the name of its device.

    The kernel ends the process when the one that watches has died, however that was.
    """
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.environ["MASTER_ADDR"] in ("127.0.0.1", "localhost"):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    on_gpu = device_of(device).type == "cuda"
    if on_gpu:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    # One may be writing for long; who has died is seen by the process that watches.
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=datetime.timedelta(days=1))
    return device


def leave_line(line: str) -> None:
    """Leave a line about how this replica ended to the process that watches."""
    Path(os.environ[REPLICA_LINES], os.environ["RANK"]).write_text(line)
