"""Running one stage: its parents verified, its threads and device set, its outputs published when all is done."""

import contextlib
import ctypes
import functools
import importlib.metadata
import logging
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from ssrob.config.data import Data
from ssrob.config.plugins import plugin_sources
from ssrob.hardware.device import device_of, numerics
from ssrob.hardware.emulation import emulation_warning
from ssrob.planning.stage import Stage, data_of
from ssrob.registry.lookup import load
from ssrob.registry.stages import STAGES
from ssrob.runtime.signals import ENDING, handled
from ssrob.storage import heartbeat
from ssrob.storage.store import Store

PACKAGES = ("ssrob", "torch", "torchvision", "timm", "numpy", "scipy", "pandas", "pyarrow", "snakemake", "mlflow")


class Interrupted(RuntimeError):
    """The stage was asked to stop and left what it needs to go on."""


@dataclass
class Context:
    """What a stage works with. It writes its outputs to `out`, and what it needs after a kill to `work`."""

    stage: Stage
    store: Store
    device: torch.device
    log: logging.Logger
    stopping: Callable[[], bool] = lambda: False
    provenance: dict[str, Any] = field(default_factory=dict)  # measurements that are no results
    summary: str = ""  # one line for people
    running: heartbeat.Progress = field(default_factory=heartbeat.Progress)

    @property
    def work(self) -> Path:
        """The folder that survives a kill."""
        return self.store.work(self.stage.path)

    @property
    def out(self) -> Path:
        """The folder whose files become the stage's outputs."""
        return self.work / "out"

    def parent(self, role: str) -> Path:
        """Return a parent's folder, after checking every file in it against its checksum."""
        path = self.stage.parents[role]
        for name in self.store.manifest(path)["outputs"]:
            self.store.output(path, name)
        return self.store.folder(path)

    @property
    def data_source(self) -> Data:
        """The config of the data that the stage reads, with where it lies by the study's own."""
        here = {"path": path} if (path := self.stage.settings.get("data_path")) else {}
        return self.source_of(self.stage.parents["data"], **here)

    def source_of(self, stage: str, **here: str) -> Data:
        """Return the config of a finished data stage; here: settings that are others by now."""
        made = self.store.manifest(stage)
        return data_of(Stage("data", made["key"], made["spec"], {}, made["settings"] | here))

    def stop_if_asked(self, then: str = "run it again to start anew") -> None:
        """Raise Interrupted if the stage was asked to stop; then: what to do, for people."""
        if self.stopping():
            raise Interrupted(f"stopped; {then}")

    def progress(self, *, total: int, unit: str, initial: int = 0) -> heartbeat.Bar:
        """Return a progress bar with ETA on a terminal; elsewhere it is silent, and `ssrob status` shows it."""
        return self.running.open(self.stage.kind, total=total, unit=unit, initial=initial)


def run(stage: Stage, store: Store, *, device: str = "auto") -> str:
    """Run a stage unless it is done; return one line about it. The caller holds it (`ssrob.storage.lock`)."""
    if store.done(stage.path):
        store.check_parents(stage.path)
        store.renew(stage.path)
        return "already done"
    torch.set_num_threads(stage.threads)
    keep_memory()
    if dist.is_initialized() and dist.get_rank():
        return _assist(stage, store, device)
    with _logging(store.folder(stage.path) / "log.txt") as log, _signals() as stopping:
        context = Context(stage, store, device_of(device), log, stopping)
        shutil.rmtree(context.out, ignore_errors=True)
        context.out.mkdir(parents=True)
        plugins = plugin_sources(stage.settings.get("plugins", []))  # before they can change on the disk
        began, started = time.monotonic(), datetime.now(UTC)
        if gone := heartbeat.left_behind(context.work / heartbeat.FILE):
            log.info("%s", gone)
        before = heartbeat.spent(context.work)
        log.info("%s on %s", stage.path, context.device)
        if warning := emulation_warning(stage.in_bfloat16, context.device):
            log.warning("%s", warning)
        with heartbeat.beating(context.work / heartbeat.FILE, context.running), _numerics(context):
            try:
                load(STAGES[stage.kind].run)(context)
            except BaseException:
                heartbeat.note(context.work, before + time.monotonic() - began)
                raise
        facts = provenance(context.device) | context.provenance
        facts |= {"plugins": plugins} if plugins else {}
        facts |= {
            "started": started.isoformat(timespec="seconds"),
            "seconds": round(before + time.monotonic() - began, 2),
        }
        store.publish(stage, context.out, facts)
        log.info("done: %s", context.summary)
    return context.summary


def _assist(stage: Stage, store: Store, device: str) -> str:
    """Do the share of a replica other than number 0, which logs, writes, and is the one to be asked to stop."""
    with _logging(store.folder(stage.path) / "log.txt") as log, handled(ENDING, lambda *_: None):
        log.setLevel(logging.WARNING)
        context = Context(stage, store, device_of(device), log)
        with _numerics(context):
            load(STAGES[stage.kind].run)(context)
    return "a replica has done its share"


def _numerics(context: Context) -> contextlib.AbstractContextManager[None]:
    """Set the process to compute as the stage is documented to."""
    training = context.stage.spec.get("training")
    fixed = (training or {}).get("deterministic", True)
    return numerics(context.device, deterministic=fixed, strict=training is not None)


def provenance(device: torch.device) -> dict[str, Any]:
    """Return what the stage ran on: commit, versions, device, peak memory."""
    return {
        "commit": commit(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu(),
        "threads": torch.get_num_threads(),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }


class _LogFile(logging.FileHandler):
    """A stage's log. What a full disk does not take is left out; the error itself is the stage's to report."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Say nothing."""


@contextlib.contextmanager
def log_file(path: Path) -> Iterator[logging.Logger]:
    """Log to a stage's file, and nowhere else."""
    path.parent.mkdir(parents=True, exist_ok=True)
    log = logging.getLogger("ssrob")
    handler = _LogFile(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield log
    finally:
        log.removeHandler(handler)
        with contextlib.suppress(OSError):
            handler.close()


@contextlib.contextmanager
def _logging(path: Path) -> Iterator[logging.Logger]:
    """Log to the stage's file how it ends, too: one process runs one stage."""
    with log_file(path) as log:
        try:
            yield log
        except Interrupted as stop:
            log.info("%s", stop)
            raise
        except Exception:
            log.exception("failed")
            raise


@contextlib.contextmanager
def _signals() -> Iterator[Callable[[], bool]]:
    """Turn SIGTERM and Ctrl-C into a question that the stage asks itself between two steps; a second Ctrl-C ends it."""
    signals: list[int] = []

    def ask(number: int, _: object) -> None:
        if number == signal.SIGINT and number in signals:
            raise KeyboardInterrupt
        signals.append(number)

    with handled(ENDING, ask):
        yield lambda: bool(signals)


def keep_memory() -> None:
    """Let glibc keep freed blocks instead of returning them at every step: same bits, fewer page faults."""
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD


@functools.cache
def commit(folder: Path = Path(__file__).parents[1]) -> str:
    """Return the commit of the code in a folder, by default this package's, with "-dirty" if it has changed since.

    Empty without git, or where git does not track the code: the package may be installed inside another checkout.
    """

    def git(*command: str) -> str:
        command_line = ["git", "--no-optional-locks", "-C", str(folder), *command]
        return subprocess.run(command_line, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "--", "__init__.py")
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"cpu ({names[0] if names else platform.machine()}, {os.cpu_count()} cores)"
