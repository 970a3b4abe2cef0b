"""Lets a fork server run this process's command, and stands in for it: signals go there, the exit code comes back.

Only the standard library is imported: every job of a workflow starts with this (`ssrob.runtime.fork_server`).
"""

import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ssrob.runtime.signals import handled

ADDRESS = "SSROB_FORK_SERVER"  # the environment variable with the path of the server's socket
START_SECONDS = 120.0  # a server that has not answered by then hangs; a cold disk takes a quarter of it
FORWARDED = {
    signal.SIGINT: signal.SIGINT,
    signal.SIGTERM: signal.SIGTERM,
    signal.SIGTSTP: signal.SIGSTOP,  # Ctrl-Z; a process of another session ignores SIGTSTP
    signal.SIGCONT: signal.SIGCONT,
}


def run() -> int | None:
    """Run the command of `sys.argv` in a fork of the server's process and return its exit code.

    Returns None where the command is to be run here: no server, one that refuses, or one that died on the way.
    """
    address = os.environ.pop(ADDRESS, "")  # for this process alone, not for what it starts in turn
    if not address:
        return None
    with socket.socket(socket.AF_UNIX) as server:
        server.settimeout(START_SECONDS)
        try:
            server.connect(address)
            socket.send_fds(server, [b"\n"], [0, 1, 2])
            server.sendall(json.dumps(process_state()).encode() + b"\n")
            answers = server.makefile("rb")
            process = answers.readline().decode().strip()
        except OSError as error:
            process = f"{type(error).__name__}: {error}"
        if not process.isdecimal():
            print(f"fork server: {process or 'it has ended'}; running without it", file=sys.stderr)
            return None
        server.settimeout(None)
        with _forwarding(int(process)) as received, contextlib.suppress(ConnectionResetError):
            if code := answers.readline():
                return int(code)
        return 128 + received[-1] if received else None


def process_state() -> dict[str, Any]:
    """Return what a process inherits from the one that started it, and where its code is from."""
    umask = os.umask(0o77)
    os.umask(umask)
    return {
        "package": str(Path(__file__).parents[1]),
        "executable": sys.executable,
        "arguments": sys.argv[1:],
        "path": sys.path,
        "cwd": os.getcwd(),
        "environment": dict(os.environ),
        "umask": umask,
        "cores": sorted(os.sched_getaffinity(0)),
    }


@contextlib.contextmanager
def _forwarding(process: int) -> Iterator[list[int]]:
    """Send the signals that reach this process to the one that works for it; gives those that ask for its end."""
    received: list[int] = []

    def forward(number: int, _: object) -> None:
        if number in (signal.SIGINT, signal.SIGTERM):
            received.append(number)
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, FORWARDED[signal.Signals(number)])
        if number == signal.SIGTSTP:
            os.kill(os.getpid(), signal.SIGSTOP)

    with handled(FORWARDED, forward):
        yield received
