"""Where a study stands, read from made-up results folders: nothing is trained here."""

import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ssrob.cli import status_view
from ssrob.config.loader import parse_study
from ssrob.planning.plan import Plan, make_plan
from ssrob.planning.stage import Stage
from ssrob.registry.stages import STAGES
from ssrob.runtime import runner
from ssrob.scheduling import status
from ssrob.scheduling.status import StageStatus, expected, last_message
from ssrob.storage import heartbeat
from ssrob.storage.metrics_log import Records, last_record
from ssrob.storage.store import Store, StoreError, write_json
from ssrob.training.train import Diverged
from tests.conftest import tiny_config

NOW = time.time()
Study = tuple[Plan, Store]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    plan = make_plan(parse_study(tiny_config(tmp_path / "results")))
    return plan, Store(plan.study.results)


def finish(study: Study, stage: Stage, seconds: float) -> None:
    out = study[1].work(stage.path) / "out"
    out.mkdir(parents=True)
    if stage.kind == "data":
        write_json(out / "data.json", {"counts": {"train": 360, "validation": 40, "test": 60}})
    study[1].publish(stage, out, {"seconds": seconds})


def log(study: Study, stage: Stage, text: str) -> None:
    folder = study[1].folder(stage.path)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.txt").write_text(text)


def sign(study: Study, stage: Stage, **changes: Any) -> Path:
    """Leave the sign of life of a stage that has done 30 of 120 steps in 60 seconds."""
    file = study[1].work(stage.path) / heartbeat.FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    row = {"pid": os.getpid(), "host": socket.gethostname(), "seconds": 60.0}
    bar = {"part": 0, "unit": "step", "done": 30, "total": 120, "initial": 0, "speed": 0.5}
    write_json(file, row | bar | changes)
    return file


def look(study: Study, stage: Stage) -> StageStatus:
    return status.stage_status(stage, study[1], 1000.0, time.time())


def first(study: Study, kind: str) -> Stage:
    return next(iter(study[0].of_kind(kind).values()))


def test_stages_are_counted_by_state(study: Study) -> None:
    plan, store = study
    train = list(plan.of_kind("finetune").values())
    finish(study, first(study, "data"), 2.0)
    finish(study, train[0], 100.0)
    sign(study, train[1])
    log(study, train[2], "2026-01-05 10:00:00,000 INFO finetune on cpu\n")
    log(
        study, first(study, "corrupt"), "2026-01-05 10:00:00,000 ERROR failed\nTraceback:\n  File x\nOSError: no disk\n"
    )
    found = status.stage_statuses(plan, store, status.work_of(plan, store), time.time())
    counts = Counter(each.state for each in found.values())
    assert counts == {"done": 2, "running": 1, "stopped": 1, "failed": 1, "waiting": len(plan.stages) - 5}
    text = status_view.status_text(plan, store, time.time())
    assert f"tiny: 2 of {len(plan.stages)} stages done, 1 running, 1 failed, 1 stopped" in text
    assert "25 %, 3 min 0 s left; 30 of 120 steps, 0.5 a second" in text
    assert f"  OSError: no disk\n  more in {store.folder(first(study, 'corrupt').path) / 'log.txt'}" in text


def test_a_running_stage_says_how_far_it_is_and_how_long_it_will_take(study: Study) -> None:
    train = first(study, "finetune")
    sign(study, train)
    running = look(study, train)
    assert (running.state, running.fraction, running.left) == ("running", 0.25, 180.0)
    sign(study, train, initial=20)  # it went on from step 20: 10 steps took the minute
    assert look(study, train).left == pytest.approx(60 / 10 * 90)
    sign(study, train, done=0)
    assert look(study, train).left is None


def test_a_sweep_has_a_part_for_each_norm(study: Study) -> None:
    sweep = first(study, "evaluate")
    assert len(sweep.spec["eps"]) == 2
    sign(study, sweep, part=1, unit="image")
    running = look(study, sweep)
    assert running.fraction == (1 + 0.25) / 2
    assert running.left == pytest.approx(60 / 0.625 * 0.375)
    assert "part 2 of 2" in running.message


def test_a_stage_that_is_just_starting_has_no_bar_yet(study: Study) -> None:
    train = first(study, "finetune")
    write_json(sign(study, train), {"pid": os.getpid(), "host": socket.gethostname(), "seconds": 0.1})
    running = look(study, train)
    assert (running.state, running.left, running.message) == ("running", None, "starting")


def dead_process() -> int:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


@pytest.mark.parametrize("how", ["process gone", "silent", "silent elsewhere", "no sign", "half a sign"])
def test_a_dead_run_is_started_but_not_running(how: str, study: Study) -> None:
    train = first(study, "finetune")
    log(study, train, "2026-01-05 10:00:00,000 INFO finetune on cpu\n")
    elsewhere = {"host": "another-machine", "pid": 1}
    file = sign(study, train, **{"process gone": {"pid": dead_process()}, "silent elsewhere": elsewhere}.get(how, {}))
    if how.startswith("silent"):
        os.utime(file, (NOW - 120, NOW - 120))
    elif how == "no sign":
        file.unlink()
    elif how == "half a sign":
        file.write_text('{"pid": 1')
    assert look(study, train).state == "stopped"


def test_a_fresh_sign_from_another_machine_is_believed(study: Study) -> None:
    train = first(study, "finetune")
    sign(study, train, host="another-machine", pid=dead_process())
    assert look(study, train).state == "running"


def test_what_a_dead_training_had_reached_is_told_from_its_complete_records(study: Study) -> None:
    train = first(study, "finetune")
    log(study, train, "2026-01-05 10:00:00,000 INFO stopped at step 3 of 4; run it again to go on from there\n")
    work = study[1].work(train.path)
    work.mkdir(parents=True)
    with Records(work / "records.jsonl") as records:
        records.write(2, 0.5, {"loss/total": 1.0})
    with (work / "records.jsonl").open("a") as file:
        file.write('{"step": 3, "epoch": 0.7')
    stopped = look(study, train)
    assert (stopped.state, stopped.fraction) == ("stopped", 0.5)
    assert stopped.message.startswith("stopped at step 3 of 4")


def test_a_torn_or_empty_record_file_has_no_last_line(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    assert last_record(file) is None
    for content in (b"", b'{"step"', b"\0\0\0\0\n"):
        file.write_bytes(content)
        assert last_record(file) is None
    file.write_bytes(b'{"step": 1}\n' * 2000 + b'{"step": 2}\n{"st')
    assert last_record(file) == {"step": 2}


TRACE = "Traceback (most recent call last):\n  File x, line 1\nssrob.training.train.Diverged: loss is nan\n"
LOGS = {
    "INFO begun\n": (False, "begun"),
    f"ERROR failed\n{TRACE}": (True, "ssrob.training.train.Diverged: loss is nan"),
    f"ERROR failed\n{TRACE}2026-01-05 11:00:00,000 INFO begun again\n": (False, "begun again"),
    "ERROR failed\n": (True, "failed"),
}


@pytest.mark.parametrize("text", LOGS)
def test_the_last_words_of_a_log(text: str, tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("2026-01-05 10:00:00,000 " + text)
    assert last_message(tmp_path / "log.txt") == LOGS[text]


def test_a_log_without_messages_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_bytes(b"\xff\xfe")
    assert last_message(tmp_path / "log.txt") == (False, "")


def some(kind: str, state: status.State, work: float | None = 100.0, **more: Any) -> StageStatus:
    return StageStatus(f"{kind}/{state}-{work}-{more}", kind, state, work, **more)


def by_path(*given: StageStatus) -> dict[str, StageStatus]:
    return {each.path: each for each in given}


def test_the_time_left_follows_from_what_finished_stages_took() -> None:
    found = expected(
        by_path(
            some("finetune", "done", 100, seconds=10.0),
            some("finetune", "done", 200, seconds=40.0),  # resumed or disturbed; the median is 0.15 s a pass
            some("evaluate", "done", 10, seconds=5.0),
            some("pretrain", "waiting", 200),  # 30 s, like a fine-tuning
            some("finetune", "stopped", 200, fraction=0.5),  # 15 s
            some("evaluate", "waiting", 10),  # 5 s
            some("finetune", "running", 1e9, left=7.0),
            some("finetune", "running", 1e8, left=3.0),
        )
    )
    assert found is not None
    assert found.work == pytest.approx(60.0)
    assert found.wall == pytest.approx(30.0)
    assert (found.at_once, found.guessed) == (2, [])


def test_the_longest_stage_bounds_the_time_left() -> None:
    found = expected(by_path(some("finetune", "running", left=90.0), some("finetune", "running", 1, left=10.0)))
    assert found is not None
    assert found.wall == 90.0


def test_a_kind_that_is_new_is_priced_like_the_others_and_said_to_be() -> None:
    found = expected(by_path(some("finetune", "done", seconds=50.0), some("corrupt", "waiting", 10)))
    assert found is not None
    assert (found.work, found.guessed) == (5.0, ["corrupt"])


def test_nothing_is_estimated_from_nothing() -> None:
    assert expected(by_path(some("finetune", "waiting"))) is None
    assert expected(by_path(some("finetune", "done", seconds=5.0), some("finetune", "waiting", None))) is None


def test_a_finished_study_says_so(study: Study) -> None:
    plan, store = study
    for stage in plan.stages.values():
        finish(study, stage, 3.0)
    found = status.stage_statuses(plan, store, status.work_of(plan, store), NOW)
    assert expected(found) == status.Expected(0, 0, 1)
    assert "All stages are done, after 45 s of work; report: not made yet" in status_view.status_text(plan, store, NOW)
    assert status.stage_statuses(plan, Store(Path("/nowhere")), dict.fromkeys(plan.stages), NOW, found) == found
    status_view.watch(plan, store)  # without a terminal it says it once


def test_lost_provenance_hides_nothing_else(study: Study) -> None:
    train = first(study, "finetune")
    finish(study, train, 3.0)
    (study[1].folder(train.path) / "provenance.json").write_text("{")
    assert look(study, train).state == "done"
    assert look(study, train).seconds is None


DURATIONS = {0.4: "0 s", 59: "59 s", 185: "3 min 5 s", 7800: "2 h 10 min", 90000: "1 d 1 h"}


@pytest.mark.parametrize("seconds", DURATIONS)
def test_durations_have_two_units(seconds: float) -> None:
    assert status_view.duration(seconds) == DURATIONS[seconds]


def test_a_stage_gives_signs_of_life_and_takes_them_away(tmp_path: Path) -> None:
    file, progress, found = tmp_path / heartbeat.FILE, heartbeat.Progress(), []

    def fail_half_way() -> None:
        with heartbeat.beating(file, progress, every=0.01):
            bar = progress.open("finetune", total=10, unit="step", initial=4)
            bar.update()
            bar.update(2)
            wait_for(lambda: (heartbeat.read(file, time.time()) or {}).get("done") == 7)
            found.append(heartbeat.read(file, time.time()) or {})
            raise Diverged("stopped here")

    with pytest.raises(Diverged):
        fail_half_way()
    assert (found[0]["pid"], found[0]["part"], found[0]["initial"], found[0]["total"]) == (os.getpid(), 0, 4, 10)
    assert found[0]["speed"] > 0
    assert list(tmp_path.iterdir()) == []


def wait_for(condition: Any, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def test_a_folder_that_cannot_be_written_to_stops_no_stage(tmp_path: Path) -> None:
    with heartbeat.beating(tmp_path / "gone" / heartbeat.FILE, heartbeat.Progress(), every=0.01):
        time.sleep(0.05)


def test_the_time_of_earlier_attempts_is_counted(tmp_path: Path) -> None:
    assert heartbeat.spent(tmp_path) == 0
    (tmp_path / heartbeat.FILE).write_text('{"seconds": 7.5}')  # of a process that was killed
    assert heartbeat.spent(tmp_path) == 7.5
    (tmp_path / heartbeat.FILE).unlink()
    heartbeat.note(tmp_path, 10.25)  # of one that was stopped
    assert heartbeat.spent(tmp_path) == 10.25
    (tmp_path / heartbeat.SPENT).write_text("{")
    assert heartbeat.spent(tmp_path) == 0


def test_a_stage_that_fails_notes_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage, store = Stage("data", "k", {}), Store(tmp_path)
    monkeypatch.setitem(STAGES, "data", replace(STAGES["data"], run="tests.scheduling.test_status:fails"))
    store.work(stage.path).mkdir(parents=True)
    heartbeat.note(store.work(stage.path), 100)
    with pytest.raises(RuntimeError, match="as asked"):
        runner.run(stage, store, device="cpu")
    assert 100 < heartbeat.spent(store.work(stage.path)) < 160


def fails(context: runner.Context) -> None:
    time.sleep(0.02)  # a hundredth of a second is what is noted
    raise RuntimeError("as asked")


def test_a_failed_stage_is_told_apart_from_a_killed_one(study: Study) -> None:
    """Through the real runner: the training has no data stage to read, and says so."""
    train = first(study, "finetune")
    with pytest.raises(StoreError, match="is not finished"):
        runner.run(train, study[1], device="cpu")
    failed = look(study, train)
    assert failed.state == "failed"
    assert "is not finished; run the workflow first" in failed.message


def test_status_needs_no_torch(tmp_path: Path) -> None:
    config = tmp_path / "study.json"
    config.write_text(json.dumps(tiny_config(tmp_path / "results")))
    code = "import sys; from ssrob import cli; cli.app(['status', sys.argv[1]], standalone_mode=False)"
    code += "; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code, config], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "0 of" in done.stdout
