"""The evaluate stage: killed in the middle it goes on to the same bits, without attacking finished blocks again."""

import dataclasses
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ssrob.config.loader import parse_study
from ssrob.data.test_split import open_test
from ssrob.planning.plan import make_plan
from ssrob.planning.stage import Stage
from ssrob.runtime import checkpoint, runner
from ssrob.runtime.sweep_cache import BlockStore
from ssrob.stages import evaluate
from ssrob.storage.store import Store
from ssrob.storage.tables import read_table
from tests.conftest import reopen, tiny_config

OUTPUTS = ("robustness.parquet", "checks.parquet")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Stage, Store]:
    """A trained model of the tiny study, and the stage that evaluates it."""
    folder = tmp_path_factory.mktemp("results")
    training = tiny_config(folder)["finetune"] | {"epochs": 6}  # enough to have something to attack
    plan = make_plan(parse_study(tiny_config(folder, finetune=training, arms=[{"variant": "standard"}])))
    store = Store(plan.study.results)
    for stage in plan.stages.values():
        if stage.kind in ("data", "finetune"):
            runner.run(stage, store, device="cpu")
    return next(iter(plan.of_kind("evaluate").values())), store


def outputs(stage: Stage, store: Store) -> dict[str, bytes]:
    """Take a finished stage's outputs away, so that it can be run once more."""
    found = {name: store.output(stage.path, name).read_bytes() for name in OUTPUTS}
    reopen(store, stage.path)
    return found


def test_a_stopped_evaluation_goes_on_to_the_same_bits(
    trained: tuple[Stage, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, store = trained
    monkeypatch.setattr(evaluate, "BLOCK", 10)  # of 40 images: four blocks in either norm
    runner.run(stage, store, device="cpu")
    whole = outputs(stage, store)
    attacked: list[Path] = []
    save = checkpoint.save

    def save_and_kill(outcome: dict[str, Any], file: Path) -> None:
        save(outcome, file)
        attacked.append(file)
        if len(attacked) in (1, 6):  # in the first norm, then in the second
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(checkpoint, "save", save_and_kill)
    for kept in (1, 6):
        with pytest.raises(runner.Interrupted, match="run it again to go on"):
            runner.run(stage, store, device="cpu")
        assert not store.done(stage.path)
        assert len(BlockStore(store.work(stage.path) / "blocks")) == kept == len(attacked)
    runner.run(stage, store, device="cpu")
    assert outputs(stage, store) == whole
    assert len(attacked) == len(set(attacked)) == 8
    assert not store.work(stage.path).exists()


def test_a_block_that_is_damaged_counts_as_missing(tmp_path: Path) -> None:
    store = BlockStore(tmp_path / "blocks")
    store["a"], store["b"] = {"distance": torch.arange(3.0)}, {"distance": torch.ones(2)}
    assert store["a"]["distance"].equal(torch.arange(3.0))
    assert sorted(store) == ["a", "b"]
    file = tmp_path / "blocks" / "a.block"
    file.write_bytes(file.read_bytes()[:-1])
    assert "a" not in store
    del store["b"]
    assert "b" not in store
    with pytest.raises(KeyError):
        del store["b"]


def test_a_stop_in_the_middle_of_a_block_is_heard(
    trained: tuple[Stage, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, store = trained
    monkeypatch.setattr(evaluate, "BLOCK", 30)
    monkeypatch.setattr(evaluate, "attack_sweep", _terminated(evaluate.attack_sweep))
    with pytest.raises(runner.Interrupted):
        runner.run(stage, store, device="cpu")
    assert not BlockStore(store.work(stage.path) / "blocks")


def _terminated(sweep: Callable[..., Any]) -> Callable[..., Any]:
    """Ask the process to stop as soon as a sweep has some of its images done."""

    def wrapper(*args: Any, progress: Callable[[int, int], None], **settings: Any) -> Any:
        def tell(done: int, total: int) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            progress(done, total)

        return sweep(*args, progress=tell, **settings)

    return wrapper


def test_each_norm_has_its_number_of_images(trained: tuple[Stage, Store]) -> None:
    stage, store = trained
    spec = stage.spec | {"images": {"l2": 20}}
    fewer = dataclasses.replace(stage, key="fewer", spec=spec)
    runner.run(fewer, store, device="cpu")
    rows = read_table(store.output(fewer.path, "robustness.parquet"))
    examples = {norm: set(part["example"]) for norm, part in rows.groupby("eval_norm", observed=True)}
    every = open_test(store.folder(stage.parents["data"]))[2]
    assert examples["linf"] == set(every.tolist())
    assert len(examples["l2"]) == 20
    assert sorted(rows[rows["eval_norm"] == "l2"]["label"].value_counts()) == [2] * 10
    by_number = open_test(store.folder(stage.parents["data"]), 20)[2]
    assert examples["l2"] == set(by_number.tolist())
