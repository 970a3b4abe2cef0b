"""Data sets as Hugging Face's tools leave them on a disk: saved by `datasets`, sharded parquet, `imagefolder`."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ssrob.config.data import Data
from ssrob.data import table_files
from ssrob.data.decode import decode
from ssrob.data.sources import check_source, open_source
from ssrob.data.types import DataError, Split
from ssrob.external.images import find_data
from tests.data.test_for_testing import evaluated
from tests.image_files import encoded, pixels

NAMES = ["ant", "bee", "cow"]


def features(names: Sequence[str], column: str = "label") -> dict[str, Any]:
    return {"image": {"_type": "Image"}, column: {"names": list(names), "_type": "ClassLabel"}}


def table_of(seed: int, names: Sequence[str] | None = NAMES, column: str = "label", count: int = 9) -> Any:
    """Images as `datasets` stores them, a struct of bytes and path, and labels 0, 1, 2, 0, ... in a `ClassLabel`."""
    stored = [{"bytes": encoded(image), "path": f"{seed}-{i}.png"} for i, image in enumerate(pixels(count, seed))]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    table = pa.table({"image": pa.array(stored, kind), column: pa.array([i % 3 for i in range(count)], pa.int64())})
    stated = {"huggingface": json.dumps({"info": {"features": features(names, column)}})} if names else {}
    return table.replace_schema_metadata(stated)


def write_stream(file: Path, table: Any) -> None:
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=4)


def save_split(folder: Path, *tables: Any, split: str | None = None) -> Path:
    """Write what `Dataset.save_to_disk` writes: streams of Arrow batches, and their names in a state."""
    folder.mkdir(parents=True)
    names = [f"data-{i:05}-of-{len(tables):05}.arrow" for i in range(len(tables))]
    for name, table in zip(names, tables, strict=True):
        write_stream(folder / name, table)
    state = {"_data_files": [{"filename": name} for name in names], "_split": split}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text(json.dumps({"features": features(NAMES), "splits": {}}))
    return folder


def save_to_disk(folder: Path) -> Path:
    save_split(folder / "train", table_of(0), table_of(1))
    save_split(folder / "test", table_of(2))
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    return folder


def data_in(folder: Path, **more: Any) -> Data:
    return Data.model_validate({"name": "x", "source": "parquet", "path": str(folder)} | more)


def images_of(split: Split) -> np.ndarray:
    return np.stack([decode(content, where, None)[0] for where, content in split.read(np.arange(len(split)))])


def test_a_saved_dataset_makes_a_study_and_an_evaluation(tmp_path: Path) -> None:
    folder = save_to_disk(tmp_path / "saved")
    (folder / "train" / "cache-0123.arrow").write_bytes(b"left by a map")
    opened = open_source(data_in(folder))
    assert opened.classes == tuple(NAMES)
    assert np.array_equal(images_of(opened.train), np.concatenate([pixels(9, 0), pixels(9, 1)]))
    assert opened.test is not None
    assert np.array_equal(images_of(opened.test), pixels(9, 2))
    assert opened.train.labels.tolist() == [0, 1, 2] * 6
    found = find_data(str(folder))
    assert found.source == "parquet"
    pictures, labels, said = evaluated(found, tmp_path)
    assert np.array_equal(pictures, pixels(9, 2))
    assert labels.tolist() == [0, 1, 2] * 3
    assert "left out: 2 other files" in said


@pytest.mark.parametrize("batch", [3, 1024])
def test_rows_of_an_arrow_file_are_read_across_its_batches(
    tmp_path: Path, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_files, "BATCH", batch)
    folder = save_to_disk(tmp_path / "saved")
    read = list(open_source(data_in(folder)).train.read(np.array([3, 4, 8, 9, 17])))
    both = np.concatenate([pixels(9, 0), pixels(9, 1)])
    assert [content for _, content in read] == [encoded(both[i]) for i in (3, 4, 8, 9, 17)]
    assert read[3][0].endswith("data-00001-of-00002.arrow: row 0")


def test_one_saved_split_knows_what_it_is(tmp_path: Path) -> None:
    save_split(tmp_path / "d", table_of(0), split="train")
    opened = open_source(data_in(tmp_path / "d", test=[]))
    assert (len(opened.train), opened.test) == (9, None)
    assert "holds no split but train" in evaluated(find_data(str(tmp_path / "d")), tmp_path)[2]


def test_the_cache_of_datasets_is_read_by_the_names_of_its_files(tmp_path: Path) -> None:
    for split, seed in (("train", 0), ("test", 1)):
        folder = save_split(tmp_path / split, table_of(seed))
        (folder / "data-00000-of-00001.arrow").rename(tmp_path / f"insects-{split}.arrow")
    opened = open_source(data_in(tmp_path))
    assert opened.test is not None
    assert np.array_equal(images_of(opened.train), pixels(9, 0))
    assert np.array_equal(images_of(opened.test), pixels(9, 1))


def test_arrow_of_the_file_format_is_read_too(tmp_path: Path) -> None:
    table = table_of(0)
    with pa.OSFile(str(tmp_path / "train.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    assert np.array_equal(images_of(open_source(data_in(tmp_path, test=[])).train), pixels(9, 0))


def test_names_stand_in_the_info_where_the_schema_has_none(tmp_path: Path) -> None:
    for split in ("train", "test"):
        save_split(tmp_path / "d" / split, table_of(0, names=None))
    assert open_source(data_in(tmp_path / "d")).classes == tuple(NAMES)


@pytest.mark.parametrize("column", ["labels", "fine_label"])
def test_shards_of_parquet_with_usual_columns(tmp_path: Path, column: str) -> None:
    (tmp_path / "data").mkdir()
    for seed in range(2):
        pq.write_table(table_of(seed, column=column), tmp_path / f"data/train-{seed:05}-of-00002.parquet")
    pq.write_table(table_of(2, column=column), tmp_path / "data/validation-00000-of-00001.parquet")
    opened = open_source(data_in(tmp_path))
    assert opened.classes == tuple(NAMES)
    assert np.array_equal(images_of(opened.train), np.concatenate([pixels(9, 0), pixels(9, 1)]))
    assert opened.test is not None
    assert np.array_equal(images_of(opened.test), pixels(9, 2))


def lose_a_shard(folder: Path) -> None:
    (folder / "train" / "data-00001-of-00002.arrow").unlink()


def cut_a_shard(folder: Path) -> None:
    file = folder / "train" / "data-00001-of-00002.arrow"
    file.write_bytes(file.read_bytes()[:-8])  # the last batch is whole; only the end is missing


def empty_a_shard(folder: Path) -> None:
    (folder / "train" / "data-00001-of-00002.arrow").write_bytes(b"")


def garble_the_state(folder: Path) -> None:
    (folder / "train" / "state.json").write_text("{")


def order_classes_otherwise(folder: Path) -> None:
    write_stream(folder / "test" / "data-00000-of-00001.arrow", table_of(2, names=["bee", "ant", "cow"]))


def keep_labels_secret(folder: Path) -> None:
    table = table_of(2).set_column(1, "label", pa.array([-1] * 9, pa.int64()))
    write_stream(folder / "test" / "data-00000-of-00001.arrow", table)


MISTAKES = [
    (keep_labels_secret, r"test: its labels are all -1, .*; name another split, such as test: 'validation\*'"),
    (lose_a_shard, r"path: .*train lacks data-00001-of-00002\.arrow, which data-00000-of-00002\.arrow belongs to"),
    (cut_a_shard, r"data-00001-of-00002\.arrow: not a whole arrow file \(its end is missing\); copy it again"),
    (empty_a_shard, r"data-00001-of-00002\.arrow: not a whole arrow file"),
    (garble_the_state, r"state\.json: cannot be read as JSON"),
    (order_classes_otherwise, r"classes: class 0 is 'ant' in .*train.* and 'bee' in .*test.*do not mean the same"),
]


@pytest.mark.parametrize(("damage", "message"), MISTAKES)
def test_what_is_not_whole_is_refused_before_work(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    folder = save_to_disk(tmp_path / "saved")
    damage(folder)
    with pytest.raises(DataError, match=message):
        check_source(data_in(folder))


def test_another_order_of_classes_is_refused_even_if_the_config_names_them(tmp_path: Path) -> None:
    folder = save_to_disk(tmp_path / "saved")
    order_classes_otherwise(folder)
    with pytest.raises(DataError, match=r"class 0 is 'ant' in .* and 'bee' in"):
        check_source(data_in(folder, classes=NAMES))


def test_a_lost_shard_of_parquet_is_named(tmp_path: Path) -> None:
    for seed in (0, 2):
        pq.write_table(table_of(seed), tmp_path / f"train-{seed:05}-of-00003.parquet")
    with pytest.raises(DataError, match=r"lacks train-00001-of-00003\.parquet"):
        check_source(data_in(tmp_path, test=[]))


def test_several_data_sets_in_one_folder_are_not_mixed(tmp_path: Path) -> None:
    for config in ("large", "small"):
        (tmp_path / config).mkdir()
        pq.write_table(table_of(0), tmp_path / config / "train-00000-of-00001.parquet")
    with pytest.raises(DataError, match=r"train images lie in .*large and .*small; give the path of one of them"):
        check_source(data_in(tmp_path, test=[]))


def image_folder(root: Path, *, ending: str = "csv", nested: bool = True, names: bool = True) -> Data:
    """Images of two splits, with a metadata file in each or one for both."""
    rows: dict[Path, list[dict[str, Any]]] = {}
    for split, seed in (("train", 0), ("test", 1)):
        (root / split).mkdir(parents=True)
        for i, image in enumerate(pixels(6, seed)):
            (root / split / f"{i}.png").write_bytes(encoded(image))
            label: Any = NAMES[i % 3] if names else i % 3
            where, name = (root / split, f"{i}.png") if nested else (root, f"{split}/{i}.png")
            rows.setdefault(where, []).append({"file_name": name, "size": 8, "label": label})
    for where, listed in rows.items():
        lines = [json.dumps(row) for row in listed]
        if ending == "csv":
            lines = ["file_name,size,label", *(f"{row['file_name']},8,{row['label']}" for row in listed)]
        (where / f"metadata.{ending}").write_text("\n".join(lines) + "\n")
    return Data.model_validate({"name": "x", "source": "folder", "path": str(root)})


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("names", [True, False])
def test_labels_of_a_folder_stand_in_its_metadata(tmp_path: Path, ending: str, nested: bool, names: bool) -> None:
    opened = open_source(image_folder(tmp_path / "d", ending=ending, nested=nested, names=names))
    assert opened.classes == (tuple(NAMES) if names else ("0", "1", "2"))
    assert opened.train.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert np.array_equal(images_of(opened.train), pixels(6, 0))
    assert opened.test is not None
    assert np.array_equal(images_of(opened.test), pixels(6, 1))
    found = find_data(str(tmp_path / "d"))
    pictures, labels, said = evaluated(found, tmp_path)
    assert (found.source, labels.tolist()) == ("folder", [0, 1, 2, 0, 1, 2])
    assert np.array_equal(pictures, pixels(6, 1))
    assert "left out: train (6 images)" in said


ROWS = [
    ("0.png,8,ant\nlost.png,8,bee", r"metadata\.csv: row 1: names lost\.png, which is not there"),
    ("0.png,8,ant\n1.png,8,", r"row 1: expected file_name and label, found"),
    ("0.png,8,ant\n,8,bee", r"row 1: expected file_name and label, found"),
    ("0.png,8,0\n1.png,8,1", r"label_column: .*train.metadata\.csv holds integers and .*test.metadata\.csv names"),
]


@pytest.mark.parametrize(("rows", "message"), ROWS)
def test_a_row_of_metadata_that_cannot_be_used_is_named(tmp_path: Path, rows: str, message: str) -> None:
    data = image_folder(tmp_path / "d")
    (tmp_path / "d" / "train" / "metadata.csv").write_text(f"file_name,size,label\n{rows}\n")
    with pytest.raises(DataError, match=message):
        check_source(data)


def test_a_test_split_without_metadata_is_not_passed_over(tmp_path: Path) -> None:
    data = image_folder(tmp_path / "d")
    (tmp_path / "d/test/metadata.csv").unlink()
    message = r"test: \S*/d/test has images without labels in metadata, and \S*/train/metadata.csv has labels; write"
    with pytest.raises(DataError, match=message):
        check_source(data)
    opened = open_source(data.model_copy(update={"test": []}))
    assert (len(opened.train), opened.test) == (6, None)


def test_metadata_without_labels_leave_them_to_the_folders(tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / "d" / name).mkdir(parents=True)
        (tmp_path / "d" / name / "0.png").write_bytes(encoded(pixels(1)[0]))
        (tmp_path / "d" / name / "1.png").write_bytes(encoded(pixels(1, 1)[0]))
    (tmp_path / "d" / "metadata.csv").write_text("file_name,caption\nant/0.png,an ant\n")
    opened = open_source(Data.model_validate({"name": "x", "source": "folder", "path": str(tmp_path / "d")}))
    assert opened.classes == tuple(NAMES)
