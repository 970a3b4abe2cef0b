"""Bad days: each ends in one clear message, and nothing that was finished is lost."""

import contextlib
import errno
import hashlib
import io
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ssrob.analysis.collect import collect
from ssrob.config.fields import ConfigError
from ssrob.config.loader import parse_study
from ssrob.planning.plan import Plan, make_plan
from ssrob.planning.stage import Stage
from ssrob.runtime import checkpoint, job, runner
from ssrob.scheduling.preflight import open_study
from ssrob.scheduling.status import stage_status
from ssrob.storage import heartbeat
from ssrob.storage.lock import claimed
from ssrob.storage.metrics_log import begins_with
from ssrob.storage.store import MANIFEST, TOKEN, Store, StoreError, sha256
from tests.conftest import snakemake, tiny_config

Study = tuple[Plan, Store]


def config(results: Path, **training: Any) -> dict[str, Any]:
    finetune = {"epochs": 4, "batch_size": 40, "lr": 0.1, "validation_steps": 1, "validation_images": 20} | training
    data = {"name": "digits", "source": "digits", "train_images": 180, "test_images": 60}
    return tiny_config(results, data=data, finetune=finetune, arms=[{"variant": "standard"}], diagnose=False)


def study_of(results: Path, prepared: Study, **training: Any) -> Study:
    """A study whose data are there already."""
    plan = make_plan(parse_study(config(results, **training)))
    shutil.copytree(prepared[1].root / "stages" / "data", results / "stages" / "data")
    return plan, Store(results)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study that is run up to its trained model."""
    plan = make_plan(parse_study(config(tmp_path_factory.mktemp("bad") / "results")))
    store = Store(plan.study.results)
    for kind in ("data", "finetune"):
        assert run(only(plan, kind), store) == (0, [])
    return plan, store


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No power is cut here."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint at every step."""
    monkeypatch.setattr(checkpoint.Interval, "due", lambda _: True)


def only(plan: Plan, kind: str) -> Stage:
    return next(iter(plan.of_kind(kind).values()))


def run(stage: Stage, store: Store, device: str = "cpu") -> tuple[int, list[str]]:
    """Run a stage as a job does; return its exit code and what it said, but for the line of one that went well."""
    said: list[str] = []
    code = job.run(stage, store, device, said.append)
    return code, said if code else said[:-1]


def failure(stage: Stage, store: Store, device: str = "cpu") -> str:
    code, said = run(stage, store, device)
    assert code == 1
    assert len(said) == 1, "one message"
    assert len(said[0].splitlines()) <= 2
    assert said[0].startswith(f"{stage.path}: ")
    assert not store.done(stage.path)
    return said[0]


def same_weights(one: Study, other: Study) -> bool:
    files = [store.output(only(plan, "finetune").path, "last.safetensors") for plan, store in (one, other)]
    return sha256(files[0]) == sha256(files[1])


@pytest.mark.usefixtures("often")
def test_a_disk_that_is_full_now_and_then_costs_attempts_and_nothing_else(
    prepared: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is being written, records, checkpoints, tables or a manifest: the n-th time there is no room for it."""
    study = study_of(tmp_path, prepared)
    stage, store = only(study[0], "finetune"), study[1]
    for room in (0, 1, 7, 20, 30, 12, 3, 4):
        left = [room]

        def scarce(_: Any, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", scarce)
        message = failure(stage, store)
        assert "the disk is full; make room and run the workflow again" in message
        assert not list(store.root.rglob("*.partial")), "what could not be written is gone"
    monkeypatch.setattr(os, "fsync", lambda _: None)
    assert run(stage, store) == (0, [])
    assert same_weights(study, prepared)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB; needs root."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting a disk needs root")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.usefixtures("often")
def test_a_real_disk_that_fills_up_and_is_emptied(prepared: Study, small_disk: Path) -> None:
    study = study_of(small_disk / "results", prepared)
    stage, store = only(study[0], "finetune"), study[1]
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    message = failure(stage, store)
    assert "the disk is full; make room" in message
    filler.unlink()
    assert run(stage, store) == (0, [])
    assert same_weights(study, prepared)


def test_a_results_folder_that_is_read_only_is_refused_before_any_job(prepared: Study, small_disk: Path) -> None:
    plan, store = study_of(small_disk / "results", prepared)
    settings = config(small_disk / "results")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(ConfigError, match=r"results: .*results cannot be written to; make it writable or set"):
        open_study(settings)
    message = failure(only(plan, "finetune"), store)
    assert "the disk is read-only; make it writable or set `results`" in message


def test_results_cannot_be_a_file_or_have_braces(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="results: expected a folder, found the file"):
        open_study(config(tmp_path / "file"))
    with pytest.raises(ConfigError, match=r"results: braces and line breaks are not allowed, found '{'"):
        open_study(config(tmp_path / "{kind}"))


def test_a_gpu_without_memory_left_says_what_helps(
    prepared: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, store = study_of(tmp_path, prepared)

    def full(*_: object, **__: object) -> str:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB.\nand much more")

    monkeypatch.setattr(runner, "run", full)
    message = failure(only(plan, "finetune"), store)
    assert "the GPU has too little free memory" in message
    assert "`nvidia-smi`" in message
    assert "finetune.batch_size" in message
    assert "Tried to allocate 20 MiB." in message
    assert "fewer attacks at once" in failure(only(plan, "evaluate"), store)


def test_a_machine_without_memory_left_says_what_helps(
    prepared: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, store = study_of(tmp_path, prepared)

    def full(*_: object, **__: object) -> str:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(runner, "run", full)
    assert "the machine has too little memory; run fewer jobs" in failure(only(plan, "finetune"), store)


def test_no_stage_runs_on_a_cpu_when_a_gpu_was_asked_for(
    prepared: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    _, store = study_of(tmp_path, prepared)
    asked = make_plan(parse_study(config(tmp_path) | {"device": "cuda"}))
    message = failure(only(asked, "finetune"), store, "auto")
    assert "device 'cuda' was asked for, found no GPU that PyTorch" in message
    assert "ask for auto or cpu" in message
    assert only(asked, "finetune").path == only(prepared[0], "finetune").path, "it decides no key"


@pytest.mark.usefixtures("often")
def test_divergence_names_its_step_and_the_last_good_checkpoint(prepared: Study, tmp_path: Path) -> None:
    plan, store = study_of(tmp_path, prepared, lr=1e25, warmup=0.9)
    stage = only(plan, "finetune")
    message = failure(stage, store)
    step, good = map(int, re.findall(r"step (\d+)", message))
    assert "training diverged; lower lr or raise warmup" in message
    assert good == step - 1
    file = store.work(stage.path) / "checkpoint.pt"
    assert str(file) in message
    assert all(value.isfinite().all() for value in checkpoint.load(file)["network"].values())


class Payload:
    """What runs code when it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.mark}",)


def test_a_hostile_checkpoint_is_refused_and_never_run(prepared: Study, tmp_path: Path) -> None:
    """With a right checksum, too: in a work folder that somebody else has prepared."""
    study = study_of(tmp_path / "results", prepared)
    stage, store = only(study[0], "finetune"), study[1]
    mark, buffer = tmp_path / "hacked", io.BytesIO()
    torch.save({"step": 1, "network": Payload(mark)}, buffer)
    store.work(stage.path).mkdir(parents=True)
    for payload in (buffer.getvalue(), pickle.dumps(Payload(mark), protocol=2)):
        checksum = hashlib.sha256(payload).hexdigest().encode() + b"\n"
        (store.work(stage.path) / "checkpoint.pt").write_bytes(checksum + payload)
        with pytest.raises(checkpoint.DamagedCheckpoint, match="holds more than tensors"):
            checkpoint.load(store.work(stage.path) / "checkpoint.pt")
    assert run(stage, store) == (0, [])
    assert "was not opened: starting from the beginning" in (store.folder(stage.path) / "log.txt").read_text()
    assert same_weights(study, prepared)
    assert not mark.exists()


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("what", ["records cut", "records altered", "an earlier version"])
def test_what_does_not_fit_its_checkpoint_is_rebuilt(
    what: str, prepared: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_of(tmp_path, prepared)
    stage, store = only(study[0], "finetune"), study[1]
    asked = iter([False, False, True])
    monkeypatch.setattr(runner, "_signals", lambda: _Answers(asked))
    assert run(stage, store)[0] == job.STOPPED
    monkeypatch.undo()
    file, records = (store.work(stage.path) / name for name in ("checkpoint.pt", "records.jsonl"))
    saved = checkpoint.load(file)
    assert begins_with(records, saved["records"], saved["records_sha256"])
    if what == "an earlier version":
        checkpoint.save({name: value for name, value in saved.items() if name != "best"}, file)
    else:
        lines = records.read_bytes()
        records.write_bytes(lines[:-9] if what == "records cut" else lines.replace(b"0.1", b"0.2", 1))
    assert run(stage, store) == (0, [])
    log = (store.folder(stage.path) / "log.txt").read_text()
    named = "has no 'best', as of an earlier version" if what == "an earlier version" else "records.jsonl: truncated or"
    assert named in log
    assert "starting from the beginning" in log
    tables = [each.output(stage.path, "training.parquet") for each in (store, prepared[1])]
    assert sha256(tables[0]) == sha256(tables[1])
    assert same_weights(study, prepared)


class _Answers:
    """Stands in for the signals: asked between two steps, it answers in turn."""

    def __init__(self, answers: Iterator[bool]):
        self.answers = answers

    def __enter__(self) -> Any:
        return lambda: next(self.answers, False)

    def __exit__(self, *_: object) -> None: ...


def test_what_is_finished_stays_finished_when_snakemake_deletes_its_output(prepared: Study) -> None:
    """It does so before it starts a job, whatever another workflow has done since it made its plan."""
    plan, store = prepared
    stage = only(plan, "finetune")
    weights = store.folder(stage.path) / "last.safetensors"
    before = weights.stat().st_mtime_ns
    (store.folder(stage.path) / TOKEN).unlink()
    assert store.done(stage.path)
    assert run(stage, store) == (0, [])
    assert json.loads((store.folder(stage.path) / TOKEN).read_text()) == store.manifest(stage.path)
    assert weights.stat().st_mtime_ns == before


def test_a_stage_that_another_workflow_runs_is_waited_for(prepared: Study, tmp_path: Path) -> None:
    plan, store = study_of(tmp_path, prepared)
    stage, said, ended = only(plan, "finetune"), list[str](), list[int]()
    second = threading.Thread(target=lambda: ended.append(job.run(stage, store, "cpu", said.append)))
    with claimed(store.work(stage.path), said.append):
        second.start()
        while not said:
            time.sleep(0.01)
        assert re.search(rf"is run by process {os.getpid()} on .*waiting until it is done", said[0])
        out = store.work(stage.path) / "out"
        out.mkdir()
        store.publish(stage, out, {"seconds": 1.0})
    second.join(timeout=60)
    assert ended == [0]
    assert said[1].endswith("already done")
    assert not store.work(stage.path).exists()


def test_a_killed_runner_holds_nothing(tmp_path: Path) -> None:
    code = "import sys, time; from pathlib import Path; from ssrob.storage.lock import claimed\n"
    code += "with claimed(Path(sys.argv[1]), print): print('has it', flush=True); time.sleep(60)"
    with subprocess.Popen(["python", "-c", code, tmp_path], stdout=subprocess.PIPE) as runner:
        assert runner.stdout is not None
        runner.stdout.readline()
        runner.send_signal(signal.SIGKILL)
        runner.wait()
    said: list[str] = []
    with claimed(tmp_path, said.append):
        assert said == []


def test_a_disk_without_locks_goes_by_the_sign_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", none)
    monkeypatch.setattr("ssrob.storage.lock.POLL_SECONDS", 0.01)
    alive = iter([{"pid": 1}, {"pid": 1}, None])
    monkeypatch.setattr(heartbeat, "read", lambda *_: next(alive))
    said: list[str] = []
    with claimed(tmp_path, said.append):
        assert list(alive) == []
        assert said == ["is run by another process; waiting until it is done"]


def test_a_stage_that_vanished_is_told_with_how_far_it_was(prepared: Study, tmp_path: Path) -> None:
    """As after the kernel has killed it for want of memory: no word in its log, and a sign of life that went silent."""
    plan, store = study_of(tmp_path, prepared)
    stage = only(plan, "finetune")
    gone = subprocess.Popen(["true"])
    gone.wait()
    sign = {"pid": gone.pid, "host": "here", "seconds": 3.0, "total": 100, "done": 40, "unit": "step"}
    store.work(stage.path).mkdir(parents=True)
    file = store.work(stage.path) / heartbeat.FILE
    file.write_text(json.dumps(sign))
    found = stage_status(stage, store, 1.0, file.stat().st_mtime + 2 * heartbeat.SILENCE_SECONDS)
    assert found.state == "stopped"
    expected = (
        rf"process {gone.pid} on here exited without a message after .* at 40 of 100 steps: killed, out of memory"
    )
    assert re.match(expected, found.message)
    assert run(stage, store) == (0, [])
    assert re.search(expected, (store.folder(stage.path) / "log.txt").read_text())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "written by a newer version of ssrob; use that one, or remove the folder"),
        ({"outputs": None}, "has no 'outputs', as of an earlier version of ssrob; remove the folder"),
        ({"key": "other"}, "belongs to finetune/other, not to finetune/"),
    ],
)
def test_a_folder_of_another_version_or_name_is_told(
    change: dict[str, Any], message: str, prepared: Study, tmp_path: Path
) -> None:
    plan, store = prepared
    stage, other = only(plan, "finetune"), Store(tmp_path)
    shutil.copytree(store.folder(stage.path), other.folder(stage.path))
    file = other.folder(stage.path) / MANIFEST
    facts = json.loads(file.read_text()) | change
    file.write_text(json.dumps({name: value for name, value in facts.items() if value is not None}))
    with pytest.raises(StoreError, match=message):
        other.output(stage.path, "last.safetensors")


def test_results_of_before_there_was_a_second_manifest_are_read(prepared: Study, tmp_path: Path) -> None:
    plan, store = prepared
    stage, other = only(plan, "finetune"), Store(tmp_path)
    shutil.copytree(store.folder(stage.path), other.folder(stage.path))
    (other.folder(stage.path) / MANIFEST).unlink()
    assert other.done(stage.path)
    assert other.output(stage.path, "last.safetensors").is_file()
    (other.folder(stage.path) / TOKEN).unlink()
    assert not other.done(stage.path)


def test_facts_that_an_earlier_version_did_not_write_are_named(prepared: Study, tmp_path: Path) -> None:
    plan, store = prepared
    shutil.copytree(store.root, tmp_path / "results")
    trained = make_plan(parse_study(config(tmp_path / "results")))
    file = Store(trained.study.results).folder(only(plan, "finetune").path) / "provenance.json"
    file.write_text("{}")
    with pytest.raises(StoreError, match=r"provenance\.json: has no 'best_epoch', as of an earlier version"):
        collect(trained, Store(trained.study.results))


@pytest.mark.study
def test_a_hostile_folder_a_retried_stage_and_a_config_that_changed(prepared: Study, tmp_path: Path) -> None:
    """Through Snakemake: nothing of a folder's name is run, and the log of the first attempt is still there."""
    results = tmp_path / 'it\'s $(touch hacked) `touch hacked` "q" ;é'
    study_of(results, prepared, lr=1e25)
    settings = config(results, lr=1e25)
    plan, store = make_plan(parse_study(settings)), Store(results)
    done = snakemake(tmp_path / "run", settings, "--until", "finetune", "--retries", "1")
    assert done.returncode != 0
    assert "training diverged" in done.stderr
    assert (store.folder(only(plan, "finetune").path) / "log.txt").read_text().count("ERROR failed") == 2
    assert not [path for path in tmp_path.rglob("*") if path.name == "hacked"]
    gone = store.folder(only(prepared[0], "finetune").path) / TOKEN
    missing = snakemake(tmp_path / "run", settings, "--dry-run", str(gone))
    assert missing.returncode != 0
    assert "no such stage in the study tiny. If its config was changed" in missing.stdout + missing.stderr
    assert "Traceback (most recent call last)" not in missing.stdout + missing.stderr
