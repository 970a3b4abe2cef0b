"""Following a running study: killed and started again at any time, every record is in the store once."""

import contextlib
import json
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ssrob import cli
from ssrob.config.loader import parse_study
from ssrob.planning.plan import Plan, make_plan
from ssrob.storage.metrics_log import Records, records_table
from ssrob.storage.store import Store
from ssrob.storage.tables import RECORDS, write_table
from ssrob.tracking import Tracked, TrackingError, client, live, track
from tests.conftest import tiny_config

FOLLOWER = """
import json, sys
from ssrob.config.loader import parse_study
from ssrob.planning.plan import make_plan
from ssrob.storage.store import Store
from ssrob.tracking import follow
plan = make_plan(parse_study(json.loads(sys.argv[1])))
follow(plan, Store(plan.study.results), tracking_uri=(sys.argv[2:] or [None])[0], every=0.05)
"""
METRICS = ("loss/total", "lr")
STEPS = 1000  # of each stage, which makes 2,000 records
NEW = Tracked(runs=1, created=1, points=1, files=0)
NOTHING = Tracked(runs=1, created=0, points=0, files=0)
Study = tuple[Plan, Store]
Answer = Tracked | TrackingError


@pytest.fixture
def study(tmp_path: Path) -> Study:
    plan = make_plan(parse_study(tiny_config(tmp_path / "results")))
    return plan, Store(plan.study.results)


def in_store(root: Path) -> Counter[tuple[str, str, int, float]]:
    """Count the training points in the store, past MLflow."""
    asked = "select t.value, m.key, m.step, m.value from metrics m join tags t using (run_uuid)"
    if not (root / "mlflow.db").exists():
        return Counter()
    with contextlib.closing(sqlite3.connect(root / "mlflow.db", timeout=20)) as connection:
        rows = connection.execute(f"{asked} where t.key = 'ssrob.key'")
        return Counter(row for row in rows if row[1] in METRICS)


def wait_until(condition: Callable[[], bool], seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def write_records(path: Path) -> None:
    """Write records as a training does, four steps at a time."""
    with Records(path) as records:
        for step in range(1, STEPS + 1):
            records.write(step, step / 25, dict.fromkeys(METRICS, step + 0.5))
            if step % 4 == 0:
                records.flush()
                time.sleep(0.005)


@contextlib.contextmanager
def following(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A follower in a process of its own, killed at the end."""
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as follower:
        try:
            yield follower
        finally:
            follower.kill()


@pytest.mark.study
def test_every_record_of_eight_stages_arrives_once_whatever_server_and_follower_do(tmp_path: Path) -> None:
    """The server accepts and stays silent; then there is a store, and its follower is killed twice."""
    config = tiny_config(tmp_path, arms=[{"variant": ["at", "at_ssl_joint"], "norm": "linf", "seeds": [0, 1, 2, 3]}])
    plan = make_plan(parse_study(config))
    store, trained = Store(plan.study.results), list(plan.of_kind("finetune"))
    writers = []
    for key in trained:
        store.work(f"finetune/{key}").mkdir(parents=True)
        writers.append(threading.Thread(target=write_records, args=(store.work(f"finetune/{key}") / "records.jsonl",)))
    (store.work(f"finetune/{trained[0]}") / "records.jsonl").touch()  # something to follow
    command = [sys.executable, "-c", FOLLOWER, json.dumps(config)]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(90)
        with following([*command, f"http://127.0.0.1:{silent.getsockname()[1]}"]) as follower:
            connection, _ = silent.accept()
            for writer in writers:
                writer.start()
            for writer in writers:
                writer.join()
            assert follower.poll() is None, "it waits for an answer; nobody has waited for it"
            connection.close()
    for _ in range(2):
        before = len(in_store(store.root))
        with following(command):
            wait_until(lambda n=before: len(in_store(store.root)) > n + 500)  # type: ignore[misc]
    expected = Counter[tuple[str, str, int, float]]()
    for key in trained:
        path = f"finetune/{key}"
        table = records_table(store.work(path) / "records.jsonl")
        expected.update((path, row.metric, row.step, row.value) for row in table.itertuples())
        out = store.work(path) / "out"
        out.mkdir()
        write_table(table, RECORDS, out / "training.parquet")
        store.publish(plan.stages[path], out, {"started": "2026-01-05T10:00:00+00:00", "seconds": 1.0})
    track(plan, store)
    assert in_store(store.root) == expected
    assert set(expected.values()) == {1}
    assert sum(expected.values()) == 8 * 2000


def test_a_batch_and_the_tag_that_counts_it_are_stored_in_one_step(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a kill between two steps leaves a count of points of which some are missing."""
    store = study[1]
    with client.open_experiment(client.default_uri(store.root), "x", store.root) as experiment:
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        run = experiment.create("key", "name", 0)
        calls, log_batch = [], SqlAlchemyStore.log_batch
        monkeypatch.setattr(
            SqlAlchemyStore, "log_batch", lambda *given, **named: calls.append(1) or log_batch(*given, **named)
        )
        experiment.log(run, [("lr", step, 0.5) for step in range(client.BATCH)], tags={"count": "all"})
    assert len(calls) == 1


def finish(study: Study) -> None:
    for stage in study[0].stages.values():
        out = study[1].work(stage.path) / "out"
        out.mkdir(parents=True, exist_ok=True)
        study[1].publish(stage, out, {"seconds": 1.0})


class Script:
    """Takes the place of an import and of the waiting between two: every wait does the next thing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answers: list[Answer], *events: Callable[[], None]):
        self.answers, self.events, self.waits = answers, list(events), list[float]()
        monkeypatch.setattr(live, "track", self.track)
        monkeypatch.setattr(live.time, "sleep", self.sleep)

    def track(self, *_: object, **__: object) -> Tracked:
        answer = self.answers.pop(0)
        if isinstance(answer, TrackingError):
            raise answer
        return answer

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.events.pop(0)()


def nothing() -> None:
    pass


def test_it_imports_only_when_something_changed(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, store = study

    def record() -> None:
        work = store.work(plan.arms[0].finetune)
        work.mkdir(parents=True)
        (work / "records.jsonl").write_text("{}\n")

    script = Script(monkeypatch, [NOTHING, NEW, NEW], nothing, record, nothing, lambda: finish(study))
    live.follow(plan, store, every=0.01)
    assert script.answers == []
    assert script.events == []


def test_a_store_that_is_away_is_told_once_and_asked_again(
    study: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(study)
    away = TrackingError("tracking store: no answer")
    script = Script(monkeypatch, [away, away, NEW], nothing, nothing)
    live.follow(*study)
    assert script.answers == []
    said = capsys.readouterr().err
    assert said.count("no answer") == 1
    assert "1 points" in said


def test_a_slow_store_is_asked_less_often(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 10.0, 20.0, 20.0])  # the import takes ten seconds, looking takes none
    script = Script(monkeypatch, [NEW, NEW], lambda: finish(study))
    monkeypatch.setattr(live.time, "monotonic", lambda: next(clock))
    live.follow(*study, every=5.0)
    assert script.waits == [10.0 * live.REST]


def test_the_command_follows_until_the_study_is_done(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "study.json"
    config.write_text(json.dumps(tiny_config(study[1].root)))
    script = Script(monkeypatch, [NOTHING, NEW], lambda: finish(study))
    cli.app(["track", str(config), "--follow"], standalone_mode=False)
    assert script.answers == []
    assert not (study[0].folder / "tracked.json").exists(), "the workflow's own import comes after the report"
    shutil.rmtree(study[1].root)


def test_following_ui_imports_before_it_serves(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    finish(study)
    script = Script(monkeypatch, [NEW, NOTHING])
    monkeypatch.setattr(live, "serve", lambda *_, **__: len(script.answers))
    assert live.serve_and_follow(*study, port=5000) in (0, 1)
    for thread in threading.enumerate():
        if "(follow)" in thread.name:
            thread.join(timeout=30)
    assert client.default_uri(study[1].root).startswith("sqlite:///")
