"""A test that hangs or whose process dies is a failure with its name, whichever way the tests are run."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TESTS = """
    import ctypes, os, signal, time
    import pytest

    def test_before(): pass

    def test_hangs(): time.sleep(1000)

    def test_hangs_in_c():  # as a deadlock in a library does: no signal handler of Python runs
        mutex = (ctypes.c_byte * 64)()
        for _ in range(2):
            ctypes.PyDLL(None).pthread_mutex_lock(mutex)

    group = pytest.mark.xdist_group("group")

    @group
    def test_grouped_before(): pass

    @group
    def test_is_killed(): os.kill(os.getpid(), signal.SIGKILL)

    @group
    def test_crashes(): os.abort()

    @group
    def test_grouped_after(): pass

    @pytest.fixture(scope="session")
    def hanging_end():
        yield
        time.sleep(1000)

    def test_hangs_after_its_end(hanging_end): pass

    def test_after(): pass
"""


def run(folder: Path, *names: str, options: str = "", limits: tuple[int, int, int] = (2, 4, 30)) -> tuple[int, str]:
    """Run tests of `TESTS` with the project's own options but for the limits, in seconds; it must end by itself."""
    (folder / "test_bad.py").write_text(textwrap.dedent(TESTS))
    given = dict(zip(("timeout", "faulthandler_timeout", "watchdog_silence"), limits, strict=True))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-c",
        ROOT / "pyproject.toml",
        "--rootdir",
        folder,
        "-p",
        "tests.watchdog",
    ]
    command += [f"--override-ini={name}={value}" for name, value in given.items()]
    command += [*options.split(), *(f"{folder}/test_bad.py::{name}" for name in names)]
    done = subprocess.run(map(str, command), cwd=ROOT, capture_output=True, text=True, check=False, timeout=240)
    return done.returncode, done.stdout + done.stderr


def failed(output: str) -> set[str]:
    return set(re.findall(r"^(?:FAILED|ERROR) \S*::(\w+)", output, re.MULTILINE))


def make_test() -> str:
    """Return the options with which `make test` runs pytest."""
    (command,) = re.findall(r"^\tpytest (-n .*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return str(command).replace("auto", "2")


@pytest.mark.parametrize("name", ["test_hangs", "test_hangs_in_c", "test_is_killed", "test_crashes"])
@pytest.mark.parametrize("distributed", [False, True])
def test_a_bad_test_is_a_failure_with_its_name(tmp_path: Path, name: str, distributed: bool) -> None:
    status, output = run(tmp_path, "test_before", name, options=make_test() if distributed else "")
    assert status != 0
    assert failed(output) == {name}, output


def test_all_bad_tests_of_one_run_are_named_and_the_run_ends(tmp_path: Path) -> None:
    """A crash in the middle of a group once left the rest of the group to a worker that was never given it."""
    names = ["test_before", "test_hangs", "test_grouped_before", "test_is_killed", "test_grouped_after", "test_after"]
    status, output = run(tmp_path, *names, options=make_test())
    assert status != 0
    assert failed(output) == {"test_hangs", "test_is_killed"}, output


@pytest.mark.parametrize("distributed", [False, True])
def test_a_run_that_hangs_outside_its_tests_is_ended(tmp_path: Path, distributed: bool) -> None:
    """At the end of a worker, say, after its last test: no limit of a test applies, the main process waits for ever."""
    options = make_test() if distributed else ""
    status, output = run(tmp_path, "test_hangs_after_its_end", options=options, limits=(0, 0, 8))
    assert status != 0
    assert "no test started or ended for 8 s: killed" in output


def test_good_tests_pass_and_leave_no_process(tmp_path: Path) -> None:
    status, output = run(tmp_path, "test_before", "test_after")
    assert (status, failed(output)) == (0, set()), output
    assert "watchdog" not in output
