"""The results folder: what counts as finished, and what is never trusted."""

import json
from pathlib import Path

import pandas as pd
import pytest
from ssrob.config.loader import parse_study
from ssrob.planning.plan import make_plan
from ssrob.planning.stage import Stage
from ssrob.storage.metrics_log import Records, read_records, records_table
from ssrob.storage.store import MANIFEST, Store, StoreError
from ssrob.storage.tables import RECORDS, read_table, write_table
from tests.conftest import reopen, tiny_config


@pytest.fixture
def published(tmp_path: Path) -> tuple[Store, Stage]:
    plan = make_plan(parse_study(tiny_config(tmp_path / "results")))
    stage, store = next(iter(plan.of_kind("finetune").values())), Store(plan.study.results)
    out = store.work(stage.path) / "out"
    out.mkdir(parents=True)
    (out / "weights").write_bytes(b"w" * 1000)
    store.publish(stage, out, {"seconds": 1.0})
    return store, stage


def test_a_published_stage_is_done_and_leaves_no_work_behind(published: tuple[Store, Stage]) -> None:
    store, stage = published
    assert store.done(stage.path)
    assert store.output(stage.path, "weights").read_bytes() == b"w" * 1000
    assert json.loads((store.folder(stage.path) / "spec.json").read_text()) == stage.spec
    assert not store.work(stage.path).exists()


@pytest.mark.parametrize("content", [b"w" * 999, b"w" * 999 + b"v", b""])
def test_a_truncated_or_altered_output_is_named(content: bytes, published: tuple[Store, Stage]) -> None:
    store, stage = published
    (store.folder(stage.path) / "weights").write_bytes(content)
    with pytest.raises(StoreError, match=r"weights: missing, truncated or altered; remove the folder"):
        store.output(stage.path, "weights")


def test_a_stage_without_its_manifest_is_not_done(published: tuple[Store, Stage]) -> None:
    store, stage = published
    reopen(store, stage.path)
    assert not store.done(stage.path)
    with pytest.raises(StoreError, match="is not finished"):
        store.output(stage.path, "weights")


def test_a_damaged_manifest_is_named(published: tuple[Store, Stage]) -> None:
    store, stage = published
    (store.folder(stage.path) / MANIFEST).write_text("{")
    with pytest.raises(StoreError, match=r"manifest\.json: damaged"):
        store.manifest(stage.path)


def test_what_was_made_from_other_weights_is_named(published: tuple[Store, Stage]) -> None:
    store, old = published
    store.remove(old.path)
    test = Stage("evaluate", "k", {}, {"model": old.path})

    def publish(stage: Stage, **files: bytes) -> None:
        out = store.work(stage.path) / "out"
        out.mkdir(parents=True)
        for name, content in files.items():
            (out / name.replace("_", ".")).write_bytes(content)
        store.publish(stage, out, {})

    publish(old, best_safetensors=b"one", training_parquet=b"took 3 s")
    publish(test)
    for best, took in ((b"one", b"took 5 s"), (b"two", b"took 3 s")):
        store.check_parents(test.path)
        store.remove(old.path)
        store.check_parents(test.path)  # weights that are not there are no others
        publish(old, best_safetensors=best, training_parquet=took)
    with pytest.raises(StoreError, match=rf"made from other weights of {old.path} than .* remove the folder"):
        store.check_parents(test.path)


def test_records_are_cut_back_to_where_a_checkpoint_was(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    with Records(path) as records:
        records.write(1, 0.1, {"loss": 1.0})
        length = records.flush()
        records.write(2, 0.2, {"loss": 2.0})
    with Records(path, length) as records:
        records.write(2, 0.2, {"loss": 3.0})
    assert records_table(path)["value"].tolist() == [1.0, 3.0]


def test_a_half_written_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text('{"step": 1, "epoch": 0.1, "metric": "loss", "value": 1.0}\n{"step": 2, "ep')
    assert [row["step"] for row in read_records(path)] == [1]
    assert list(read_records(tmp_path / "none.jsonl")) == []


def test_a_table_comes_back_as_it_was_with_the_same_bytes(tmp_path: Path) -> None:
    frame = pd.DataFrame({"step": [1, 2], "epoch": [0.1, 0.2], "metric": ["a", "b"], "value": [1.0, float("inf")]})
    for name in ("one.parquet", "two.parquet"):
        write_table(frame, RECORDS, tmp_path / name)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    pd.testing.assert_frame_equal(read_table(tmp_path / "one.parquet"), frame)


def test_a_table_with_other_columns_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"x\.parquet: expected columns"):
        write_table(pd.DataFrame({"step": [1]}), RECORDS, tmp_path / "x.parquet")


def test_a_truncated_table_is_named(tmp_path: Path) -> None:
    frame = pd.DataFrame({"step": [1], "epoch": [0.1], "metric": ["a"], "value": [1.0]})
    write_table(frame, RECORDS, tmp_path / "x.parquet")
    (tmp_path / "x.parquet").write_bytes((tmp_path / "x.parquet").read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"x\.parquet: not a readable parquet table"):
        read_table(tmp_path / "x.parquet")
