"""Leases of GPUs, on pretended indices, held by processes that are killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ssrob.hardware.gpu_lease import jobs_per_gpu, lease, visible
from ssrob.planning.stage import Stage

HOLD = "import sys, time; from pathlib import Path; from ssrob.hardware.gpu_lease import lease\n"
HOLD += "count, jobs, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])\n"
HOLD += "with lease(count, jobs, folder) as held: print(*held, flush=True); time.sleep(60)"
SOON = 1.5  # seconds, three looks: long enough for a lease that could be had


class Holders:
    """Processes that hold GPUs until they are killed."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.started: list[subprocess.Popen[str]] = []

    def start(self, count: int = 1, jobs: int = 1) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", HOLD, str(count), str(jobs), str(self.folder)]
        self.started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return self.started[-1]

    def hold(self, count: int = 1, jobs: int = 1) -> "tuple[subprocess.Popen[str], list[str]]":
        """Start one and wait until it has its GPUs."""
        process = self.start(count, jobs)
        return process, held(process)


def held(process: "subprocess.Popen[str]") -> list[str]:
    assert process.stdout
    return process.stdout.readline().split()


def waits(process: "subprocess.Popen[str]") -> bool:
    """Return whether it has got nothing for a while; it would have ended or printed otherwise."""
    assert process.stdout
    os.set_blocking(process.stdout.fileno(), False)
    time.sleep(SOON)
    nothing = not process.stdout.readline() and process.poll() is None
    os.set_blocking(process.stdout.fileno(), True)
    return nothing


def kill(*processes: "subprocess.Popen[str]") -> None:
    for process in processes:
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Holders]:
    """Three pretended GPUs."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,4,7")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    holders = Holders(tmp_path)
    yield holders
    kill(*holders.started)


def test_each_job_holds_a_gpu_and_a_killed_one_frees_its_own(gpus: Holders) -> None:
    holders = [gpus.hold() for _ in range(3)]
    assert {index for _, indices in holders for index in indices} == {"2", "4", "7"}
    waiting = gpus.start()
    assert waits(waiting)
    process, freed = holders[1]
    kill(process)
    assert held(waiting) == freed


def test_no_more_than_k_jobs_share_a_gpu(gpus: Holders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    first, second = gpus.hold(jobs=2), gpus.hold(jobs=2)
    assert first[1] == second[1] == ["2"]
    third = gpus.start(jobs=2)
    assert waits(third)
    kill(first[0])
    assert held(third) == ["2"]


def test_who_wants_a_gpu_alone_gets_it_alone(gpus: Holders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    sharing, _ = gpus.hold(jobs=3)
    alone = gpus.start(jobs=1)
    assert waits(alone)
    kill(sharing)
    assert held(alone) == ["2"]
    assert waits(gpus.start(jobs=3))


def test_several_gpus_are_had_all_or_none_and_nobody_overtakes_for_ever(gpus: Holders) -> None:
    one, _ = gpus.hold()
    other, _ = gpus.hold()
    both = gpus.start(count=2)
    assert waits(both), "one GPU is free, two are wanted"
    late = gpus.start()
    assert waits(late), "the free GPU is kept for whom is first in the queue"
    kill(one)
    assert len(held(both)) == 2
    kill(other)
    assert len(held(late)) == 1


def test_a_waiting_job_holds_nothing_when_it_is_killed(gpus: Holders) -> None:
    taken, _ = gpus.hold(count=2)
    waiting = gpus.start(count=2)
    assert waits(waiting)
    kill(waiting, taken)
    assert len(gpus.hold(count=3)[1]) == 3


def test_more_than_there_are_is_refused(gpus: Holders) -> None:
    with pytest.raises(ValueError, match=r"4 GPUs are asked for, 3 are visible here \(2, 4, 7\)"), lease(4):
        pass


def test_a_lease_names_the_gpus_and_gives_the_environment_back(gpus: Holders) -> None:
    with lease(2, 1, gpus.folder) as indices:
        assert indices == ["2", "4"]
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "2,4"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2,4,7"


def test_stages_within_a_slurm_job_of_several_gpus_lease_from_those(
    gpus: Holders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    (_, first), (_, second) = gpus.hold(), gpus.hold(count=2)
    assert sorted(first + second) == ["2", "4", "7"]


def test_a_container_counts_its_own_gpus_from_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    files = [Path("/dev/nvidia3"), Path("/dev/nvidiactl"), Path("/dev/nvidia-uvm"), Path("/dev/nvidia5")]
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter(files))
    assert visible() == ["0", "1"]


@pytest.mark.parametrize(("value", "indices"), [("", []), ("-1", []), ("0", ["0"]), ("0,1", ["0", "1"])])
def test_what_may_be_used(value: str, indices: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert visible() == indices


def test_under_slurm_and_without_gpus_nothing_is_leased(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    with lease(folder=tmp_path) as indices:
        assert indices == []
    monkeypatch.delenv("SLURM_JOB_ID")
    with lease(count=0, folder=tmp_path) as indices:
        assert indices == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with lease(count=2, folder=tmp_path) as indices:
        assert indices == []
    assert list(tmp_path.iterdir()) == []


def test_how_many_jobs_share_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSROB_JOBS_PER_GPU", raising=False)
    assert jobs_per_gpu() == 1
    assert jobs_per_gpu(3) == 3
    monkeypatch.setenv("SSROB_JOBS_PER_GPU", "2")
    assert jobs_per_gpu(3) == 2
    monkeypatch.setenv("SSROB_JOBS_PER_GPU", "0")
    with pytest.raises(ValueError, match="SSROB_JOBS_PER_GPU must be a whole number >= 1, found '0'"):
        jobs_per_gpu()


def test_what_a_stage_asks_for() -> None:
    assert Stage("data", "k", {}).gpus == 0
    train = Stage("finetune", "k", {"training": {"replicas": 4, "threads": 3}})
    assert (train.gpus, train.threads) == (4, 3)
    assert (Stage("evaluate", "k", {"threads": 2}).gpus, Stage("evaluate", "k", {"threads": 2}).threads) == (1, 2)
