"""Portions of a study: budgets, stops and goings-on, with the results of a run in one go."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from ssrob.analysis.collect import collect
from ssrob.cli.plan_view import portion_text
from ssrob.config.fields import ConfigError
from ssrob.config.loader import parse_study
from ssrob.planning.plan import Plan, make_plan
from ssrob.runtime.process_pool import Workers
from ssrob.runtime.time_budget import Portion, parse_budget, run_portion
from ssrob.storage import heartbeat
from ssrob.storage.store import Store, StoreError, sha256
from tests.conftest import Finished, reopen, tiny_config

pytestmark = [pytest.mark.study, pytest.mark.xdist_group("workflow")]
LONG = 600.0  # seconds in which a loaded machine gets anywhere


def portion(plan: Plan, budget: float, jobs: int = 1) -> Portion:
    store = Store(plan.study.results)
    workers = Workers(store.root, "cpu", quiet=True)
    return run_portion(plan, store, workers, budget=budget, jobs=jobs, say=lambda line: None)


def hashes(plan: Plan, paths: list[str]) -> dict[tuple[str, str], str]:
    """Return the checksum of every output; of samples.npz, a zip, which stores the time, there is none."""
    store = Store(plan.study.results)
    outputs = [(path, name) for path in paths for name in store.manifest(path)["outputs"] if name != "samples.npz"]
    return {(path, name): sha256(store.output(path, name)) for path, name in outputs}


@pytest.mark.parametrize(
    ("text", "seconds"), [("8m", 480), ("90s", 90), ("1h30m", 5400), ("1.5h", 5400), ("2m30", 150)]
)
def test_a_budget_is_a_time(text: str, seconds: float) -> None:
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "0s", "8 minutes", "-3", "m", "1.2.3m", "1s2m"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="budget: expected a time such as 8m"):
        parse_budget(text)


def test_a_number_without_a_unit_is_answered_with_both() -> None:
    with pytest.raises(ConfigError, match="budget: a time needs its unit, such as 5m or 5s"):
        parse_budget("5")


def test_portions_give_what_the_workflow_gives_in_one_go(finished: Finished, tmp_path: Path) -> None:
    """Every output of every stage, and the tables of the study."""
    _, config = finished
    whole = make_plan(parse_study(config))
    plan = make_plan(parse_study(config | {"results": str(tmp_path / "results")}))
    calls = 0
    while not all(map(Store(plan.study.results).done, plan.stages)):
        found = portion(plan, 2.5, jobs=2)
        assert not found.failed
        calls += 1
        assert calls < 50
    assert calls > 1, "a budget ended before the study did"
    assert hashes(plan, list(plan.stages)) == hashes(whole, list(plan.stages))
    collect(plan, Store(plan.study.results))
    for name in ("robustness", "examples", "training", "corruptions", "checks", "findings"):
        assert sha256(plan.folder / "tables" / f"{name}.parquet") == sha256(whole.folder / "tables" / f"{name}.parquet")


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + LONG
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_stopped_portion_goes_on_elsewhere_to_the_same_bits(tmp_path: Path) -> None:
    """First the command is killed outright, then asked to stop, then its results are copied to another place."""
    arms = [{"variant": "standard", "norm": "linf"}]
    config = tiny_config(tmp_path / "results", arms=arms)
    config["finetune"] = config["finetune"] | {"epochs": 100}
    plan = make_plan(parse_study(config))
    store, training = Store(plan.study.results), plan.arms[0].finetune
    log, alive = store.folder(training) / "log.txt", store.work(training) / heartbeat.FILE
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "ssrob", "portion", str(tmp_path / "study.yaml"), "--budget", "1h"]
    for number, epoch in ((signal.SIGKILL, "epoch 5:"), (signal.SIGINT, "epoch 40:")):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        until(lambda epoch=epoch: log.is_file() and epoch in log.read_text())
        os.kill(process.pid, number)
        printed, _ = process.communicate(timeout=LONG)
        assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
        until(lambda: not alive.exists())
        assert (store.work(training) / "checkpoint.pt").is_file()
    assert f"Half done:  {training}  " in printed
    shutil.copytree(tmp_path / "results", tmp_path / "copy", copy_function=shutil.copyfile)
    moved, fresh = (make_plan(parse_study(config | {"results": str(tmp_path / name)})) for name in ("copy", "fresh"))
    for again in (moved, fresh):
        found = portion(again, LONG)
        assert (found.failed, found.stopped) == ({}, [])
    assert log_of(moved, training).count("resumed at step") == 2
    assert hashes(moved, list(plan.stages)) == hashes(fresh, list(plan.stages))


def log_of(plan: Plan, path: str) -> str:
    return (Store(plan.study.results).folder(path) / "log.txt").read_text()


def test_a_failed_stage_is_told_and_the_others_go_on(finished: Finished, tmp_path: Path) -> None:
    _, config = finished
    shutil.copytree(config["results"], tmp_path / "results")
    plan = make_plan(parse_study(config | {"results": str(tmp_path / "results")}))
    store, (broken, sound) = Store(plan.study.results), plan.arms[:2]
    for path in (broken.evaluate["best"], sound.corrupt["best"]):
        reopen(store, path)
    weights = store.folder(broken.finetune) / "best.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    found = portion(plan, LONG)
    assert found.done == [sound.corrupt["best"]]
    assert f"{weights}: missing, truncated or altered" in found.failed[broken.evaluate["best"]]
    assert "Failed:     evaluate/" in portion_text(plan, store, found)


def test_a_killed_stage_is_told(tmp_path: Path) -> None:
    plan = make_plan(parse_study(tiny_config(tmp_path / "results")))
    running = Workers(plan.study.results, "cpu", quiet=True).start(next(iter(plan.stages.values())))
    assert running.process.pid
    os.kill(running.process.pid, signal.SIGKILL)
    code, line = running.ended()
    assert (code, line.rpartition(": ")[2]) == (-signal.SIGKILL, "killed by SIGKILL")


def test_one_portion_of_a_study_at_a_time(tmp_path: Path) -> None:
    plan = make_plan(parse_study(tiny_config(tmp_path / "results")))
    with contextlib.ExitStack() as stack:
        from ssrob.runtime.time_budget import _alone

        stack.enter_context(_alone(plan))
        with pytest.raises(StoreError, match="another portion of this study is running"):
            portion(plan, 1.0)
