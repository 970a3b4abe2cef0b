"""Housekeeping: what no config refers to is listed, and deleted only when asked for."""

import json
import os
import socket
from pathlib import Path

import pytest
from ssrob import cli
from ssrob.config.loader import parse_study
from ssrob.planning.plan import Plan, make_plan
from ssrob.planning.stage import Stage
from ssrob.scheduling.garbage import delete, unused
from ssrob.storage import heartbeat
from ssrob.storage.store import Store, write_json
from tests.conftest import reopen, tiny_config

Studies = tuple[Path, Plan, Plan, Store]


@pytest.fixture
def studies(tmp_path: Path) -> Studies:
    """Two studies in one results folder, finished, the second with one seed more; and their configs."""
    configs = [tiny_config(tmp_path / "results", study=f"s{n}", seeds=list(range(n))) for n in (1, 2)]
    for config in configs:
        (tmp_path / f"{config['study']}.yaml").write_text(json.dumps(config))
    first, second = (make_plan(parse_study(config)) for config in configs)
    store = Store(tmp_path / "results")
    for stage in second.stages.values():
        finish(store, stage)
    return tmp_path, first, second, store


def finish(store: Store, stage: Stage) -> None:
    out = store.work(stage.path) / "out"
    out.mkdir(parents=True)
    (out / "weights").write_bytes(b"w" * 1000)
    store.publish(stage, out, {"seconds": 1.0})


def gc(*arguments: object) -> None:
    cli.app(["gc", *map(str, arguments)], standalone_mode=False)


def test_only_what_no_study_has_is_unused(studies: Studies) -> None:
    _, first, second, store = studies
    found = unused([first], store)
    assert {each.path for each in found} == set(second.stages) - set(first.stages)
    assert all(each.done and each.size > 1000 and not each.running for each in found)
    assert unused([first, second], store) == []
    assert unused([first], Store(Path("/nowhere"))) == []


def test_nothing_is_deleted_unless_asked_for(studies: Studies, capsys: pytest.CaptureFixture[str]) -> None:
    folder, first, second, store = studies
    gc(folder / "s1.yaml")
    printed = capsys.readouterr().out
    only_second = set(second.stages) - set(first.stages)
    assert f"{len(only_second)} stages, " in printed
    assert "--delete removes them" in printed
    assert all(path in printed for path in only_second)
    assert all(store.done(path) for path in second.stages)
    (folder / "link").symlink_to(folder)  # the same results folder by another name
    config = json.loads((folder / "s2.yaml").read_text()) | {"results": str(folder / "link" / "results")}
    (folder / "s2.yaml").write_text(json.dumps(config))
    gc(folder / "s1.yaml", folder / "s2.yaml", "--delete")
    assert "every stage belongs to a config" in capsys.readouterr().out
    gc(folder / "s1.yaml", "--delete")
    assert "Deleted" in capsys.readouterr().out
    assert {path for path in second.stages if store.done(path)} == set(first.stages)
    assert not any(store.folder(path).exists() for path in only_second)


def test_unfinished_work_goes_too_but_not_under_a_running_stage(studies: Studies) -> None:
    _, first, second, store = studies
    dead, alive = sorted(set(second.stages) - set(first.stages))[:2]
    for path in (dead, alive):
        reopen(store, path)
        store.work(path).mkdir(parents=True)
        (store.work(path) / "checkpoint.pt").write_bytes(b"c" * 500)
    write_json(store.work(alive) / heartbeat.FILE, {"pid": os.getpid(), "host": socket.gethostname(), "seconds": 1})
    found = {each.path: each for each in unused([first], store)}
    assert (found[dead].done, found[dead].running) == (False, False)
    assert found[alive].running
    delete(found.values(), store)
    assert not store.work(dead).exists()
    assert (store.work(alive) / "checkpoint.pt").exists()
    assert store.folder(alive).exists()


def test_other_folders_and_links_are_left_alone(studies: Studies) -> None:
    folder, first, second, store = studies
    own = folder / "results" / "stages" / "finetune" / "mine"
    (folder / "elsewhere").mkdir()
    own.symlink_to(folder / "elsewhere")
    (folder / "results" / "stages" / "notes").mkdir()
    assert unused([first, second], store) == []


def test_a_kill_in_the_middle_leaves_no_stage_that_looks_finished(
    studies: Studies, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, first, _, store = studies
    found = unused([first], store)

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        delete(found, store)
    assert not store.done(found[0].path)
    assert (store.folder(found[0].path) / "weights").exists()
