"""A study on a private SLURM (`make test-slurm`): disturbed in every way, it ends as it does on one machine."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ssrob.config.loader import parse_study
from ssrob.config.plugins import import_plugins
from ssrob.planning.plan import Plan, make_plan
from ssrob.storage import heartbeat
from ssrob.storage.store import Store, sha256
from tests.conftest import ROOT, tiny_config

pytestmark = [
    pytest.mark.study,
    pytest.mark.skipif(not os.environ.get("SSROB_TEST_SLURM"), reason="needs a SLURM to test on: make test-slurm"),
]
PROFILE = ROOT / "workflow/profiles/slurm"
# For a node of this size; a requeued job is looked at soon.
SMALL = [f"{rule}:mem_mb=1500" for rule in ("data", "finetune", "evaluate", "corrupt")] + ["corrupt:runtime=5"]
LIMITS = ["--default-resources", "runtime=20", "mem_mb=1500", "--set-resources", *SMALL]
SOON = ["--slurm-init-seconds-before-status-checks", "2"]


def slow_config(results: Path) -> dict[str, Any]:
    training = {"epochs": 40, "batch_size": 100, "lr": 0.1, "validation_steps": 2, "validation_images": 50}
    return tiny_config(
        results,
        plugins=["slow_loss"],
        variants={"slow": {"train": {"clean": {"slow_xent": 1}}}},
        finetune=training | {"validate_every": 10},
        arms=[{"variant": "slow"}],
        findings={},
    )


def planned(config: dict[str, Any]) -> tuple[Plan, Store]:
    plan = make_plan(parse_study(config))
    return plan, Store(plan.study.results)


def snakemake(folder: Path, *arguments: object, study: dict[str, Any] | None = None) -> "subprocess.Popen[str]":
    folder.mkdir(exist_ok=True)
    config = folder / "study.yaml"
    config.write_text(yaml.safe_dump(study or slow_config(folder / "results")))
    command = [sys.executable, "-m", "snakemake", "-s", ROOT / "Snakefile", "--configfile", config]
    with (folder / "workflow.log").open("w") as log:
        return subprocess.Popen(
            [*map(str, [*command, "--directory", folder, *arguments])], stdout=log, stderr=log, text=True
        )


def slurm(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def wait_for(what: Callable[[], Any], seconds: float = 150.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, f"it did not happen: {what}"
        time.sleep(0.5)
    return found


def training_job(store: Store, path: str, other_than: tuple[str, ...] = ()) -> str | None:
    """Return the SLURM job that trains, once it has made a few steps."""
    sign = heartbeat.read(store.work(path) / heartbeat.FILE, time.time()) or {}
    if sign.get("done", 0) < sign.get("initial", 0) + 3:
        return None
    key = path.partition("/")[2]
    running = dict(line.split(maxsplit=1) for line in slurm("squeue", "-h", "-t", "R", "-o", "%i %k").splitlines())
    return next((job for job, comment in running.items() if key in comment and job not in other_than), None)


def gone(job: str) -> bool:
    return job not in slurm("squeue", "-h", "-t", "R,CG", "-o", "%i").split()


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that makes trainings slow while it is there."""
    file = tmp_path / "slow"
    file.touch()
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    monkeypatch.syspath_prepend(Path(__file__).parent)
    monkeypatch.setenv("SSROB_TEST_SLOW", str(file))
    import_plugins(["slow_loss"], "tests/slurm")
    return file


def test_cancelled_preempted_and_timed_out_it_ends_with_the_same_bits(tmp_path: Path, slow: Path) -> None:
    plan, store = planned(slow_config(tmp_path / "cluster" / "results"))
    path = plan.arms[0].finetune
    workflow = snakemake(tmp_path / "cluster", "--workflow-profile", PROFILE, *LIMITS, *SOON)
    try:
        disturb(store, path, slow)
        assert workflow.wait(900) == 0, (tmp_path / "cluster" / "workflow.log").read_text()
    finally:
        workflow.terminate()
    resumed = [int(step) for step in re.findall(r"resumed at step (\d+)", (store.folder(path) / "log.txt").read_text())]
    assert len(resumed) == 3  # cancelled, preempted, timed out: the log keeps every attempt
    assert resumed == sorted(resumed)
    assert resumed[-1] >= 9  # each of the three attempts made three steps or more
    here, local = planned(slow_config(tmp_path / "local" / "results"))
    assert snakemake(tmp_path / "local").wait(900) == 0, (tmp_path / "local" / "workflow.log").read_text()
    assert list(here.stages) == list(plan.stages)
    compare(plan, store, here, local)


def test_short_stages_share_jobs_and_a_gpu(tmp_path: Path) -> None:
    study = tiny_config(tmp_path / "results", arms=[{"variant": "standard"}], seeds=[0, 1], findings={})
    workflow = snakemake(tmp_path, "--workflow-profile", PROFILE, *LIMITS, *SOON, study=study)
    log = tmp_path / "workflow.log"
    try:
        assert workflow.wait(900) == 0, log.read_text()
    finally:
        workflow.terminate()
    name = re.search(r"SLURM run ID: (\S+)", log.read_text())
    assert name
    listed = slurm("squeue", "-h", "-t", "all", "--name", name[1], "-o", "%i %k").splitlines()
    jobs = {comment: job for job, comment in map(str.split, listed)}  # once each, whether it was tried again or not
    kinds = sorted(re.sub("_wildcards.*", "", comment) for comment in jobs)
    # Seven jobs for ten: the corruption tests share one, and so do tables, report and the import into MLflow.
    closing = [kind for kind in kinds if "closing" in kind]
    assert len(closing) == 1
    of_stages = ["rule_data", *2 * ["rule_evaluate"], *2 * ["rule_finetune"], "rule_tests_corrupt"]
    assert sorted({*kinds} - {*closing}) == sorted({*of_stages})
    assert len(kinds) == len(of_stages) + 1
    [shared] = [job for comment, job in jobs.items() if "tests_corrupt" in comment]
    assert "TresPerJob=gres:gpu:1" in slurm("scontrol", "show", "job", shared)


SPREAD = ["nodes=2", "tasks=2", "tasks_per_gpu=0", "gpu=0", 'gres="gpu:1"', "slurm_partition=pair"]
SPREAD.append("mpi=srun --nodes=2 --ntasks-per-node=1 --cpus-per-task=1 --kill-on-bad-exit")
ON_TWO_NODES = [*LIMITS, *(f"finetune:{each}" for each in SPREAD), "--set-threads", "finetune=1"]


def pair_config(results: Path) -> dict[str, Any]:
    training = {"epochs": 3, "batch_size": 100, "lr": 0.1, "validation_steps": 2, "validation_images": 50}
    return tiny_config(
        results, finetune=training | {"replicas": 2}, arms=[{"variant": "at", "norm": "linf"}], findings={}
    )


def test_two_nodes_started_by_srun_train_what_one_does(tmp_path: Path) -> None:
    plan, store = planned(pair_config(tmp_path / "cluster" / "results"))
    here, local = planned(pair_config(tmp_path / "local" / "results"))
    path = plan.arms[0].finetune
    until = ["--until", "finetune"]
    workflow = snakemake(
        tmp_path / "cluster", "--workflow-profile", PROFILE, *ON_TWO_NODES, *SOON, *until, study=pair_config(store.root)
    )
    try:
        assert workflow.wait(900) == 0, (tmp_path / "cluster" / "workflow.log").read_text()
    finally:
        workflow.terminate()
    assert store.provenance(path)["nodes"] == 2
    assert snakemake(tmp_path / "local", *until, study=pair_config(local.root)).wait(900) == 0
    assert list(here.stages) == list(plan.stages)
    for name in store.manifest(path)["outputs"]:
        assert sha256(store.output(path, name)) == sha256(local.output(path, name)), name


def slow_pair_config(results: Path) -> dict[str, Any]:
    config = slow_config(results)
    return config | {"finetune": config["finetune"] | {"replicas": 2}}


def replica(key: str, rank: int) -> int | None:
    """Return the process of one replica of a training; both nodes are this machine."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command, given = ((folder / name).read_bytes() for name in ("cmdline", "environ"))
        except OSError:
            continue
        if key.encode() in command and f"\0RANK={rank}\0".encode() in b"\0" + given:
            return int(folder.name)
    return None


def test_two_nodes_go_on_after_the_loss_of_a_replica(tmp_path: Path, slow: Path) -> None:
    plan, store = planned(slow_pair_config(tmp_path / "cluster" / "results"))
    path, until = plan.arms[0].finetune, ["--until", "finetune"]
    log = store.folder(path) / "log.txt"
    study = slow_pair_config(store.root)
    workflow = snakemake(tmp_path / "cluster", "--workflow-profile", PROFILE, *ON_TWO_NODES, *SOON, *until, study=study)
    try:
        wait_for((store.work(path) / "checkpoint.pt").is_file, 300)  # written as time goes by
        first = wait_for(lambda: training_job(store, path))
        lost = wait_for(lambda: replica(plan.stages[path].key, 1))
        os.kill(lost, signal.SIGKILL)
        wait_for(lambda: gone(first))
        slow.unlink()
        assert workflow.wait(900) == 0, (tmp_path / "cluster" / "workflow.log").read_text()
    finally:
        workflow.terminate()
    resumed = [int(step) for step in re.findall(r"resumed at step (\d+)", log.read_text())]
    assert len(resumed) == 1
    assert resumed[0] >= 1
    here, local = planned(slow_pair_config(tmp_path / "local" / "results"))
    assert snakemake(tmp_path / "local", *until, study=slow_pair_config(local.root)).wait(900) == 0
    assert store.provenance(path)["nodes"] == 2
    for name in store.manifest(path)["outputs"]:
        assert sha256(store.output(path, name)) == sha256(local.output(path, name)), name
    assert list(here.stages) == list(plan.stages)


def disturb(store: Store, path: str, slow: Path) -> None:
    """Cancel the training, preempt what Snakemake starts instead, let the third attempt run out of time."""
    first = wait_for(lambda: training_job(store, path))
    slurm("scancel", first)
    second = wait_for(lambda: training_job(store, path, (first,)))
    everything = ["--partition=urgent", "--gpus=2", "--mem=100"]
    urgent = slurm("sbatch", "--parsable", "--output=/dev/null", *everything, "--wrap=sleep 3").strip()
    wait_for(lambda: gone(second))
    wait_for(lambda: urgent not in slurm("squeue", "-h", "-t", "PD,R,CG", "-o", "%i").split())
    slurm("scontrol", "update", f"JobId={second}", "StartTime=now")  # it would wait for two minutes
    wait_for(lambda: training_job(store, path) == second)
    slurm("scontrol", "update", f"JobId={second}", "TimeLimit=1")  # a minute, and up to another until it is seen
    wait_for(lambda: gone(second))
    assert "JobState=TIMEOUT" in slurm("scontrol", "show", "job", second)
    slow.unlink()


def compare(plan: Plan, store: Store, here: Plan, local: Store) -> None:
    compared = 0
    for path in plan.stages:
        for name in store.manifest(path)["outputs"]:
            if name != "samples.npz":  # a zip, which stores the time
                assert sha256(store.output(path, name)) == sha256(local.output(path, name)), (path, name)
                compared += 1
    for table in sorted((plan.folder / "tables").glob("*.parquet")):
        if table.stem not in ("stages", "arms"):  # they tell times
            assert sha256(table) == sha256(here.folder / "tables" / table.name), table.name
            compared += 1
    assert compared > 10
