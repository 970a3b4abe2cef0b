"""Commands in forks of a prepared process: as a process of its own in all that can be seen, and nothing is left."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ssrob.runtime import fork_server
from ssrob.runtime.fork_client import ADDRESS
from tests.conftest import ROOT

COMMAND = "tests.runtime.forked_command"
JOB = f"""
import runpy, sys
from ssrob.runtime import fork_client
code = fork_client.run()
if code is None:
    print("alone", flush=True)
    runpy.run_module({COMMAND!r}, run_name="__main__", alter_sys=True)
sys.exit(code)
"""
OWNER = f"""
import os, sys
from ssrob.runtime import fork_server
fork_server.start({COMMAND!r}, [])
print(os.environ[{ADDRESS!r}], flush=True)
sys.stdin.read()
"""
ALONE = "alone\n"  # what a job says that does its work itself
LONG = 120.0  # seconds in which a loaded machine gets anywhere
Owner = subprocess.Popen[str]


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + LONG
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def temporary(tmp_path: Path) -> Iterator[Path]:
    """A folder for sockets: their paths must be short."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def own(temporary: Path, folder: Path = ROOT) -> tuple[Owner, str]:
    """Start a process that has a server: the workflow."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT)} | os.environ | {"TMPDIR": str(temporary)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout
    return owner, owner.stdout.readline().strip()


@pytest.fixture
def address(temporary: Path) -> Iterator[str]:
    owner, address = own(temporary)
    yield address
    owner.communicate()
    until(lambda: not servers(address) and not list(temporary.iterdir()))


def servers(address: str) -> list[int]:
    """Find the processes of a server and of its forks."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
            if str(Path(address).parent).encode() in arguments:
                found.append(int(entry.name))
    return sorted(found)


def job(address: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    environment = {"PYTHONPATH": str(ROOT)} | os.environ | dict.fromkeys(fork_server.THREADS, "1") | {ADDRESS: address}
    options = {"cwd": ROOT, "env": environment | options.pop("env", {})} | options
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen([sys.executable, "-c", JOB, *arguments], text=True, **pipes, **options)


def started(note: Path) -> int:
    """Return the process that runs a waiting command."""
    until(lambda: note.is_file() and note.read_text())
    return int(note.read_text())


def state(process: int) -> str:
    """Return the state of a process as `ps` shows it: T stopped, Z ended and not yet waited for."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]


def alive(process: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return state(process) != "Z"
    return False


@contextlib.contextmanager
def env(name: str, value: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(name, value)
        yield


def ended(process: subprocess.Popen[str], stdin: str = "") -> tuple[int, str, str]:
    out, err = process.communicate(stdin, timeout=LONG)
    return process.returncode, out, err


def test_a_forked_process_has_what_a_fresh_one_has(address: str, tmp_path: Path) -> None:
    """Arguments, folder, environment, mask, import path, cores and files; none of what the server alone has."""
    options: dict[str, Any] = {"cwd": tmp_path, "umask": 0o27, "env": {"WORD": "ä b", "CUDA_VISIBLE_DEVICES": "1"}}
    cores = {min(os.sched_getaffinity(0))}
    forked, alone = (
        ended(job(each, "tell", "x", "y z", preexec_fn=lambda: os.sched_setaffinity(0, cores), **options), "stdin")
        for each in (address, "")
    )
    assert alone[1].startswith(ALONE)
    assert not forked[1].startswith(ALONE), forked
    assert json.loads(forked[1]) == json.loads(alone[1].removeprefix(ALONE))
    assert (forked[0], forked[2]) == (alone[0], alone[2]) == (0, "STDIN\n")


def test_exit_codes_and_errors_are_those_of_a_fresh_process(address: str) -> None:
    for arguments in (["exit", "0"], ["exit", "3"], ["die", "SIGKILL"], ["die", "SIGSEGV"], ["fail"]):
        forked, alone = ended(job(address, *arguments)), ended(job("", *arguments))
        killed = alone[0] if alone[0] >= 0 else 128 - alone[0]  # as a shell says it
        assert (forked[0], forked[1]) == (killed, alone[1].removeprefix(ALONE))
    assert "ValueError: as it should" in forked[2]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_command_and_nothing_else(address: str, tmp_path: Path, number: signal.Signals) -> None:
    waiting = [job(address, "wait", str(tmp_path / name)) for name in "ab"]
    processes = [started(tmp_path / name) for name in "ab"]
    waiting[0].send_signal(number)
    assert ended(waiting[0])[:2] == (143, f"asked {number.name}\n")
    assert alive(processes[1])
    assert waiting[1].poll() is None
    waiting[1].terminate()
    assert ended(waiting[1])[0] == 143


def test_a_command_may_take_longer_than_a_request(address: str, tmp_path: Path) -> None:
    waiting = job(address, "wait", str(tmp_path / "a"))
    started(tmp_path / "a")
    time.sleep(fork_server.ASK_SECONDS + 0.5)
    waiting.terminate()
    assert ended(waiting)[:2] == (143, "asked SIGTERM\n")


def test_a_stopped_job_stops_its_command_and_goes_on_with_it(address: str, tmp_path: Path) -> None:
    """Ctrl-Z and ``fg``."""
    waiting = job(address, "wait", str(tmp_path / "a"))
    process = started(tmp_path / "a")
    waiting.send_signal(signal.SIGTSTP)
    until(lambda: state(process) == state(waiting.pid) == "T")
    waiting.send_signal(signal.SIGCONT)
    until(lambda: state(process) != "T" and state(waiting.pid) != "T")
    waiting.terminate()
    assert ended(waiting)[0] == 143


def test_a_killed_job_takes_its_command_along(address: str, tmp_path: Path) -> None:
    waiting = job(address, "wait", str(tmp_path / "a"))
    process = started(tmp_path / "a")
    waiting.kill()
    ended(waiting)
    until(lambda: not alive(process))


def test_a_killed_command_ends_its_job(address: str, tmp_path: Path) -> None:
    waiting = job(address, "wait", str(tmp_path / "a"))
    os.kill(started(tmp_path / "a"), signal.SIGKILL)
    assert ended(waiting)[0] == 128 + signal.SIGKILL


def test_without_its_server_a_job_goes_on_and_later_ones_run_alone(address: str, tmp_path: Path) -> None:
    waiting = job(address, "wait", str(tmp_path / "a"))
    process = started(tmp_path / "a")
    os.kill(servers(address)[0], signal.SIGKILL)
    code, out, err = ended(job(address, "exit", "3"))
    assert (code, out) == (3, ALONE)
    assert "running without it" in err
    assert alive(process)
    waiting.terminate()
    assert ended(waiting)[:2] == (143, "asked SIGTERM\n")
    shutil.rmtree(Path(address).parent)


def test_a_job_of_a_server_that_died_while_it_worked_runs_again(address: str, tmp_path: Path) -> None:
    waiting = job(address, "wait", str(tmp_path / "a"))
    process = started(tmp_path / "a")
    os.kill(servers(address)[0], signal.SIGKILL)
    os.kill(process, signal.SIGTERM)  # as if it had come to its end
    until(lambda: (tmp_path / "a").read_text() == str(waiting.pid))
    waiting.terminate()
    assert ended(waiting)[1] == "asked SIGTERM\n" + ALONE + "asked SIGTERM\n"
    shutil.rmtree(Path(address).parent)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_server_ends_after_its_owner_and_the_last_command(temporary: Path, tmp_path: Path, number: int) -> None:
    owner, address = own(temporary)
    waiting = job(address, "wait", str(tmp_path / "a"))
    process = started(tmp_path / "a")
    os.kill(owner.pid, number)
    owner.communicate()
    assert alive(process), "jobs outlive a workflow that was killed, as they did"
    waiting.terminate()
    assert ended(waiting)[0] == 143, "and their exit code is reported"
    until(lambda: not servers(address) and not list(temporary.iterdir()))


def test_two_workflows_have_two_servers(address: str, temporary: Path, tmp_path: Path) -> None:
    owner, other = own(temporary)
    waiting = [job(each, "wait", str(tmp_path / name)) for each, name in ((address, "a"), (other, "b"))]
    processes = [started(tmp_path / name) for name in "ab"]
    assert processes[0] in servers(address)
    assert processes[1] in servers(other)
    waiting[1].terminate()
    ended(waiting[1])
    owner.communicate()
    until(lambda: not servers(other))
    assert alive(processes[0])
    waiting[0].terminate()
    assert ended(waiting[0])[0] == 143


def test_what_a_fork_cannot_make_up_for_is_refused(address: str) -> None:
    for variable in ("OMP_NUM_THREADS", "PYTHONHASHSEED", "ATEN_CPU_CAPABILITY", "LD_PRELOAD"):
        value = "2" if variable != "LD_PRELOAD" else ""
        _, out, err = ended(job(address, "exit", "0", env={variable: value}))
        assert out == ALONE
        assert f"was started with other values of {variable}; running without it" in err


def test_a_socket_is_its_owners_alone(address: str) -> None:
    assert Path(address).parent.stat().st_mode & 0o777 == 0o700


def test_nonsense_does_not_harm_a_server(address: str) -> None:
    for payload in (b"", b"\n", b"\n[]\n", b"\n{}\n", b"\n{"):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(address)
            client.sendall(payload)
    assert ended(job(address, "exit", "5"))[:2] == (5, "")


def test_changed_code_is_not_run_from_memory(temporary: Path, tmp_path: Path) -> None:
    """The server notices that a module that it has imported, or the list of installed packages, is no more the same."""
    package = tmp_path / "ssrob"
    shutil.copytree(ROOT / "ssrob" / "runtime", package / "runtime", ignore=shutil.ignore_patterns("__pycache__"))
    (package / "__init__.py").touch()
    with env("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}"):
        owner, address = own(temporary, tmp_path)
        assert ended(job(address, "exit", "3", cwd=tmp_path))[:2] == (3, "")
        os.utime(package / "runtime" / "fork_client.py", (1, 1))
        code, out, err = ended(job(address, "exit", "3", cwd=tmp_path))
        assert (code, out) == (3, ALONE)
        assert "code or packages have changed since it was started" in err
        owner.communicate()


def test_what_is_preloaded_can_be_forked() -> None:
    """It has one thread and no GPU."""
    script = (
        "import importlib; from ssrob.runtime import fork_server\n"
        "for module in fork_server.IMPORTED: importlib.import_module(module)\n"
        "import torch; print(fork_server.is_forkable(), torch.cuda.is_initialized())\n"
        "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "print(fork_server.is_forkable())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | fork_server.ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["True", "False", "False"]
