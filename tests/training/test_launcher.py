"""One training in two processes: the same result as in one, the same bits when resumed, one error when one fails."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from ssrob.config.fields import ConfigError
from ssrob.config.loader import parse_study
from ssrob.losses.batch import Batch
from ssrob.planning.plan import make_plan
from ssrob.planning.stage import Stage
from ssrob.registry.lookup import load
from ssrob.registry.losses import loss_row
from ssrob.runtime import job, runner
from ssrob.seeding import generator
from ssrob.storage.store import Store, sha256
from ssrob.storage.tables import read_table
from ssrob.training.distributed import ReplicaGroup
from tests.conftest import tiny_config
from tests.trainings import run_stage

PAIR = {"replicas": 2}
JOINT = {"variant": "at_ssl_joint", "norm": "l2"}
BARE = {"model": {"name": "bare", "width": 4}, "plugins": ["tests.bare_network"]}
FILES = ("last.safetensors", "best.safetensors", "training.parquet")


def prepared(folder: Path, training: dict[str, Any], **changes: Any) -> tuple[Stage, Store]:
    """Run what a fine-tuning needs, and return it."""
    config = tiny_config(folder, **changes)
    plan = make_plan(parse_study(config | {"finetune": config["finetune"] | training}))
    store = Store(plan.study.results)
    for stage in plan.stages.values():
        if stage.kind in ("data", "pretrain"):
            runner.run(stage, store, device="cpu")
    return next(iter(plan.of_kind("finetune").values())), store


def records(store: Store, stage: Stage) -> pd.Series:
    return read_table(store.output(stage.path, "training.parquet")).set_index(["step", "metric"])["value"]


@pytest.mark.parametrize(
    "changes",
    [
        BARE | {"arms": [JOINT], "finetune": {"ema": 0.9, "augment": ["crop", "flip"]}},
        {"arms": [{"variant": "at", "norm": "linf", "init": "ssl", "tune": "head"}]},
    ],
    ids=["without BatchNorm", "head alone"],
)
def test_two_processes_train_what_one_does(changes: dict[str, Any], tmp_path: Path) -> None:
    options = {"epochs": 2} | changes.get("finetune", {})
    changes = {name: value for name, value in changes.items() if name != "finetune"}
    one, alone = prepared(tmp_path / "one", options, **changes)
    two, together = prepared(tmp_path / "two", options | PAIR, **changes)
    assert one.key != two.key
    assert (two.gpus, two.cores, one.cores) == (2, 2, 1)
    run_stage(one, alone)
    run_stage(two, together)
    weights = [load_file(store.output(s.path, "last.safetensors")) for s, store in ((one, alone), (two, together))]
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-4, atol=1e-5, msg=name)  # float32, six steps
    given = [records(alone, one), records(together, two)]
    per_batch = [each[~each.index.get_level_values("metric").str.startswith("gradient_norm")] for each in given]
    pd.testing.assert_series_equal(*per_batch, rtol=1e-4, atol=1e-6)  # gradient norms are means over the slices' norms
    assert together.provenance(two.path)["replicas"] == 2


def test_batchnorm_statistics_are_those_of_slices_and_running_ones_are_shared(tmp_path: Path) -> None:
    stage, store = prepared(tmp_path, PAIR, arms=[{"variant": "standard"}])
    run_stage(stage, store)
    weights = load_file(store.output(stage.path, "last.safetensors"))
    assert all(value.isfinite().all() for value in weights.values())
    given = records(store, stage)
    assert given.loc[3, "loss/total"] < given.loc[1, "loss/total"] * 1.5
    # that both replicas have the same bits is checked by the training itself, before every validation


def start(stage: Stage, store: Store, **environment: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ssrob", "run", "--results", str(store.root), "--stage", stage.to_json()]
    given = {"OMP_NUM_THREADS": "1"} | {name: str(value) for name, value in environment.items()}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | given)


def until_it_trains(process: "subprocess.Popen[str]", store: Store, stage: Stage) -> list[int]:
    """Wait for the first validation of many; return the process ids of the replicas."""
    log = store.folder(stage.path) / "log.txt"
    until = time.monotonic() + 120
    while not (log.exists() and "epoch 1" in log.read_text()) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    assert process.poll() is None, process.stderr and process.stderr.read()
    threads = Path(f"/proc/{process.pid}/task").glob("*/children")
    children = [child for thread in threads for child in thread.read_text().split()]
    given = {int(child): Path(f"/proc/{child}/cmdline").read_bytes() for child in children}
    return [child for child, command in given.items() if b"--stage" in command]


def gone(children: list[int]) -> bool:
    until = time.monotonic() + 10
    while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < until:
        time.sleep(0.02)
    return not any(Path(f"/proc/{child}").exists() for child in children)


LONG = PAIR | {"epochs": 8, "validation_steps": 1, "ema": 0.9}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Stage, Store]:
    """A training by two replicas that nobody disturbed."""
    stage, store = prepared(tmp_path_factory.mktemp("whole"), LONG, arms=[{"variant": "at", "norm": "linf"}])
    run_stage(stage, store)
    return stage, store


def disturbed(folder: Path) -> tuple[Stage, Store, "subprocess.Popen[str]", list[int]]:
    stage, store = prepared(folder, LONG, arms=[{"variant": "at", "norm": "linf"}])
    process = start(stage, store)
    return stage, store, process, until_it_trains(process, store, stage)


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
class TestDisturbed:
    def test_sigterm_leaves_a_checkpoint_and_it_goes_on_to_the_same_bits(
        self, whole: tuple[Stage, Store], tmp_path: Path
    ) -> None:
        stage, store, process, replicas = disturbed(tmp_path)
        assert len(replicas) == 2
        for each in (process.pid, *replicas):  # as a scheduler does
            os.kill(each, signal.SIGTERM)
        _, given = process.communicate(timeout=60)
        assert process.returncode == 143, given
        assert "run it again to go on from there" in given
        assert gone(replicas)
        assert (store.work(stage.path) / "checkpoint.pt").exists()
        run_stage(stage, store)
        assert "resumed at step" in (store.folder(stage.path) / "log.txt").read_text()
        for name in FILES:
            assert sha256(store.output(stage.path, name)) == sha256(whole[1].output(stage.path, name)), name

    @pytest.mark.parametrize("rank", [0, 1])
    def test_a_killed_replica_ends_all_with_one_error(self, rank: int, tmp_path: Path) -> None:
        stage, store, process, replicas = disturbed(tmp_path)
        os.kill(sorted(replicas)[rank], signal.SIGKILL)
        _, given = process.communicate(timeout=60)
        assert process.returncode == 1
        assert f"replica {rank} was ended by SIGKILL" in given
        assert len(given.splitlines()) == 2, given  # the error, and where the log is
        assert gone(replicas)
        assert not store.done(stage.path)

    def test_replicas_do_not_outlive_the_process_that_watches(self, tmp_path: Path) -> None:
        _, _, process, replicas = disturbed(tmp_path)
        process.kill()
        process.wait()
        assert gone(replicas)


def two_nodes(stage: Stage, store: Store) -> "list[subprocess.Popen[str]]":
    """Start the stage as a scheduler does, by the same command on each of two nodes."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        meet_at = f"127.0.0.1:{free.getsockname()[1]}"
    return [start(stage, store, PET_NNODES=2, PET_NODE_RANK=rank, PET_RDZV_ENDPOINT=meet_at) for rank in (1, 0)]


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_two_nodes_go_on_to_the_bits_of_one_after_a_replica_was_killed(
    whole: tuple[Stage, Store], tmp_path: Path
) -> None:
    stage, store = prepared(tmp_path, LONG, arms=[{"variant": "at", "norm": "linf"}])
    second, first = two_nodes(stage, store)
    [killed] = until_it_trains(second, store, stage)
    os.kill(killed, signal.SIGKILL)
    said = [process.communicate(timeout=120)[1] for process in (first, second)]
    assert (first.returncode, second.returncode) == (1, 1), said
    assert "LostReplica: another replica ended" in said[0]
    assert "replica 1 was ended by SIGKILL" in said[1]
    assert [len(each.splitlines()) for each in said] == [2, 2], said
    assert not store.done(stage.path)
    for process in two_nodes(stage, store):
        assert process.wait(timeout=120) == 0
    for name in FILES:
        assert sha256(store.output(stage.path, name)) == sha256(whole[1].output(stage.path, name)), name
    assert [store.provenance(stage.path)[name] for name in ("replicas", "nodes")] == [2, 2]


def test_nodes_that_cannot_share_the_replicas_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage, store = prepared(tmp_path, PAIR, arms=[{"variant": "standard"}])
    monkeypatch.setenv("PET_NNODES", "3")
    monkeypatch.setenv("PET_RDZV_ENDPOINT", "127.0.0.1:1")
    said: list[str] = []
    assert job.run(stage, store, "cpu", said.append) == 1
    assert "2 cannot be shared equally by 3 nodes" in said[0]


def test_an_error_in_a_replica_is_the_error_of_the_stage(tmp_path: Path) -> None:
    training = PAIR | {"lr": 1e20, "epochs": 4, "warmup": 0}
    stage, store = prepared(tmp_path, training, arms=[{"variant": "standard"}])
    said: list[str] = []
    assert job.run(stage, store, "cpu", said.append) == 1
    assert len(said) == 1
    assert re.search(r"at step \d+: training diverged.*\n  more in ", said[0]), said
    assert "in _write" in (store.folder(stage.path) / "log.txt").read_text(), "where it was raised"


@pytest.mark.parametrize("task", ["rotation", "jigsaw", "contrastive", "vicreg"])
@pytest.mark.parametrize("count", [2, 10, 12])
def test_the_parts_of_a_batch_make_up_the_whole(task: str, count: int) -> None:
    row = loss_row(task, {})
    assert row.draw
    drawn = load(row.draw)(count, generator(0, "view"), **row.arguments)
    x = torch.rand(count, 1, 4, 4)
    moved = {"adv": x + 1, "adv:two": torch.cat([x + 2, x + 3])}
    batch = Batch(x, torch.arange(count), {task: drawn}, moved)
    parts = [ReplicaGroup(rank, 2).local_shard(batch) for rank in range(2)]
    assert torch.equal(torch.cat([part.drawn[task] for part in parts]), drawn)
    assert torch.equal(torch.cat([part.x for part in parts]), x)
    assert torch.equal(torch.cat([part.y for part in parts]), batch.y)
    assert torch.equal(torch.cat([part.starts["adv"] for part in parts]), x + 1)
    both = torch.cat([part.starts["adv:two"].unflatten(0, (2, -1)) for part in parts], dim=1)
    assert torch.equal(both, torch.stack([x + 2, x + 3]))
    with pytest.raises(ValueError, match="cannot be shared equally by 7 replicas"):
        ReplicaGroup(0, 7).local_shard(batch)


def test_replicas_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    training = tiny_config(tmp_path)["finetune"] | {"replicas": 3}
    with pytest.raises(ConfigError, match=r"batch_size must be a multiple of replicas \(3\), found 100"):
        parse_study(tiny_config(tmp_path, finetune=training))
