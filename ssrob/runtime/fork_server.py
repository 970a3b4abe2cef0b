"""Commands in processes that are forked ready to run, for the jobs of one workflow.

Importing what a stage needs takes seconds. A server imports it once and forks a process for every command that it is
asked for: as isolated as a process of its own, and as fast to start as a function call.

    job              ``python -m ssrob run ...``: asks (`fork_client`), forwards signals, ends with the exit code
    server           one per workflow: a single thread, never on a GPU, ends after the workflow and its last job
    forked process   runs the command with the job's arguments, folder, environment and files; dies if the job is killed

Whatever the server cannot do exactly as a fresh process would, it refuses, and the job runs the command itself.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

from ssrob.runtime.fork_client import ADDRESS, process_state

PACKAGE = "ssrob"  # what is run, by default: python -m ssrob
IMPORTED = ("ssrob.runtime.preload", "ssrob.cli")
THREADS = tuple(f"{library}_NUM_THREADS" for library in ("OMP", "GOTO", "OPENBLAS", "MKL", "VECLIB", "NUMEXPR"))
# As Snakemake sets them for a job of one thread; pyarrow's allocator, which nobody uses, starts a thread of its own.
ENVIRONMENT = dict.fromkeys(THREADS, "1") | {"JE_ARROW_MALLOC_CONF": "background_thread:false"}
# Variables that Python and libraries read when they are loaded: a fork cannot make up for another value.
READ_WHEN_LOADED = (
    *("PYTHON", "LD_", "GLIBC_", "MALLOC_", "LANG", "LC_", "ATEN_", "DNNL_", "ONEDNN_", "TORCH", "PYTORCH_"),
    *("OMP_", "GOMP_", "KMP_", "GOTO_", "OPENBLAS_", "MKL_", "NUMEXPR_", "NPY_"),
)
ASK_SECONDS = 5.0  # for a request, of some kilobytes, to be read


def start(command: str = PACKAGE, imported: Sequence[str] = IMPORTED) -> None:
    """Start a server for the jobs of this process; where that is not possible, they do without.

    command: the module that is run, as by ``python -m``; imported: what its processes find imported.
    """
    if sys.platform != "linux" or ADDRESS in os.environ:
        return
    folder = tempfile.mkdtemp(prefix="ssrob-")  # only its owner may enter
    address = f"{folder}/socket"
    alive, _ = os.pipe()  # the kernel closes the other end when this process ends in any way
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            listener.bind(address)
            listener.listen(128)
            subprocess.Popen(
                [sys.executable, "-m", __name__, str(listener.fileno()), str(alive), folder, command, *imported],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=os.environ | ENVIRONMENT,
                pass_fds=(listener.fileno(), alive),
                start_new_session=True,  # Ctrl-C is for the jobs
            )
        except OSError:
            shutil.rmtree(folder)
            return
        finally:
            os.close(alive)
    os.environ[ADDRESS] = address


class Refused(Exception):
    """A request that is left to a fresh process."""


@dataclass(frozen=True)
class Request:
    """A command, who waits for its end, and the files that it reads and writes: standard input, output and error."""

    process: dict[str, Any]  # `fork_client.process_state`
    asker: socket.socket
    files: list[int]

    def run(self, command: str, before: Iterable[str]) -> None:
        """Become the process that asked, and run its command; returns or raises as that does.

        before: the environment variables that were there when this process was started; libraries have set others.
        """
        for number, file in enumerate(self.files):
            os.dup2(file, number)
            os.close(file)
        os.chdir(self.process["cwd"])
        os.umask(self.process["umask"])
        os.sched_setaffinity(0, self.process["cores"])
        for name in before:
            os.environ.pop(name, None)
        os.environ.update(self.process["environment"])
        sys.path[:] = self.process["path"]
        sys.argv[1:] = self.process["arguments"]
        sys.stdin, sys.stdout, sys.stderr = (
            open(number, mode, buffering=1 if number == 2 or os.isatty(number) else -1, closefd=False)  # noqa: SIM115
            for number, mode in enumerate("rww")
        )
        threading.Thread(target=self._die_with_asker, daemon=True).start()
        runpy.run_module(command, run_name="__main__", alter_sys=True)

    def _die_with_asker(self) -> None:
        with contextlib.suppress(OSError):
            while self.asker.recv(1):
                pass
        os.kill(os.getpid(), signal.SIGKILL)


class Server:
    """Forks a process for every request until the file descriptor `owner` is closed at its other end.

    state: of this process when it was started (`fork_client.process_state`).
    """

    def __init__(self, listener: socket.socket, owner: int, command: str, state: dict[str, Any]) -> None:
        self._command, self._state, self._sources = command, state, _sources()
        self._running: dict[int, tuple[ForkProcess, socket.socket]] = {}  # sentinel -> process, who waits for its end
        self._listener, self._open = listener, True
        self._events = selectors.DefaultSelector()
        self._events.register(listener, selectors.EVENT_READ)
        self._events.register(owner, selectors.EVENT_READ)

    def serve(self) -> None:
        """Answer requests; returns when the owner and all forked processes have ended."""
        while self._open or self._running:
            for key, _ in self._events.select():
                if key.fd in self._running:
                    self._ended(key.fd)
                elif key.fileobj is self._listener:
                    self._accept()
                else:
                    self._events.unregister(key.fileobj)
                    self._open = False

    def _accept(self) -> None:
        """Fork a process for a request, or say why not."""
        asker, _ = self._listener.accept()
        asker.settimeout(ASK_SECONDS)
        files: list[int] = []
        try:
            _, files, _, _ = socket.recv_fds(asker, 1, 3)
            request = Request(json.loads(asker.makefile("rb").readline()), asker, files)
            self._check(request)
            process = ForkProcess(target=self._work, args=(request,))
            process.start()
        except (OSError, ValueError, LookupError, TypeError, Refused) as error:
            with asker, contextlib.suppress(OSError):
                asker.sendall(f"{error}\n".encode())
        else:
            self._running[process.sentinel] = process, asker
            self._events.register(process.sentinel, selectors.EVENT_READ)
            with contextlib.suppress(OSError):
                asker.sendall(f"{process.pid}\n".encode())
        finally:
            for file in files:
                os.close(file)

    def _work(self, request: Request) -> None:
        """Carry out a request, in the forked process, which lets go of all that is the server's."""
        request.asker.settimeout(None)
        self._events.close()
        self._listener.close()
        for _, asker in self._running.values():
            asker.close()
        request.run(self._command, self._state["environment"])

    def _ended(self, sentinel: int) -> None:
        """Report how a process ended to the one that waits for it, as a shell would."""
        process, asker = self._running.pop(sentinel)
        self._events.unregister(sentinel)
        process.join()
        code = process.exitcode or 0
        process.close()
        with asker, contextlib.suppress(OSError):
            asker.sendall(f"{code if code >= 0 else 128 - code}\n".encode())

    def _check(self, request: Request) -> None:
        """Raise Refused unless a fork is what a fresh process would be."""
        for name in ("package", "executable"):
            if request.process[name] != self._state[name]:
                raise Refused(f"has another {name}, {self._state[name]}")
        if (old := _when_loaded(self._state)) != (new := _when_loaded(request.process)):
            raise Refused(f"was started with other values of {', '.join(sorted(dict(old.items() ^ new.items())))}")
        if _sources() != self._sources:
            raise Refused("code or packages have changed since it was started")
        pid, user, _ = struct.unpack("3i", request.asker.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if user != os.getuid():
            raise Refused("belongs to another user")
        if Path(f"/proc/{pid}/cgroup").read_text() != Path("/proc/self/cgroup").read_text():
            raise Refused("has other limits of CPU or memory (cgroup)")


def _when_loaded(process: dict[str, Any]) -> dict[str, str]:
    return {name: value for name, value in process["environment"].items() if name.startswith(READ_WHEN_LOADED)}


def _sources() -> dict[str, int]:
    """Return when this package's modules, and the list of packages that are installed, were last changed."""
    files = [module.__file__ for name, module in list(sys.modules.items()) if name.partition(".")[0] == PACKAGE]
    places = {*filter(None, files), *(sysconfig.get_path(name) for name in ("purelib", "platlib"))}
    return {place: os.stat(place).st_mtime_ns for place in sorted(places)}


def main(listener: str, owner: str, folder: str, command: str, *imported: str) -> None:
    """Import everything once, then answer requests."""
    state = process_state()
    try:
        for module in imported:
            importlib.import_module(module)
        gc.freeze()  # what all processes share is not looked through, nor copied, in any of them
        if is_forkable():
            Server(socket.socket(fileno=int(listener)), int(owner), command, state).serve()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def is_forkable() -> bool:
    """Whether this process has a single thread and no GPU: forked processes have neither threads nor a working GPU."""
    files = [os.readlink(file) for file in Path("/proc/self/fd").iterdir() if file.is_symlink()]
    return len(os.listdir("/proc/self/task")) == 1 and not any("/nvidia" in file for file in files)


if __name__ == "__main__":
    main(*sys.argv[1:])
    os._exit(0)  # to take apart what was imported takes half a second
