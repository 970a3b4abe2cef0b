"""A pytest plugin: names the test that was running when the test run died or fell silent, and ends it.

pytest-timeout fails a test that hangs in Python and goes on; faulthandler ends a process that hangs in C (the limits of
both are in pyproject.toml); pytest-xdist names the test of a worker that died. What remains is the main process: if it
is killed, or waits for ever for a worker, it can say nothing any more. So a second process is sent the start and end of
every test, and says it.
"""

import os
import signal
import subprocess
import sys

import pytest

START, END, DONE = "start", "end", "done"


class Watched:
    """In the main process: sends the watching process what happens."""

    def __init__(self, silence: int):
        command = [sys.executable, __file__, str(os.getpid()), str(silence)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, bufsize=1)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._send(f"{START} {nodeid}")

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._send(f"{END} {nodeid}")

    def pytest_unconfigure(self) -> None:
        self._send(DONE)
        self._process.communicate()

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("watchdog_silence", "seconds without the start or end of any test after which a run is killed")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # the process that runs or distributes the tests, not an xdist worker
        config.pluginmanager.register(Watched(int(config.getini("watchdog_silence"))))


def watch(pid: int, silence: int) -> None:
    """Read starts and ends from stdin until the run is done; name what runs when it dies or when nothing comes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the tests, which then say that they are done
    signal.signal(signal.SIGALRM, _silent)
    running: list[str] = []
    try:
        while (line := _next_line(silence)) != DONE:
            word, _, nodeid = line.partition(" ")
            if not word:
                return _report("the process died", running)
            running = [*running, nodeid] if word == START else [each for each in running if each != nodeid]
    except TimeoutError:
        os.kill(pid, signal.SIGKILL)
        _report(f"no test started or ended for {silence} s: killed", running)


def _next_line(silence: int) -> str:
    signal.alarm(silence)
    return sys.stdin.readline().rstrip("\n")


def _silent(*_: object) -> None:
    raise TimeoutError


def _report(what: str, running: list[str]) -> None:
    lines = [f"FAILED {nodeid} - {what} while it ran" for nodeid in running] or [f"FAILED: {what} between two tests"]
    print("", *lines, sep="\n", file=sys.stderr, flush=True)


if __name__ == "__main__":
    watch(int(sys.argv[1]), int(sys.argv[2]))
