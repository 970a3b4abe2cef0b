"""Stages in processes that are forked ready to run; each does what `ssrob run` does.

Importing what stages need takes seconds. `Workers` lets a server process import it once (it never touches a GPU) and
forks every stage from it: as isolated as a process of its own, and as fast to start as a function call.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from ssrob.planning.stage import Stage
from ssrob.runtime import job
from ssrob.storage.store import Store


@dataclass(frozen=True)
class Running:
    """A stage at work."""

    stage: Stage
    process: BaseProcess
    answer: Connection

    def stop(self) -> None:
        """Ask it to stop between two steps, keeping what it needs to go on."""
        if self.process.is_alive():
            self.process.terminate()

    def ended(self) -> tuple[int, str]:
        """Wait for its end; return its exit code and its line, which for one that was killed says by what."""
        lines = [f"{self.stage.path}: exited without a message"]
        with contextlib.suppress(EOFError):
            while True:
                lines.append(self.answer.recv())
        self.process.join()
        code = self.process.exitcode or 0
        if code == -signal.SIGTERM:  # before it could listen
            return job.STOPPED, f"{self.stage.path}: stopped before it began"
        return code, f"{self.stage.path}: killed by {signal.Signals(-code).name}" if code < 0 else lines[-1]


class Workers:
    """Starts stages in processes of their own. quiet: without progress bars, which would spoil each other."""

    def __init__(self, results: Path, device: str, *, quiet: bool) -> None:
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy is first imported, by the server
        self.results, self.device, self.quiet = results, device, quiet
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["ssrob.runtime.preload"])

    def start(self, stage: Stage) -> Running:
        """Start a stage."""
        answer, theirs = self._context.Pipe(duplex=False)
        arguments = (stage.to_json(), self.results, self.device, self.quiet, theirs)
        process = self._context.Process(target=_child, args=arguments)
        process.start()
        theirs.close()
        return Running(stage, process, answer)


def _child(stage: str, results: Path, device: str, quiet: bool, answer: Connection) -> None:
    """Run a stage in a forked process. Ctrl-C reaches it too, and is left to the process that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _stop_without_parent()
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere if quiet else sys.stderr):
        code = job.run(Stage.from_json(stage), Store(results), device, answer.send)
    sys.exit(code)


def _stop_without_parent() -> None:
    """Ask this process to stop when the one that started it has died; otherwise two might come to run a stage."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
