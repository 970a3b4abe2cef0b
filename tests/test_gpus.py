"""Leases of GPUs, on pretended indices."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ssrob.gpus import lease, visible

HOLD = "import sys, time; from pathlib import Path; from ssrob.gpus import lease\n"
HOLD += "with lease(Path(sys.argv[1])) as index: print(index, flush=True); time.sleep(60)"


def hold(folder: Path) -> tuple[subprocess.Popen[str], str]:
    """Start a process that holds a GPU, and tell which."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    return process, process.stdout.readline().strip()


def test_two_jobs_hold_two_gpus_and_a_killed_one_frees_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    (one, first), (two, second) = hold(tmp_path), hold(tmp_path)
    assert {first, second} == {"4", "7"}
    waiting = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    time.sleep(1.5)
    assert waiting.poll() is None, "both are taken: the third waits"
    one.send_signal(signal.SIGKILL)
    one.wait()
    assert waiting.stdout
    assert waiting.stdout.readline().strip() == first
    for process in (two, waiting):
        process.kill()
        process.wait()


def test_a_lease_names_the_gpu_and_gives_the_environment_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with lease(tmp_path) as index:
        assert index == os.environ["CUDA_VISIBLE_DEVICES"] == "3"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"


@pytest.mark.parametrize(("told", "indices"), [("", []), ("-1", []), ("0", ["0"]), ("0,1", ["0", "1"])])
def test_what_may_be_used(told: str, indices: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", told)
    assert visible() == indices


def test_under_slurm_and_without_gpus_nothing_is_leased(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    with lease(tmp_path) as index:
        assert index is None
    monkeypatch.delenv("SLURM_JOB_ID")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with lease(tmp_path) as index:
        assert index is None
    assert list(tmp_path.iterdir()) == []
